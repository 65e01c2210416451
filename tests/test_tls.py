"""DICOM TLS against DCMTK: who has no right certificate gets no byte, in either direction."""

import shutil
import socket

import pytest

from daemon.config import Destination, Tls
from daemon.delivery import echo
from daemon.errors import CannotStart
from daemon.outgoing_association import OutcomeKind
from daemon.tls import server_context
from tests.certificates import Authority
from tests.conditions import accepts_tcp
from tests.nodes import receiving_node
from tests.peers import dcmtk_send, free_port, storescp
from tests.phantom import write_series

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("echoscu") and shutil.which("openssl")), reason="DCMTK and openssl are needed"
    ),
    # pynetdicom leaves the socket of a failed connection to the garbage collector, which Python remarks upon.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def own(authority):
    return authority.sign("oarlock")


@pytest.fixture(scope="module")
def peer(authority):
    return authority.sign("scanner")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"), "somebody").sign("stranger")


def tls(authority, own, **changes):
    return {
        "certificate": own.certificate,
        "key": own.key,
        "authorities": authority.own.certificate,
        "port": 0,
    } | changes


def dcmtk_tls(authority, certificate):
    return ("+tls", certificate.key, certificate.certificate, "+cf", authority.own.certificate)


def says(program, node_port, *options):
    return dcmtk_send(program, *options, "-aec", "OARLOCK", "127.0.0.1", str(node_port)).returncode == 0


def test_images_come_by_tls_and_by_the_plain_port_beside_it(tmp_path, authority, own, peer):
    files = write_series(tmp_path / "ct")[:3]
    with receiving_node(tmp_path / "node", tls=tls(authority, own)) as node:
        sent = dcmtk_send(
            "storescu", *dcmtk_tls(authority, peer), "-aec", "OARLOCK", "127.0.0.1",
            str(node.listener.tls_port), *files,
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        assert says("echoscu", node.port)
        assert [job.instance_count for job in node.queue.jobs()] == [3]


def test_a_port_for_tls_that_is_taken_leaves_none_open(tmp_path, authority, own):
    """Who could not start holds nothing that keeps the next one from starting."""
    plain = free_port()
    with receiving_node(tmp_path / "one") as other:
        secured = tls(authority, own, port=other.port)
        with (
            pytest.raises(CannotStart, match=str(other.port)),
            receiving_node(tmp_path / "two", tls=secured, node={"port": plain}),
        ):
            pytest.fail("two listeners on one port")

        assert not accepts_tcp(plain)


def test_only_tls_closes_the_plain_port(tmp_path, authority, own, peer):
    with receiving_node(tmp_path, tls=tls(authority, own, only=True)) as node:
        assert node.port == node.listener.tls_port
        assert says("echoscu", node.port, *dcmtk_tls(authority, peer))
        assert not says("echoscu", node.port)


@pytest.mark.parametrize("required", [True, False])
def test_a_peer_without_a_certificate_of_our_authorities_is_let_in_only_where_none_is_required(
    tmp_path, authority, own, stranger, required
):
    with receiving_node(tmp_path, tls=tls(authority, own, require_peer_certificate=required)) as node:
        assert says("echoscu", node.listener.tls_port, *dcmtk_tls(authority, stranger)) is not required


def test_a_pinned_peer_needs_that_very_certificate(tmp_path, authority, own, peer):
    other = authority.sign("other-scanner")
    peers = [{"ae_title": "ECHOSCU", "certificates_sha256": [peer.sha256]}]
    with receiving_node(tmp_path, tls=tls(authority, own), peers=peers) as node:
        assert says("echoscu", node.listener.tls_port, *dcmtk_tls(authority, peer))
        assert not says("echoscu", node.listener.tls_port, *dcmtk_tls(authority, other))
        assert not says("echoscu", node.port)


def test_who_connects_and_says_nothing_keeps_nobody_waiting(tmp_path, authority, own, peer):
    with receiving_node(tmp_path, tls=tls(authority, own)) as node:
        port = node.listener.tls_port
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        assert says("echoscu", port, *dcmtk_tls(authority, peer))
        for connection in silent:
            connection.close()


def test_an_old_version_of_tls_is_refused(authority, own):
    context = server_context(Tls(**tls(authority, own)))
    names = {cipher["name"] for cipher in context.get_ciphers()}
    assert context.minimum_version.name == "TLSv1_2"
    assert all(name.startswith(("TLS_", "ECDHE-")) and "CBC" not in name for name in names)


def test_a_key_of_another_certificate_is_said_at_the_start(tmp_path, authority, own, peer):
    with pytest.raises(CannotStart, match="its own, unencrypted key"):
        server_context(Tls(**tls(authority, own, key=peer.key)))
    with pytest.raises(CannotStart, match=r"gone\.crt: No such file"):
        server_context(Tls(**tls(authority, own, certificate=tmp_path / "gone.crt")))


def destination(port, **changes):
    values = {"name": "tps", "ae_title": "STORESCP", "host": "127.0.0.1", "port": port, "tls": True}
    return Destination(**values | changes)


def tls_storescp(folder, authority, certificate):
    return storescp(
        folder,
        "+tls",
        str(certificate.key),
        str(certificate.certificate),
        "+cf",
        str(authority.own.certificate),
    )


def test_a_destination_is_reached_by_tls(tmp_path, authority, own, peer):
    with tls_storescp(tmp_path / "in", authority, peer) as tps:
        outcome = echo(destination(tps.port), "OARLOCK", tls=Tls(**tls(authority, own)))
    assert outcome.sent, outcome.detail


def test_a_destination_of_another_authority_or_host_gets_nothing(tmp_path, authority, own, stranger):
    elsewhere = authority.sign("elsewhere", host="192.0.2.7")
    for certificate, words in ((stranger, "unable to get local issuer"), (elsewhere, "IP address mismatch")):
        with tls_storescp(tmp_path / certificate.key.stem, authority, certificate) as tps:
            outcome = echo(destination(tps.port), "OARLOCK", tls=Tls(**tls(authority, own)))
        assert outcome.kind is OutcomeKind.CONNECTION
        assert words in outcome.detail


def test_a_pinned_destination_may_be_signed_by_anybody_but_must_be_that_one(
    tmp_path, authority, own, stranger
):
    with tls_storescp(tmp_path / "in", authority, stranger) as tps:
        ours = Tls(**tls(authority, own))
        assert echo(destination(tps.port, certificate_sha256=stranger.sha256), "OARLOCK", tls=ours).sent
        wrong = echo(destination(tps.port, certificate_sha256=own.sha256), "OARLOCK", tls=ours)
    assert not wrong.sent
    assert f": its certificate has the SHA-256 {stranger.sha256}, not {own.sha256}; check" in wrong.detail


def test_a_plain_server_where_tls_is_wanted_is_not_spoken_to(tmp_path, authority, own):
    with storescp(tmp_path / "in") as tps:
        outcome = echo(destination(tps.port), "OARLOCK", tls=Tls(**tls(authority, own)))
    assert not outcome.sent
    assert "TLS was not agreed upon" in outcome.detail
    assert "that node's port for TLS" in outcome.detail
    assert "firewall" not in outcome.detail


def test_tls_is_never_left_out_silently():
    assert "[tls] is missing" in echo(destination(free_port()), "OARLOCK").detail
