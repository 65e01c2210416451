"""What stands in systemd/: units that verify and are hardened, and a configuration that loads."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.config import Config, Destination, Peer, Route, Tls, load_config
from tests.paths import REPOSITORY

FOLDER = REPOSITORY / "systemd"
UNITS = ("oarlock-listener.service", "oarlock-worker.service")
MOST_EXPOSURE = {"oarlock-listener.service": 1.1, "oarlock-worker.service": 1.4}
EXAMPLES = {"bundle"}  # commented keys that show no default

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


class Directives(dict):
    """Every directive of a unit with all its values, in the order of the file."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        for line in (FOLDER / unit).read_text().splitlines():
            if "=" in line and not line.startswith("#"):
                key, _, value = line.partition("=")
                self.setdefault(key, []).append(value)


def annotated(tmp_path: Path, *, everything: bool) -> Config:
    """Load the annotated configuration with its root replaced, optionally with all that is commented out."""
    text = (FOLDER / "oarlock.toml").read_text().replace('"/var/lib/oarlock"', f'"{tmp_path}/spool"')
    if everything:
        text = re.sub(
            r"^# (\[\[.*|\[tls\]|[a-z_]+ = \S+|hosts = .*|structures = .*|objects = .*)$",
            r"\1",
            text,
            flags=re.MULTILINE,
        )
        text = text.replace("/var/lib/oarlock/", f"{tmp_path}/spool/")
    path = tmp_path / "oarlock.toml"
    path.write_text(text)
    return load_config(path, {})


def test_the_annotated_configuration_loads(tmp_path):
    """The file that is installed is valid as it stands, and lets nobody in until it is edited."""
    config = annotated(tmp_path, everything=False)

    assert config == Config.model_validate({"storage": {"root": str(tmp_path / "spool")}})
    assert (config.peers, config.destinations, config.routes) == ((), (), ())


def test_the_comments_of_the_configuration_are_true(tmp_path):
    """What is commented out is valid too, shows the real defaults, and mentions every key there is."""
    config = annotated(tmp_path, everything=True)
    default = Config.model_validate({"storage": {"root": str(tmp_path / "spool")}})

    for section in ("node", "storage", "database", "series", "web", "delivery", "retention"):
        assert getattr(config, section) == getattr(default, section), section
        assert getattr(config, section).model_fields_set == set(type(getattr(config, section)).model_fields)
    assert config.model.model_dump(exclude=EXAMPLES) == default.model.model_dump(exclude=EXAMPLES)
    assert config.model.model_fields_set == set(type(config.model).model_fields)
    assert config.route_for("CT_SIM", "OARLOCK").destinations == ("TPS",)
    assert config.peer_for("CT_SIM", "10.20.30.40")
    text = (FOLDER / "oarlock.toml").read_text()
    for section in (Peer, Destination, Route, Tls):
        for key in section.model_fields:
            assert re.search(rf"^# {key} = ", text, re.MULTILINE), f"{section.__name__} {key}"


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_units_are_hardened(unit):
    """Systemd's own measure of what a break-in could reach stays below our limit."""
    answer = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(FOLDER / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", answer.stdout)

    assert found, answer.stdout + answer.stderr
    assert float(found[1]) <= MOST_EXPOSURE[unit]


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_units_verify(unit, tmp_path):
    """Systemd finds no unknown or misspelt directive in a unit whose program is installed."""
    installed = tmp_path / unit
    installed.write_text(
        (FOLDER / unit).read_text().replace("/opt/oarlock/.venv/bin/oarlock", shutil.which("true"))
    )
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(installed)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS)
def test_units_start_the_installed_command(unit):
    """Both run `oarlock` of /opt as their own user, tell systemd of themselves and come back on failure."""
    directives = Directives(unit)
    role = {"oarlock-listener.service": "listen", "oarlock-worker.service": "work"}[unit]

    assert directives["ExecStart"] == [
        f"/opt/oarlock/.venv/bin/oarlock {role} --config /etc/oarlock/oarlock.toml"
    ]
    assert directives["Type"] == ["notify"]
    assert directives["User"] == directives["Group"] == directives["StateDirectory"] == ["oarlock"]
    assert directives["Restart"] == ["on-failure"]
    assert directives["RestartPreventExitStatus"] == ["2"]


def test_only_the_listener_listens_and_only_the_worker_calls_and_sees_a_gpu():
    """The worker may not call listen(2), the listener not connect(2), sees no device and has bounded memory."""
    listener, worker = Directives(UNITS[0]), Directives(UNITS[1])

    assert "~listen" in worker["SystemCallFilter"]
    assert worker["SocketBindDeny"] == ["udp", "tcp:1-65535"]
    assert "~connect" in listener["SystemCallFilter"]
    assert worker["DeviceAllow"] == ["char-nvidia* rw"]
    assert "PrivateDevices" not in worker
    assert "~listen" not in listener["SystemCallFilter"]
    assert listener["PrivateDevices"] == ["yes"]
    assert "DeviceAllow" not in listener
    assert "MemoryMax" in listener


@pytest.mark.parametrize("unit", UNITS)
def test_no_image_of_the_memory_is_left_on_disk(unit):
    """A core dump would hold patients' images where nobody looks after them."""
    assert Directives(unit)["LimitCORE"] == ["0"]
    assert Directives(unit)["UMask"] == ["0077"]


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="needs systemd-sysusers")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to own files as another user")
def test_account_and_folders_are_created(tmp_path):
    """The account exists and owns the state directory; the configuration is its to read, not to write."""
    (tmp_path / "etc").mkdir()
    for tool, file in (("systemd-sysusers", "oarlock.sysusers"), ("systemd-tmpfiles", "oarlock.tmpfiles")):
        create = ["--create"] if tool == "systemd-tmpfiles" else []
        subprocess.run(
            [tool, f"--root={tmp_path}", *create, str(FOLDER / file)], check=True, capture_output=True
        )
    account = next(
        line.split(":")
        for line in (tmp_path / "etc/passwd").read_text().splitlines()
        if line.startswith("oarlock:")
    )
    state, etc = (tmp_path / "var/lib/oarlock").stat(), (tmp_path / "etc/oarlock").stat()

    assert account[5:] == ["/var/lib/oarlock", "/usr/sbin/nologin"]
    assert (state.st_uid, state.st_gid, oct(state.st_mode)) == (int(account[2]), int(account[3]), "0o40700")
    assert (etc.st_uid, etc.st_gid, oct(etc.st_mode)) == (0, int(account[3]), "0o40750")


def test_the_installation_guide_names_files_that_exist():
    """Every file of ours that the guide installs is in the repository, and every unit is installed by it."""
    guide = (REPOSITORY / "docs" / "install.md").read_text()
    named = set(re.findall(r"(?<!/)\bsystemd/[\w.-]+\w", guide))

    assert named == {f"systemd/{path.name}" for path in FOLDER.iterdir()}
    assert all((REPOSITORY / name).exists() for name in (*named, "constraints.txt"))
