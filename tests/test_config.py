"""The configuration file: what it means, and that everything wrong with it is said at once and in place."""

import errno
import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from daemon.config import Config, load_config
from daemon.errors import ConfigError

WHOLE = """
[node]
ae_title = " OARLOCK "
port = 11113

[storage]
root = "{root}"
min_free_bytes = 1e9

[series]
quiet_seconds = 5

[[peers]]
ae_title = "CT1"
hosts = ["10.1.2.3", "10.20.0.0/16", "localhost", "2001:db8::/32"]

[[peers]]
ae_title = "CT2"

[[destinations]]
name = "TPS"
ae_title = "ECLIPSE"
host = "tps.hospital.example"
port = 104

[[destinations]]
name = "PACS"
ae_title = "PACS"
host = "10.0.0.9"
port = 11112

[[routes]]
calling_ae_title = "CT1"
called_ae_title = "OARLOCK"
destinations = ["TPS"]
structures = ["Parotid_L", "Parotid_R"]

[[routes]]
calling_ae_title = "*"
destinations = ["PACS", "TPS"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "oarlock.toml"
    path.write_text(text.replace("{root}", str(folder / "spool")))
    return path


def load(folder: Path, text: str, **environ: str) -> Config:
    return load_config(write(folder, text), environ)


def problems(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **environ)
    return list(caught.value.problems)


def test_every_key_has_its_meaning(tmp_path):
    """A whole file is read with its values, and what it leaves out has its default."""
    config = load(tmp_path, WHOLE)

    assert (config.node.ae_title, config.node.port, config.node.max_associations) == ("OARLOCK", 11113, 20)
    assert config.storage.root == tmp_path / "spool"
    assert config.storage.min_free_bytes == 1_000_000_000
    assert config.database.url == f"sqlite:///{tmp_path}/spool/oarlock.db"
    assert (config.series.quiet_seconds, config.series.max_wait_seconds) == (5, 3600)
    assert (config.delivery.retry_for_hours, config.retention.days) == (48, 30)
    assert config.destination("PACS").port == 11112
    assert config.destination("nowhere") is None


def test_loading_creates_nothing(tmp_path):
    """Reading the configuration leaves no file and no folder behind."""
    load(tmp_path, WHOLE)

    assert [path.name for path in tmp_path.iterdir()] == ["oarlock.toml"]


def test_first_matching_route_wins(tmp_path):
    """Routes are tried in the order of the file, and a star matches every AE title."""
    config = load(tmp_path, WHOLE)

    assert config.route_for("CT1", "OARLOCK").destinations == ("TPS",)
    assert config.route_for("CT1 ", " OARLOCK").structures == ("Parotid_L", "Parotid_R")
    assert config.route_for("CT1", "OTHER").destinations == ("PACS", "TPS")
    assert config.route_for("CT9", "OARLOCK").destinations == ("PACS", "TPS")


def test_no_route_is_none(tmp_path):
    """Where no route matches, there is none."""
    assert load(tmp_path, '[storage]\nroot = "{root}"').route_for("CT1", "OARLOCK") is None


@pytest.mark.parametrize(
    ("ae_title", "address", "allowed"),
    [
        ("CT1", "10.1.2.3", True),
        ("CT1", "10.1.2.4", False),
        ("CT1", "10.20.255.1", True),
        ("CT1", "127.0.0.1", True),
        ("CT1", "::ffff:10.1.2.3", True),
        ("CT1", "2001:db8::7", True),
        ("CT1", "not an address", False),
        ("CT2", "192.0.2.1", True),
        ("CT3", "10.1.2.3", False),
        ("ct1", "10.1.2.3", False),
    ],
)
def test_peers_are_known_by_title_and_address(tmp_path, ae_title, address, allowed):
    """Addresses, networks and names limit a peer; no hosts do not."""
    assert (load(tmp_path, WHOLE).peer_for(ae_title, address) is not None) is allowed


def test_without_peers_nobody_may_send(tmp_path):
    """An empty list of peers closes the node."""
    config = load(tmp_path, 'peers = []\n[storage]\nroot = "{root}"')

    assert not config.peer_for("CT1", "127.0.0.1")


def test_a_star_lets_anybody_send(tmp_path):
    """The AE title of a peer may be a star, and its hosts still count."""
    text = '[storage]\nroot = "{root}"\n[[peers]]\nae_title = "*"\nhosts = ["10.0.0.0/8"]'
    config = load(tmp_path, text)

    assert config.peer_for("ANYBODY", "10.9.9.9")
    assert not config.peer_for("ANYBODY", "11.9.9.9")


def test_who_is_named_must_be_as_configured_whatever_a_star_lets_in(tmp_path):
    """Else anybody in the network could send under the title of a pinned scanner."""
    text = (
        '[storage]\nroot = "{root}"\n[[peers]]\nae_title = "CT_SIM"\nhosts = ["10.20.30.40"]\n'
        '[[peers]]\nae_title = "*"\nhosts = ["10.20.0.0/16"]'
    )
    config = load(tmp_path, text)

    assert config.peer_for("CT_SIM", "10.20.30.40")
    assert not config.peer_for("CT_SIM", "10.20.99.99")
    assert config.peer_for("OTHER", "10.20.99.99")


def test_a_name_that_does_not_resolve_lets_nobody_in(tmp_path):
    """An unknown host name is no error at reading and no open door."""
    text = '[storage]\nroot = "{root}"\n[[peers]]\nae_title = "A"\nhosts = ["no-such-host.invalid"]'

    assert not load(tmp_path, text).peer_for("A", "127.0.0.1")


def test_all_problems_are_reported_at_once_with_their_lines(tmp_path):
    """Every kind of mistake stands in one report, in the order of the file, at its own line."""
    text = """[node]
ae_title = "SEVENTEEN_LETTERS"
prot = 11112
port = 99999

[storage]
root = "/proc/no-such-folder"

[series]
quiet_seconds = "soon"

[[peers]]
ae_title = "C\\\\T"
hosts = ["10.1.2.3/8", "300.1.1.1", "bad host"]

[[destinations]]
name = "TPS"
ae_title = "A"
host = "tps"
port = 0

[[destinations]]
name = "TPS"
ae_title = "\\u0001"
host = "tps"

[[routes]]
destinations = ["TPX", "TPS", "TPS"]
structures = ["Parotid_Left"]

[webb]
port = 1
"""
    found = problems(tmp_path, text, OARLOCK_NODE__HOSTS="x", OARLOCK_PEERS__AE_TITLE="x")

    expected = [
        ("environment OARLOCK_NODE__HOSTS", 'unknown key; did you mean "host"?'),
        ("environment OARLOCK_PEERS__AE_TITLE", "no section"),
        ("line 2, [node] ae_title", "has 17 characters"),
        ("line 3, [node] prot", 'did you mean "port"?'),
        ("line 4, [node] port", "65535, found 99999"),
        ("line 7, [storage] root", "cannot write in /proc"),
        ("line 10, [series] quiet_seconds", "found 'soon'"),
        ("line 13, [[peers]] ae_title", "backslash"),
        ("line 14, [[peers]] hosts", "host bits set"),
        ("line 14, [[peers]] hosts", '"300.1.1.1" is neither'),
        ("line 14, [[peers]] hosts", '"bad host" is neither'),
        ("line 20, [[destinations]] port", "found 0"),
        ("line 22, [[destinations]] port", "is missing"),
        ("line 23, [[destinations]] name", '"TPS" is also number 1'),
        ("line 24, [[destinations]] ae_title", "control characters"),
        ("line 28, [[routes]] destinations", '"TPS" stands here twice'),
        ("line 28, [[routes]] destinations", 'no destination is called "TPX" (known: TPS)'),
        ("line 29, [[routes]] structures", "Parotid_L"),
        ("line 31, [webb]", 'did you mean "web"?'),
    ]
    assert len(found) == len(expected), "\n".join(found)
    for place, text in expected:
        assert any(line.startswith(place + ":") and text in line for line in found), (place, text, found)


def test_environment_overrides_the_file(tmp_path):
    """OARLOCK_<SECTION>__<KEY> wins, also for a section the file does not have."""
    config = load(
        tmp_path,
        WHOLE,
        OARLOCK_NODE__PORT="104",
        OARLOCK_WEB__PORT="8080",
        OARLOCK_DATABASE__URL="sqlite:////var/lib/jobs.db",
        OARLOCK_CONFIG="not an override",
        PATH="",
    )

    assert (config.node.port, config.web.port) == (104, 8080)
    assert config.database.url == "sqlite:////var/lib/jobs.db"


def test_a_wrong_override_is_named_by_its_variable(tmp_path):
    """A bad value from the environment is reported as such and not with a line of the file."""
    found = problems(tmp_path, WHOLE, OARLOCK_NODE__PORT="many", OARLOCK_DEVICE__TYPE="cuda")

    assert any(line.startswith("environment OARLOCK_NODE__PORT: ") for line in found)
    assert any(line.startswith("environment OARLOCK_DEVICE__TYPE: unknown") for line in found)


def test_passwords_are_never_printed(tmp_path):
    """A database URL that is refused is not repeated, as it may hold a password."""
    refused = problems(tmp_path, WHOLE, OARLOCK_DATABASE__URL="postgresql://u:hush@db/oarlock")
    worse = problems(tmp_path, '[storage]\nroot = "{root}"\n[database]\nurl = ["hush"]\nurm = "hush"')

    assert "hush" not in "".join(refused + worse)


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite://", "sqlite:///relative.db", "sqlite:////d.db?mode=ro", "postgresql://h/d"]
)
def test_databases_that_cannot_work_are_refused(tmp_path, url):
    """What is not the absolute path of a SQLite file is refused."""
    (found,) = problems(tmp_path, WHOLE, OARLOCK_DATABASE__URL=url)

    assert found.startswith("environment OARLOCK_DATABASE__URL: ")


def test_an_empty_database_section_means_the_default(tmp_path):
    """The annotated file keeps the section with its key commented out."""
    config = load(tmp_path, '[storage]\nroot = "{root}"\n[database]\n')

    assert config.database.url.endswith("/spool/oarlock.db")


def test_relative_paths_start_at_the_file(tmp_path, monkeypatch):
    """Where the process was started does not matter."""
    monkeypatch.chdir("/")
    config = load(tmp_path, '[storage]\nroot = "here"\n[model]\nbundle = "../weights"')

    assert config.storage.root == tmp_path / "here"
    assert config.model.bundle == tmp_path / "../weights"


PIN = f'certificate_sha256="{"0" * 64}"'
ASKS_NOBODY = '[tls]\ncertificate = "c"\nkey = "k"\nrequire_peer_certificate = false\n'
PINNED_PEER = f'[[peers]]\nae_title = "A"\ncertificates_sha256 = ["{"0" * 64}"]'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[node\n", "not TOML"),
        ('node = 3\n[storage]\nroot = "{root}"', "line 1, [node]: must be a table"),
        ("", "[storage]: is missing"),
        (
            '[storage]\nroot = "{root}"\npeers = "CT1"',
            "line 3, [storage] peers: unknown key; known here: root",
        ),
        ('peers = "CT1"\n[storage]\nroot = "{root}"', "line 1, [peers]: must be a list"),
        ('[storage]\nroot = "{root}"\n[series]\nquiet_seconds = nan', "finite number"),
        ('[storage]\nroot = "{root}"\n[[peers]]\nae_title = "  "', "is empty"),
        (
            '[storage]\nroot = "{root}"\n[retention]\nfailed_days = true',
            "line 4, [retention] failed_days: must be a number, found true",
        ),
        ('[storage]\nroot = "{root}"\nmin_free_bytes = true', "min_free_bytes: must be a number, found true"),
        ('[storage]\nroot = "{root}"\n[model]\ndevice = "tpu"', "line 4, [model] device: must be 'auto'"),
        ('storage.root = "{root}"\nnode.port = -1', "line 2, [node] port: "),
        ('storage.root = "{root}"\nretention.days = 1_000_000', "less than or equal to 36500"),
        ('storage.root = "{root}"\nseries.max_wait_seconds = 1e15', "less than or equal to 604800"),
        (
            'storage.root = "{root}"\nnode.port = 2762\n[tls]\ncertificate = "c"\nkey = "k"\nauthorities = "a"',
            "[tls] port and [node] port are both 2762",
        ),
        (
            'storage.root = "{root}"\n[[peers]]\nae_title = "A"\n[[peers]]\nae_title = "A"',
            "put the hosts of both into one",
        ),
        (
            '[storage]\nroot = "{root}"\n[[destinations]]\nname="A"\nae_title="A"\nhost="h"\nport=1\n' + PIN,
            "tls = true is missing: without it certificate_sha256 is never looked at",
        ),
        (
            'storage.root = "{root}"\n'
            + ASKS_NOBODY
            + '[[destinations]]\nname = "TPS"\nae_title = "T"\nhost = "h"\nport = 104\n'
            + "tls = true\ncommitment = true\n"
            + PIN,
            'nobody could be destination "TPS", which calls to report its commitment,',
        ),
        (
            'storage.root = "{root}"\n' + ASKS_NOBODY + PINNED_PEER,
            'nobody could be peer "A"',
        ),
        (
            '[storage]\nroot = "{root}"\n[[destinations]]\nname="A/B"\nae_title="A"\nhost="h"\nport=1',
            "line 4, ",
        ),
    ],
)
def test_single_mistakes_are_told_as_such(tmp_path, text, expected):
    """One mistake makes one message that says where it is."""
    (found,) = problems(tmp_path, text)

    assert expected in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = " + "[" * 5000, "hundreds deep"),
        ("a = " + "9" * 5000, "not TOML: Exceeds the limit"),
        ("\nx = {" + "a." * 100_000 + "a = 1}", "line 2: a key of more than 1000 parts"),
        (
            '[storage]\nroot = "{root}"\n[[destinations]]\nname="A"\nae_title="A"\nhost="h"\nport=1\ntls=true',
            'the file: [tls] is missing, which destination "A" needs',
        ),
    ],
    ids=[
        "nested without end",
        "a number of thousands of digits",
        "a key without end",
        "a section that another one needs",
    ],
)
def test_what_no_single_key_is_to_blame_for_is_told_too(tmp_path, text, expected):
    (found,) = problems(tmp_path, text)

    assert expected in found


@pytest.mark.parametrize("key", ["[storage]\nroot", '[storage]\nroot = "{root}"\n[model]\nbundle'])
def test_the_home_of_a_user_who_does_not_exist_is_said_to_be_so(tmp_path, key):
    (found,) = problems(tmp_path, f'{key} = "~no-such-user/x"')

    assert "a user whom this machine does not know" in found


@pytest.mark.parametrize("url", ["postgresql://u:secret@h:port/d", "sqlite://u:secret@h:/d"])
def test_a_database_url_whose_port_is_no_number_is_refused_without_repeating_it(tmp_path, url):
    (found,) = problems(tmp_path, f'[storage]\nroot = "{{root}}"\n[database]\nurl = "{url}"')

    assert "database" in found
    assert "secret" not in found
    assert "'port'" not in found


def test_a_name_that_is_no_text_is_one_problem_of_the_file(tmp_path):
    table = '[storage]\nroot = "{root}"\n[[destinations]]\nname = ["A"]\nae_title = "A"\nhost = "h"\nport = 1'
    (found,) = problems(tmp_path, table)

    assert "line 4, [[destinations]] name" in found


@pytest.mark.parametrize("variable", ["OARLOCK_NODE__AE_TITLE", "OARLOCK_NODE__\udce9"])
def test_an_environment_that_is_no_text_is_named_and_can_be_printed(tmp_path, variable):
    """A process may be started with any bytes in its environment."""
    (found,) = problems(tmp_path, '[storage]\nroot = "{root}"', **{variable: "CT\udcff"})

    assert "not UTF-8 text" in found
    assert found.encode()


def test_a_missing_file_is_a_problem_of_the_configuration(tmp_path):
    """A path that leads nowhere is said plainly."""
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    """Folders are really written."""
    (tmp_path / "spool").mkdir(mode=0o500)

    assert "Permission denied" in problems(tmp_path, WHOLE)[0]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    """A root below a file cannot be made."""
    (tmp_path / "spool").write_text("")

    assert "Not a directory" in problems(tmp_path, WHOLE)[0]


def test_values_are_frozen(tmp_path):
    """Nobody changes the configuration under another's feet."""
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path, WHOLE).node.port = 1


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path):
    path = tmp_path / "oarlock.toml"
    path.write_text(f'[storage]\nroot = "{tmp_path}"\n', encoding="utf-8-sig")

    assert load_config(path, {}).storage.root == tmp_path


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_disk_with_a_fault_is_no_mistake_in_the_configuration(tmp_path, monkeypatch, number):
    """A service that ended for one would not be started again."""
    path = tmp_path / "oarlock.toml"
    path.write_text(f'[storage]\nroot = "{tmp_path}"\n[node]\nae_title = "OARLOCK"\n')
    monkeypatch.setattr("tempfile.TemporaryFile", Mock(side_effect=OSError(number, os.strerror(number))))

    assert load_config(path, {}).storage.root == tmp_path
