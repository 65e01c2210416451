"""What an association request may hold: what no peer can mean is refused before it costs anything."""

import time
from struct import pack

import pytest

from daemon.negotiation import MAX_REQUEST_BYTES, MOST_CONTEXTS, MOST_SYNTAXES, read_proposal
from daemon.pdata import ProtocolViolation
from tests.fuzz import pdus
from tests.fuzz.pdus import item

LITTLE_ENDIAN = b"1.2.840.10008.1.2"
LENGTH = pack(">BxHL", 0x51, 4, 16384)
ROLE = pack(">BxHH", 0x54, 5, 1) + b"1" + bytes(2)


def context(number: int = 1, syntaxes: int = 1) -> bytes:
    inner = bytes((number, 0, 0, 0)) + item(0x30, pdus.CT) + syntaxes * item(0x40, LITTLE_ENDIAN)
    return item(0x20, inner)


def request(contexts: bytes, about: bytes = LENGTH) -> bytes:
    application = item(0x10, b"1.2.840.10008.3.1.1.1")
    body = pack(">H2x16s16s32x", 1, b"OARLOCK".ljust(16), b"CT1".ljust(16)) + application + contexts
    body += item(0x50, about)
    return pdus.pdu(pdus.ASSOCIATE_RQ, body)


def test_as_many_contexts_and_syntaxes_as_there_can_be_are_read():
    contexts = b"".join(context(number, MOST_SYNTAXES) for number in range(1, 2 * MOST_CONTEXTS, 2))
    pdu = request(contexts, LENGTH + MOST_CONTEXTS * ROLE)
    assert len(pdu) < MAX_REQUEST_BYTES

    proposal = read_proposal(pdu)

    assert len(proposal.primitive.presentation_context_definition_list) == MOST_CONTEXTS
    assert proposal.max_pdu_bytes == 16384


@pytest.mark.parametrize(
    "pdu",
    [
        request((MOST_CONTEXTS + 1) * context()),
        request(5000 * item(0x20, bytes(4) + item(0x30, b"1"))),
        request(context(1, MOST_SYNTAXES + 1)),
        request(context(), 7000 * LENGTH),
        request(context(), 6000 * ROLE),
        request(50_000 * item(0x10, b"1") + context()),
    ],
    ids=["contexts", "tiny contexts", "transfer syntaxes", "lengths", "roles", "application contexts"],
)
def test_more_items_than_a_request_can_mean_are_refused_at_once(pdu, monkeypatch):
    """Anybody may send one: pynetdicom would read them for seconds, with the places of all others taken."""
    monkeypatch.setattr("daemon.negotiation.A_ASSOCIATE_RQ.decode", lambda *_: time.sleep(60))
    with pytest.raises(ProtocolViolation, match="cannot be read"):
        read_proposal(pdu)
