"""Over one TLS connection images come in while a report goes out: both whole, and no end where there is none."""

import shutil
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

from daemon.tls_stream import TlsStream
from tests.certificates import Authority

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is needed")

PIECE = bytes(range(250)) * 12
PIECES = 8_000


@pytest.fixture
def ends(tmp_path):
    """Both ends of a connection."""
    own = Authority(tmp_path).sign("oarlock")
    accepting, calling = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    accepting.load_cert_chain(own.certificate, own.key)
    calling.check_hostname, calling.verify_mode = False, ssl.CERT_NONE
    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(accepting.wrap_socket, ours, server_side=True)
        called = calling.wrap_socket(theirs)
    with accepted.result() as ours, called as theirs:
        for end in (ours, theirs):
            end.settimeout(30)
        yield TlsStream(ours), TlsStream(theirs)


def send(stream):
    for _ in range(PIECES):
        stream.sendall(PIECE)


def receive(stream):
    """Take as much as is sent; False where it ends before or is not what was sent."""
    buffer, taken = memoryview(bytearray(2**16)), 0
    expected = PIECE * (2**16 // len(PIECE) + 2)
    while taken < PIECES * len(PIECE):
        count = stream.recv_into(buffer)
        start = taken % len(PIECE)
        if not count or buffer[:count] != expected[start : start + count]:
            return False
        taken += count
    return True


def test_both_directions_at_once_are_whole(ends):
    with ThreadPoolExecutor(4) as pool:
        received = [pool.submit(receive, end) for end in ends]
        sent = [pool.submit(send, end) for end in ends]

        assert all(each.result(60) for each in received)
        assert all(each.exception(60) is None for each in sent)


def test_a_peer_that_says_nothing_and_one_that_takes_nothing_are_given_up(ends):
    ours, _ = ends
    ours.settimeout(0.05)

    with pytest.raises(TimeoutError):
        ours.recv_into(memoryview(bytearray(100)))
    with pytest.raises(TimeoutError):
        ours.sendall(bytes(2**24))
