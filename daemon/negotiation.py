"""Association negotiation (PS3.8 section 9.3.2 to 9.3.4) by pynetdicom's rules: request, acceptance, rejection."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from struct import pack, unpack_from
from typing import Any

from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from daemon.commitment import STORAGE_COMMITMENT
from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from daemon.pdata import AbortReason, PduType, ProtocolViolation

MAX_REQUEST_BYTES = 2**20
"""128 presentation contexts with 30 transfer syntaxes each are a quarter of it."""

MOST_CONTEXTS = 128
"""Their IDs are the odd numbers of a byte (PS3.8 section 9.3.2.2)."""
MOST_SYNTAXES = 64
"""Transfer syntaxes of one context: more than there are that anybody sends CT in."""
MOST_ROLES = 2 * MOST_CONTEXTS
"""What is more is not read: each item costs a tenth of a millisecond, and anybody may send a request."""

_TITLES, _ITEMS_AT, _SYNTAXES_AT = slice(10, 42), 74, 8
_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x50
_MAXIMUM_LENGTH, _ROLE_SELECTION = 0x51, 0x54

_About = (
    MaximumLengthNotification | ImplementationClassUIDNotification | ImplementationVersionNameNotification
)


@dataclass(frozen=True)
class Proposal:
    """An A-ASSOCIATE-RQ that could be read; `primitive` is pynetdicom's form of it."""

    calling: str
    called: str
    application_context: str
    max_pdu_bytes: int
    speaks_version_1: bool
    abstract_syntaxes: frozenset[UID | None]
    primitive: Any


@dataclass(frozen=True)
class AcceptedContext:
    """What may be said on a presentation context, and how it is encoded."""

    abstract_syntax: UID
    transfer_syntax: UID


@dataclass(frozen=True)
class Acceptance:
    """An A-ASSOCIATE-AC, encoded, and what it agrees to."""

    encoded: bytes
    contexts: Mapping[int, AcceptedContext]
    refused_contexts: int


def supported(contexts: Mapping[UID, Sequence[UID]]) -> list[PresentationContext]:
    """Presentation contexts for abstract syntaxes and their transfer syntaxes, in order of preference.

    For storage commitment a peer asks as SCU; a destination that reports what it committed comes as SCP.
    """
    built = [build_context(abstract, list(syntaxes)) for abstract, syntaxes in contexts.items()]
    for context in built:
        if context.abstract_syntax == STORAGE_COMMITMENT:
            context.scu_role = context.scp_role = True
    return built


def read_proposal(pdu: bytes) -> Proposal:
    """Read an A-ASSOCIATE-RQ; raises ProtocolViolation."""
    try:
        request = A_ASSOCIATE_RQ()
        request.decode(_with_what_is_heeded(pdu))
        primitive = request.to_primitive()
        return Proposal(
            calling=str(primitive.calling_ae_title).strip(),
            called=str(primitive.called_ae_title).strip(),
            application_context=str(primitive.application_context_name),
            max_pdu_bytes=_peer_limit(primitive),
            speaks_version_1=bool(request.protocol_version & 1),
            abstract_syntaxes=frozenset(
                each.abstract_syntax for each in primitive.presentation_context_definition_list
            ),
            primitive=primitive,
        )
    except Exception as error:
        raise ProtocolViolation(
            AbortReason.INVALID_PARAMETER_VALUE, "an A-ASSOCIATE-RQ that cannot be read"
        ) from error


def _with_what_is_heeded(pdu: bytes) -> bytes:
    """The request without items that change nothing here, and with blanks where AE titles are filled up with NUL.

    What is not recognised is to be ignored (PS3.8 sections 9.3.1 and D.2), and a vendor's mistake in what nobody
    reads must not cost its association.

    Raises
    ------
    ValueError
        More items than a request can mean.
    """
    head = pdu[: _TITLES.start], pdu[_TITLES].replace(b"\0", b" "), pdu[_TITLES.stop : _ITEMS_AT]
    kept: list[bytes] = []
    about: list[bytes] | None = None
    for kind, item in _items(pdu[_ITEMS_AT:]):
        if kind in {_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT}:
            kept.append(item)
        elif kind == _USER_INFORMATION:
            heeded = [each for sub, each in _items(item[4:]) if sub in {_MAXIMUM_LENGTH, _ROLE_SELECTION}]
            about = [*(about or ()), *heeded]
        syntaxes = _items(item[_SYNTAXES_AT:]) if kind == _PRESENTATION_CONTEXT else ()
        if (
            len(kept) > MOST_CONTEXTS + 1
            or len(about or ()) > MOST_ROLES
            or sum(1 for _ in islice(syntaxes, MOST_SYNTAXES + 2)) > MOST_SYNTAXES + 1
        ):
            raise ValueError("more items than a request can mean")
    if about is not None:
        kept += [pack(">BxH", _USER_INFORMATION, sum(map(len, about))), *about]
    return b"".join((*head, *kept))


def _items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each item (PS3.8 section 9.3.2); raises ValueError where one reaches past the end."""
    at = 0
    while at < len(encoded):
        kind, length = unpack_from(">BxH", encoded, at)
        end = at + 4 + length
        if end > len(encoded):
            raise ValueError("an item reaches past the end")
        yield kind, encoded[at:end]
        at = end


def accept(proposal: Proposal, ours: list[PresentationContext], max_pdu_bytes: int) -> Acceptance:
    """Accept a proposal, each of its presentation contexts by itself; raises ProtocolViolation."""
    asked = proposal.primitive
    try:
        roles = {
            UID(item.sop_class_uid or ""): (item.scu_role, item.scp_role)
            for item in asked.user_information
            if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
        }
        results, role_items = negotiate_as_acceptor(asked.presentation_context_definition_list, ours, roles)
    except Exception as error:
        raise ProtocolViolation(
            AbortReason.INVALID_PARAMETER_VALUE, "presentation contexts that cannot be read"
        ) from error
    answer = A_ASSOCIATE()
    answer.application_context_name = asked.application_context_name
    answer.calling_ae_title = asked.calling_ae_title
    answer.called_ae_title = asked.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = results
    answer.user_information = [*_about_us(max_pdu_bytes), *role_items]
    accepted = {
        each.context_id: AcceptedContext(each.abstract_syntax, each.transfer_syntax[0])
        for each in results
        if each.result == 0 and each.context_id is not None and each.abstract_syntax is not None
    }
    return Acceptance(A_ASSOCIATE_AC(answer).encode(), accepted, len(results) - len(accepted))


def reject(rejection: tuple[int, int, int]) -> bytes:
    """Encode an A-ASSOCIATE-RJ: result, source and reason (PS3.8 table 9-21)."""
    return pack(">BxLxBBB", PduType.ASSOCIATE_RJ, 4, *rejection)


def _about_us(max_pdu_bytes: int) -> list[_About]:
    longest = MaximumLengthNotification()
    longest.maximum_length_received = max_pdu_bytes
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [longest, implementation, version]


def _peer_limit(primitive: Any) -> int:  # noqa: ANN401 -- pynetdicom has no types
    limits = [
        item.maximum_length_received
        for item in primitive.user_information
        if isinstance(item, MaximumLengthNotification)
    ]
    if limits and 0 < limits[0] <= 6:
        raise ValueError(f"PDUs of at most {limits[0]} bytes hold nothing")
    return int(limits[0]) if limits else 0
