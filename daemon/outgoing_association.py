"""An association that we open: what came of it, in words that say what to do, and how long each step may take."""

import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from ssl import SSLContext

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from daemon.config import Destination, Peer, Tls
from daemon.delivery_words import association_advice, is_stored, status_words
from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from daemon.errors import CannotStart
from daemon.tls import client_context


class OutcomeKind(StrEnum):
    """How far a try came; every kind but SENT is somebody else's cause and a different thing to do."""

    SENT = "sent"
    """The destination said that it has the object (or answered the C-ECHO)."""
    CONNECTION = "connection"
    """No TCP connection."""
    ASSOCIATION = "association"
    """The destination rejected the association, aborted it or did not answer the request."""
    CONTEXT = "context"
    """The destination does not take this SOP class in a transfer syntax that can hold the object."""
    STATUS = "status"
    """The destination answered with a failure status."""
    UNKNOWN = "unknown"
    """No status came back: the destination may have the object or not, so it gets the same one again."""


@dataclass(frozen=True)
class DeliveryOutcome:
    """What one try came to; `detail` says what happened and what to do, `status` is the DIMSE status."""

    kind: OutcomeKind
    status: int | None = None
    detail: str = ""

    @property
    def sent(self) -> bool:
        """Whether the destination confirmed."""
        return self.kind is OutcomeKind.SENT


@dataclass(frozen=True)
class Timeouts:
    """How long each step may take, in seconds, before a try is given up."""

    connection: float = 5
    """For the TCP connection: a dead host costs this."""
    association: float = 30
    """For the answer to an association or release request."""
    response: float = 300
    """From the end of the request to its status: some archives import before they answer."""
    stall: float = 60
    """For one read or write on the connection, when the peer stops reading or a cable is pulled."""
    report: float = 5
    """For the N-EVENT-REPORT on the association of a commitment request; later it comes on one of the peer's."""


SLOWEST_BYTES_PER_SECOND = 125_000
"""Of a network over which an object is sent at all: 1 Mbit/s."""


class NotDone(Exception):  # noqa: N818 -- says what holds
    """A try ended before its request; carries the outcome and is never shown."""

    def __init__(self, outcome: DeliveryOutcome) -> None:
        self.outcome = outcome
        super().__init__(outcome.detail)


@dataclass(frozen=True)
class CalledPeer:
    """A peer as somebody to call; its certificate is any of those that it may call with."""

    ae_title: str
    host: str
    port: int
    tls: bool
    pins: tuple[str, ...]


Node = Destination | CalledPeer


def peer_node(peer: Peer, host: str) -> CalledPeer:
    """A peer at one of its addresses, on the port that the configuration names."""
    return CalledPeer(peer.ae_title, host, peer.port or 0, peer.tls, peer.certificates_sha256)


@contextmanager
def associated(
    destination: Node,
    calling: str,
    contexts: list[PresentationContext],
    timeouts: Timeouts,
    tls: Tls | None,
    handlers: Sequence[evt.EventHandlerType] = (),
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Association]:
    """Yield an established association and release it.

    Raises
    ------
    NotDone
        There is none, for the reason in its outcome.
    """
    connected: list[socket.socket] = []
    refusals: list[str] = []

    def on_connected(event: evt.Event) -> None:
        if (wire := event.assoc.dul.socket) is not None and wire.socket is not None:
            connected.append(wire.socket)
            _never_block_for_ever(wire.socket, timeouts.stall)

    ae = AE(ae_title=calling)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = timeouts.connection
    ae.acse_timeout = timeouts.association
    ae.dimse_timeout = ae.network_timeout = timeouts.response
    began = time.monotonic()
    try:
        association = ae.associate(
            destination.host,
            destination.port,
            contexts=contexts,
            ae_title=destination.ae_title,
            ext_neg=list(roles),
            tls_args=_tls_arguments(destination, tls, refusals.append),
            evt_handlers=[(evt.EVT_CONN_OPEN, on_connected), *handlers],
        )
    except CannotStart as error:
        raise NotDone(_no_connection(destination, str(error))) from error
    except OSError as error:  # the name does not resolve, or this machine has no socket left
        raise NotDone(_no_connection(destination, str(error))) from error
    if not association.is_established:
        if connected:
            raise NotDone(_no_association(association, destination, timeouts))
        if refusals:
            raise NotDone(_no_tls(destination, refusals[0]))
        silent = time.monotonic() - began >= timeouts.connection
        why = f"no answer within {timeouts.connection:g} s" if silent else "refused or unreachable"
        raise NotDone(_no_connection(destination, why))
    try:
        yield association
    finally:
        association.release()
        for wire in connected:
            wire.close()  # pynetdicom does not where garbage from the peer has ended its network thread


def _tls_arguments(
    destination: Node, tls: Tls | None, failed: Callable[[str], None]
) -> tuple[SSLContext, str] | None:
    """Return what pynetdicom wants; never nothing where TLS was asked for."""
    if not destination.tls:
        return None
    if tls is None:
        raise CannotStart("TLS is wanted for it, but [tls] is missing")
    return client_context(tls, destination.pins, failed), destination.host


def _never_block_for_ever(connection: socket.socket, seconds: float) -> None:
    """Bound every read and write: pynetdicom's own timeouts do not end one that blocks in the kernel."""
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _no_connection(destination: Node, why: str) -> DeliveryOutcome:
    advice = "that the node runs there, its host and port in the configuration, and the firewall"
    return _unreached("no connection to", destination, why, advice)


def _no_tls(destination: Node, why: str) -> DeliveryOutcome:
    advice = "that the port is that node's port for TLS, and certificate, authority and pin on both sides"
    return _unreached("TLS was not agreed upon with", destination, why, advice)


def _unreached(what: str, destination: Node, why: str, advice: str) -> DeliveryOutcome:
    detail = f"{what} {destination.host}:{destination.port}: {why}; check {advice}"
    return DeliveryOutcome(OutcomeKind.CONNECTION, detail=detail)


def _no_association(association: Association, destination: Node, timeouts: Timeouts) -> DeliveryOutcome:
    """Tell rejection, refusal of every context, abort and silence apart (PS3.8 section 7.1.1)."""
    answer = association.acceptor.primitive
    calling, called = association.requestor.ae_title, destination.ae_title
    if association.is_rejected and answer is not None:
        advice = association_advice(answer.result_source or 0, answer.diagnostic or 0, calling, called)
        detail = f"association rejected: {answer.reason_str} ({answer.result_str}); {advice}"
    elif answer is not None and answer.result == 0:
        return no_context(destination, calling)
    else:
        detail = (
            f"no association: {called} aborted the request or did not answer it within "
            f"{timeouts.association:g} s; check that a DICOM node with that AE title listens on the port"
        )
    return DeliveryOutcome(OutcomeKind.ASSOCIATION, detail=detail)


def no_context(destination: Node, calling: str) -> DeliveryOutcome:
    """The destination takes the SOP class in no transfer syntax that was offered."""
    return DeliveryOutcome(
        OutcomeKind.CONTEXT,
        detail=f"{destination.ae_title} accepts no presentation context for this SOP class; "
        f"allow {calling} to store it there, in Implicit or Explicit VR Little Endian",
    )


def judged(
    request: Callable[[], Dataset],
    destination: Node,
    timeouts: Timeouts,
    is_good: Callable[[int], bool] = is_stored,
) -> DeliveryOutcome:
    """Make a DIMSE request and turn its answer, or the lack of one, into an outcome."""
    began = time.monotonic()
    try:
        answer = request()
    except RuntimeError:  # pynetdicom: "the association must be established"
        detail = f"{destination.ae_title} ended the association before the request; see that node's log"
        return DeliveryOutcome(OutcomeKind.ASSOCIATION, detail=detail)
    except ValueError:  # pynetdicom: no accepted context fits
        return no_context(destination, "this node")
    status = answer.get("Status")
    if status is None:
        waited = time.monotonic() - began
        silent = waited >= timeouts.response
        what = f"gave no status within {waited:.0f} s" if silent else "broke off before it gave a status"
        detail = (
            f"{destination.ae_title} {what}; it may have the object or not, so it gets the same one again"
        )
        return DeliveryOutcome(OutcomeKind.UNKNOWN, detail=detail)
    kind = OutcomeKind.SENT if is_good(status) else OutcomeKind.STATUS
    return DeliveryOutcome(kind, status, status_words(status, answer.get("ErrorComment") or ""))
