"""`oarlock check` and `oarlock echo`: whether a node works, before the first patient."""

import errno
import socket

import pytest
import torch

from daemon.listener_lock import alone
from daemon.spool import Spool
from tests.band_bundle import write_band_bundle
from tests.command import Oarlock, write_config
from tests.conditions import free_port
from tests.peers import ReceivingPeer

# pynetdicom leaves the socket of a failed connection to the garbage collector, which Python remarks upon.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def oarlock(tmp_path, capsys, monkeypatch):
    """Run the command with a configuration that has its spool and job table in tmp_path."""
    write_config(tmp_path)
    return Oarlock(tmp_path / "oarlock.toml", capsys, monkeypatch)


def destinations(port: int, *names: str) -> str:
    return "".join(
        f'[[destinations]]\nname = "{name}"\nae_title = "RECEIVER"\nhost = "127.0.0.1"\nport = {port}\n'
        for name in names
    )


def test_echo_asks_a_destination(oarlock, tmp_path):
    """An answer ends with 0, silence with 1 and a reason, an unknown name with 2 and the known ones."""
    with ReceivingPeer() as peer:
        dead = destinations(free_port(), "DEAD")
        write_config(tmp_path, destinations(peer.port, "TPS") + dead)

        assert "TPS, RECEIVER@127.0.0.1" in oarlock("echo", "TPS").out
        assert peer.echoes == 1
        refused, unknown = oarlock("echo", "DEAD"), oarlock("echo", "PACS")

    assert (refused.code, refused.out) == (1, "")
    assert "DEAD, RECEIVER@127.0.0.1" in refused.err
    assert "connection" in refused.err
    assert (unknown.code, unknown.err) == (
        2,
        "oarlock: no destination is called PACS (known: TPS, DEAD)\n",
    )


@pytest.mark.usefixtures("queue")
def test_check_is_content_with_a_node_that_works(oarlock, tmp_path):
    """Everything in order ends with 0 and says what was tried."""
    tmp_path.chmod(0o700)
    bundle = write_band_bundle(tmp_path / "bundle")
    with ReceivingPeer() as peer:
        more = f'[model]\nbundle = "{bundle}"\ndevice = "cpu"\n'
        more += '[[peers]]\nae_title = "CT1"\nhosts = ["localhost"]\n'
        more += (
            destinations(peer.port, "TPS") + '[[routes]]\ndestinations = ["TPS"]\nstructures = ["Brain"]\n'
        )
        write_config(tmp_path, more)
        answer = oarlock("check")

    assert answer.code == 0, answer.out
    assert "✗" not in answer.out
    for subject in (
        "configuration",
        "peer CT1",
        "route 1",
        "storage",
        "space",
        "job table",
        "port 0",
        "model",
        "device",
    ):
        assert f"✓  {subject}" in answer.out, subject
    assert "bands 1, 4 structures" in answer.out
    assert "✓  destination TPS" in answer.out


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize("by", ["structures", "template"])
def test_check_finds_organs_that_the_model_does_not_have(oarlock, tmp_path, by):
    """Whether a route lists them, or its template derives something from them."""
    bundle = write_band_bundle(tmp_path / "bundle")
    template = tmp_path / "site.toml"
    template.write_text('name = "S"\n[[structures]]\nname = "PRV"\nmargin = { of = "Esophagus", mm = 5 }\n')
    wanted = f'template = "{template}"' if by == "template" else 'structures = ["Brain", "Esophagus"]'
    write_config(
        tmp_path,
        f'[model]\nbundle = "{bundle}"\ndevice = "cpu"\n{destinations(1, "TPS")}'
        f'[[routes]]\ndestinations = ["TPS"]\n{wanted}\n',
    )

    answer = " ".join(oarlock("check").out.split())

    assert "routes name structures that this model does not have: Esophagus" in answer


def port_lines(oarlock, tmp_path) -> str:
    """What `oarlock check` finds of the ports, where one is taken."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = tmp_path / "oarlock.toml"
        config.write_text(config.read_text().replace("port = 0", f"port = {port}", 1))
        lines = [" ".join(line.split()) for line in oarlock("check").out.splitlines()]
    return "\n".join(line.replace(str(port), "PORT") for line in lines if " port " in f" {line}")


def test_check_finds_a_port_that_another_program_has(oarlock, tmp_path):
    """What makes most first starts fail is found before, with the command that tells who it is."""
    found = port_lines(oarlock, tmp_path)

    assert found == "✗ port PORT another program has it; which, tells: ss -ltnp 'sport = :PORT'"


def test_check_is_content_with_a_port_that_the_listener_has(oarlock, tmp_path):
    with alone(tmp_path):
        assert port_lines(oarlock, tmp_path) == "✓ port PORT taken, and the listener runs"


def test_check_says_that_a_low_port_takes_a_privilege(oarlock, tmp_path, monkeypatch):
    """Whoever checks may lack what the service was given."""

    def refuse(_socket, _address):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("daemon.port_check.socket.socket.bind", refuse)
    config = tmp_path / "oarlock.toml"
    config.write_text(config.read_text().replace("port = 0", "port = 104", 1))

    assert "– port 104 takes a privilege" in " ".join(oarlock("check").out.split())


def test_check_finds_an_address_that_is_another_computers(oarlock, tmp_path):
    config = tmp_path / "oarlock.toml"
    config.write_text(config.read_text().replace("127.0.0.1", "192.0.2.1", 1))  # for documents (RFC 5737)

    words = "✗ port 0 cannot be bound on 192.0.2.1: Cannot assign requested address"
    assert words in " ".join(oarlock("check").out.split())


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize(
    ("precision", "words"),
    [
        (torch.bfloat16, "threads, bfloat16"),
        (torch.float32, "this processor has neither AMX nor AVX-512 BF16"),
    ],
)
def test_check_says_how_the_processor_will_compute(
    oarlock, tmp_path, monkeypatch, precision: torch.dtype, words: str
):
    """Who wonders why one server takes thrice the time of another finds it here."""
    monkeypatch.setattr("model.segmenter.fastest_precision", lambda _device: precision)
    bundle = write_band_bundle(tmp_path / "bundle")
    write_config(tmp_path, f'[model]\nbundle = "{bundle}"\ndevice = "cpu"\n')

    assert words in " ".join(oarlock("check").out.split())


def test_check_finds_everything_that_is_wrong(oarlock, tmp_path):
    """Each fault has its line, and the exit code is 1."""
    more = f"""
[model]
bundle = "{tmp_path}/nowhere"
[[peers]]
ae_title = "CT1"
hosts = ["no-such-host.invalid"]
{destinations(free_port(), "TPS", "SPARE")}
[[routes]]
destinations = []
calling_ae_title = "A"
[[routes]]
destinations = ["TPS"]
[[routes]]
calling_ae_title = "B"
destinations = ["TPS"]
"""
    write_config(tmp_path, more, min_free_bytes="1e18")
    answer = oarlock("check")

    assert answer.code == 1
    for row in (
        "✗  peer CT1",
        "✗  route 1",
        "✓  route 2",
        "✗  route 3",
        "–  destination SPARE",
        "✗  space",
        "–  job table",
        "✗  model",
        "✗  destination TPS",
    ):
        assert row in answer.out, row


def test_check_finds_jobs_on_disk_that_no_table_knows(oarlock, tmp_path):
    """With which no service starts."""
    write_config(tmp_path)
    spool = Spool(tmp_path, 0)
    spool.prepare()
    spool.store_result(1, b"anything")
    answer = " ".join(oarlock("check").out.split())

    assert "✗ job table" in answer
    assert "is gone, but 1 jobs lie in" in answer
    assert "oarlock recover" in answer


def test_check_tells_of_a_wrong_configuration(oarlock, tmp_path):
    """A configuration that does not load is the one finding, with each of its problems."""
    write_config(tmp_path, "[nodes]\n")
    answer = oarlock("check")

    assert answer.code == 1
    assert "✗  configuration" in answer.out
    assert "line 9, [nodes]" in answer.out


def test_the_installed_configuration_fails_its_check_until_it_is_edited(oarlock):
    """A node that nobody may use and that sends nowhere is not in order."""
    answer = oarlock("check")

    assert answer.code == 1
    assert "nobody may send" in answer.out
    assert "structure sets go nowhere" in answer.out


def test_peers_and_routes_that_do_not_meet_are_found(oarlock, tmp_path):
    """What such a peer sends would be stored and then rejected; such a route would never be taken."""
    more = '[[peers]]\nae_title = "CT1"\n' + destinations(free_port(), "TPS")
    more += '[[routes]]\ncalling_ae_title = "CT_1"\ndestinations = ["TPS"]\n'
    write_config(tmp_path, more)

    answer = oarlock("check").out

    assert "no route is for it" in answer
    assert "no peer has this AE title" in answer
