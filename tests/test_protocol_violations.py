"""Messages that the protocol does not know: each ends its own association, at once, and nothing else."""

import socket

import pytest

from tests.conditions import LIMIT_SECONDS, wait_until
from tests.fuzz import pdus
from tests.nodes import receiving_node
from tests.senders import Sender


@pytest.fixture
def node(tmp_path):
    """A listener with the patience of production: who is not hung up on stays for minutes."""
    with receiving_node(tmp_path) as running:
        yield running


def last_words(port: int, *messages: bytes) -> bytes:
    """Send messages, stay connected, and return all that comes until the other side hangs up."""
    with socket.create_connection(("127.0.0.1", port), LIMIT_SECONDS) as connection:
        connection.settimeout(LIMIT_SECONDS)
        for message in messages[:-1]:
            connection.sendall(message)
            assert connection.recv(65536)
        connection.sendall(messages[-1])
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


def without(item: bytes) -> bytes:
    """A proposal of one context that lacks one of its items."""
    proposal = pdus.associate_rq()[6:74] + pdus.item(0x10, b"1.2.840.10008.3.1.1.1")
    parts = {
        b"abstract": pdus.item(0x30, pdus.VERIFICATION),
        b"transfer": pdus.item(0x40, pdus.EXPLICIT),
    }
    context = pdus.item(0x20, b"\1\0\0\0" + b"".join(part for name, part in parts.items() if name != item))
    user = pdus.item(0x50, pdus.item(0x51, b"\0\0\x40\0") + pdus.item(0x52, b"1.2.3"))
    return pdus.pdu(pdus.ASSOCIATE_RQ, proposal + context + user)


@pytest.mark.parametrize("item", [b"abstract", b"transfer"])
def test_a_proposal_without_a_syntax_is_hung_up_on_though_its_sender_stays(node, item):
    last_words(node.port, without(item))

    wait_until(node.listener._is_deserted, "the connection to be forgotten")
    with Sender(node.port) as sender:
        assert sender.accepted


@pytest.mark.parametrize(
    ("user", "more"),
    [
        (pdus.item(0x5F, b"of a later edition"), b""),
        (pdus.item(0xFF, b"of a vendor"), b""),
        (pdus.item(0x58, b"\6\0\0\4name\0\0"), b""),
        (pdus.item(0x55, b"VENDOR\0"), b""),
        (b"", pdus.item(0x60, b"of a later edition")),
    ],
    ids=["unknown sub-item", "private sub-item", "unknown identity", "a version with NUL", "unknown item"],
)
def test_what_is_not_recognised_in_a_proposal_is_ignored(node, user, more):
    context = pdus.item(
        0x20, b"\1\0\0\0" + pdus.item(0x30, pdus.VERIFICATION) + pdus.item(0x40, pdus.EXPLICIT)
    )
    told = pdus.item(0x51, b"\0\0\x40\0") + pdus.item(0x52, b"1.2.3") + user
    items = pdus.item(0x10, b"1.2.840.10008.3.1.1.1") + context + more + pdus.item(0x50, told)
    proposal = pdus.pdu(pdus.ASSOCIATE_RQ, pdus.associate_rq()[6:74] + items)

    with socket.create_connection(("127.0.0.1", node.port), LIMIT_SECONDS) as connection:
        connection.sendall(proposal)
        assert connection.recv(1) == bytes([pdus.ASSOCIATE_AC])


def test_titles_filled_up_with_nul_are_those_filled_up_with_blanks(node):
    proposal = pdus.associate_rq()
    fixed = bytearray(proposal)
    fixed[10:42] = fixed[10:42].replace(b" ", b"\0")
    assert fixed != proposal

    with socket.create_connection(("127.0.0.1", node.port), LIMIT_SECONDS) as connection:
        connection.sendall(fixed)
        assert connection.recv(1) == bytes([pdus.ASSOCIATE_AC])


@pytest.mark.parametrize(
    "fields",
    [
        [(0x0002, pdus.VERIFICATION), (0x0100, pdus.short(0x0030))],
        [(0x0002, pdus.VERIFICATION), (0x0800, pdus.short(0x0101))],
        [
            (0x0002, b"1.2\\1.3"),
            (0x0100, pdus.short(0x0030)),
            (0x0110, b"\1\0"),
            (0x0800, pdus.short(0x0101)),
        ],
    ],
    ids=["no data set type", "no command field", "two classes"],
)
def test_a_command_without_its_fields_is_answered_by_an_abort(node, fields):
    heard = last_words(node.port, pdus.associate_rq(), pdus.message(1, fields))

    assert heard[0] == pdus.ABORT
    wait_until(lambda: node.listener.open_associations == 0, "the association to be let go of")
    with Sender(node.port) as sender:
        assert sender.accepted
