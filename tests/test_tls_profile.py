"""The BCP 195 profile of DICOM TLS (PS3.15 section B.12), by real handshakes with OpenSSL and DCMTK."""

import shutil
import socket
import ssl
import subprocess
from contextlib import contextmanager

import pytest
import structlog

from daemon.config import Destination, Tls
from daemon.delivery import echo
from daemon.errors import CannotStart
from daemon.tls import server_context
from tests.certificates import RSA_KEY, Authority
from tests.conditions import LIMIT_SECONDS, accepts_tcp, free_port, wait_until
from tests.nodes import receiving_node
from tests.peers import dcmtk_send, storescp

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("echoscu") and shutil.which("openssl")), reason="DCMTK and openssl are needed"
    ),
    # pynetdicom leaves the socket of a failed connection to the garbage collector, which Python remarks upon.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <:pytest.PytestUnraisableExceptionWarning"),
]

EVERYTHING = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
RELEASE_REQUEST = b"\x05\0\0\0\0\4\0\0\0\0"
RECOMMENDED = [  # RFC 9325 section 4.2, by the kind of the node's key
    ("rsa", "ECDHE-RSA-AES128-GCM-SHA256"),
    ("rsa", "ECDHE-RSA-AES256-GCM-SHA384"),
    ("ec", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ("ec", "ECDHE-ECDSA-AES256-GCM-SHA384"),
]
DCMTK_PROFILES = {"non-downgrading": "+py", "BCP 195 of 2015": "+px", "extended": "+pz"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def own(authority):
    return {"ec": authority.sign("oarlock-ec"), "rsa": authority.sign("oarlock-rsa", key=RSA_KEY)}


@pytest.fixture(scope="module")
def peer(authority):
    return authority.sign("scanner", key=RSA_KEY)


@pytest.fixture(scope="module")
def nodes(authority, own, tmp_path_factory):
    """The port of a listener with an EC key and of one with an RSA key; both want a certificate of their peers."""
    folder = tmp_path_factory.mktemp("nodes")
    sections = {kind: {"tls": values(authority, own[kind], only=True)} for kind in own}
    with (
        receiving_node(folder / "ec", **sections["ec"]) as ec,
        receiving_node(folder / "rsa", **sections["rsa"]) as rsa,
    ):
        yield {"ec": ec.listener.tls_port, "rsa": rsa.listener.tls_port}


def values(authority, certificate, **changes):
    return {
        "certificate": certificate.certificate,
        "key": certificate.key,
        "authorities": authority.own.certificate,
        "port": 0,
    } | changes


def agreed(port, authority, peer, *offer):
    """What OpenSSL and the listener agree upon, as (version, suite); None where there is nothing."""
    client = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", authority.own.certificate,
         "-cert", peer.certificate, "-key", peer.key, *offer],
        input="", capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    line = next((line for line in client.stdout.splitlines() if ", Cipher is " in line), "")
    version, _, suite = line.removeprefix("New, ").partition(", Cipher is ")
    return None if suite in {"", "(NONE)"} else (version, suite)


def test_the_newest_version_is_preferred(nodes, authority, peer):
    version, suite = agreed(nodes["ec"], authority, peer)
    assert version == "TLSv1.3"
    assert suite.startswith("TLS_")


@pytest.mark.parametrize(("kind", "suite"), RECOMMENDED)
def test_every_suite_that_the_profile_recommends_is_taken(nodes, authority, peer, kind, suite):
    assert agreed(nodes[kind], authority, peer, "-tls1_2", "-cipher", suite) == ("TLSv1.2", suite)


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"])
def test_the_suites_of_tls_1_3_are_taken(nodes, authority, peer, suite):
    assert agreed(nodes["ec"], authority, peer, "-ciphersuites", suite) == ("TLSv1.3", suite)


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_an_older_version_is_refused_whatever_it_offers(nodes, authority, peer, version):
    assert agreed(nodes["rsa"], authority, peer, version, "-cipher", EVERYTHING) is None


@pytest.mark.parametrize(
    "suites",
    [
        "eNULL:@SECLEVEL=0",
        "aNULL:@SECLEVEL=0",
        "kRSA:@SECLEVEL=0",  # no forward secrecy
        "kDHE:@SECLEVEL=0",
        "ECDHE-RSA-AES128-SHA256:ECDHE-RSA-AES256-SHA:@SECLEVEL=0",  # CBC
        "kPSK:@SECLEVEL=0",
    ],
)
def test_a_weak_suite_is_refused(nodes, authority, peer, suites):
    assert agreed(nodes["rsa"], authority, peer, "-tls1_2", "-cipher", suites) is None


@pytest.mark.parametrize(("curve", "is_taken"), [("P-256", True), ("X25519", True), ("secp224r1", False)])
def test_a_key_exchange_below_256_bits_is_refused(nodes, authority, peer, curve, is_taken):
    suite = "ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0"
    found = agreed(nodes["rsa"], authority, peer, "-tls1_2", "-cipher", suite, "-groups", curve)
    assert (found is not None) is is_taken


def is_let_in(port, authority, certificate):
    """Whether a client that accepts everything itself gets an answer: the A-ABORT to a release out of place."""
    context = ssl.create_default_context(cafile=authority.own.certificate)
    context.set_ciphers(EVERYTHING)
    if certificate:
        context.load_cert_chain(certificate.certificate, certificate.key)
    with socket.create_connection(("127.0.0.1", port), LIMIT_SECONDS) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                secured.sendall(RELEASE_REQUEST)
                return secured.recv(1) == b"\x07"
        except OSError:
            return False


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("sound", ""),
        ("none", "peer did not return a certificate"),
        ("of a stranger", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("RSA of 1024 bits", "EE certificate key too weak"),
        ("signed by SHA-1", "CA signature digest algorithm too weak"),
        ("for servers alone", "unsuitable certificate purpose"),
    ],
)
def test_a_peer_needs_a_sound_certificate_and_the_log_says_what_is_wrong(
    nodes, authority, tmp_path, kind, reason
):
    certificate = {
        "sound": lambda: authority.sign("sound"),
        "none": lambda: None,
        "of a stranger": lambda: Authority(tmp_path / "pki", "somebody").sign("stranger"),
        "expired": lambda: authority.sign("expired", days=-1),
        "RSA of 1024 bits": lambda: authority.sign("weak", key=("-newkey", "rsa:1024")),
        "signed by SHA-1": lambda: authority.sign("sha1", digest="sha1"),
        "for servers alone": lambda: authority.sign("server", usage="serverAuth"),
    }[kind]()
    with structlog.testing.capture_logs() as events:
        assert is_let_in(nodes["ec"], authority, certificate) is (not reason)
        wait_until(lambda: not reason or events, "the log")

    said = [each["reason"] for each in events if each["event"] == "tls_handshake_failed"]
    assert said == ([reason] if reason else [])


@contextmanager
def old_server(certificate, *options):
    """A TLS server that takes what no server should any more."""
    port = free_port()
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", str(port), "-cert", certificate.certificate, "-key",
         certificate.key, *options],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: accepts_tcp(port), "the old server")
        yield port
    finally:
        server.kill()
        server.communicate()


def called(port, tls):
    values = {"name": "tps", "ae_title": "STORESCP", "host": "127.0.0.1", "port": port, "tls": True}
    return echo(Destination(**values), "OARLOCK", tls=tls)


@pytest.mark.parametrize(
    "options",
    [
        ("-tls1_1", "-cipher", EVERYTHING),
        ("-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"),
        ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256:@SECLEVEL=0"),
    ],
)
def test_a_destination_that_knows_only_what_is_weak_gets_nothing(authority, own, peer, options):
    with old_server(peer, *options) as port:
        outcome = called(port, Tls(**values(authority, own["ec"])))
    assert not outcome.sent
    assert "TLS was not agreed upon" in outcome.detail


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"days": -1}, "certificate has expired"),
        ({"key": ("-newkey", "rsa:1024")}, "EE certificate key too weak"),
        ({"digest": "sha1"}, "CA signature digest algorithm too weak"),
        ({"usage": "clientAuth"}, "unsuitable certificate purpose"),
    ],
)
def test_a_destination_without_a_sound_certificate_gets_nothing(authority, own, options, words):
    unsound = authority.sign("unsound", **options)
    with old_server(unsound, "-cipher", EVERYTHING) as port:
        outcome = called(port, Tls(**values(authority, own["ec"])))
    assert not outcome.sent
    assert words in outcome.detail


@pytest.mark.parametrize("profile", DCMTK_PROFILES)
def test_peers_of_the_older_profiles_are_understood_both_ways(nodes, authority, own, peer, profile, tmp_path):
    """The older profiles allow more; what they have in common with ours is enough."""
    options = ("+tls", peer.key, peer.certificate, "+cf", authority.own.certificate, DCMTK_PROFILES[profile])
    asked = dcmtk_send("echoscu", *options, "-aec", "OARLOCK", "127.0.0.1", str(nodes["rsa"]))
    assert asked.returncode == 0, asked.stderr

    with storescp(tmp_path, *map(str, options)) as tps:
        outcome = called(tps.port, Tls(**values(authority, own["rsa"])))
    assert outcome.sent, outcome.detail


def test_a_key_with_a_password_is_refused_and_not_asked_for(authority, own, tmp_path):
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", own["ec"].key, "-aes256", "-passout", "pass:hush", "-out", locked],
        check=True,
        capture_output=True,
    )
    with pytest.raises(CannotStart, match="its own, unencrypted key"):
        server_context(Tls(**values(authority, own["ec"], key=locked)))
