"""The C-STORE SCU: sends one object to one destination and believes only the status that comes back."""

import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from ssl import SSLContext

from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # pynetdicom makes its names at import

from daemon.config import Destination, Tls
from daemon.delivery_words import association_advice, is_stored, status_words
from daemon.destination_profile import PROFILES
from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from daemon.errors import CannotStart
from daemon.tls import client_context

LONGEST_EXPLICIT_VALUE = 0xFFFE
"""Bytes of a value with a two-byte length under Explicit VR (PS3.5 section 7.1.2), even as values are."""


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
    """From the request to its status: some archives import before they answer."""
    stall: float = 60
    """For one read or write on the connection, when the peer stops reading or a cable is pulled."""


ECHO_TIMEOUTS = Timeouts(response=15, stall=15)
"""Somebody waits for the answer to a C-ECHO, and nothing has to be imported for it."""


class _Unsendable(Exception):  # noqa: N818 -- carries an outcome, is never shown
    def __init__(self, outcome: DeliveryOutcome) -> None:
        self.outcome = outcome
        super().__init__(outcome.detail)


def send(
    paths: Sequence[Path],
    destination: Destination,
    calling_ae_title: str,
    timeouts: Timeouts | None = None,
    tls: Tls | None = None,
    on_stored: Callable[[Path], None] = lambda _: None,
) -> DeliveryOutcome:
    """Send Part-10 files (little endian, uncompressed) by C-STORE over one association, in their order.

    The bytes go out as they stand in the file.
    Only a destination that refuses a file's transfer syntax gets the same values in the other VR encoding.
    The first file that is not stored ends it, and the outcome is that file's.

    Parameters
    ----------
    on_stored
        Called with each file that the destination has confirmed, before the next one is sent.

    Raises
    ------
    OSError, InvalidDicomError
        A file cannot be read; whatever the destination does is returned as an outcome.
    """
    if not paths:
        return DeliveryOutcome(OutcomeKind.SENT, detail="the destination has confirmed everything before")
    timeouts = timeouts or Timeouts()
    sop_classes = {path: UID(read_file_meta_info(path).MediaStorageSOPClassUID) for path in paths}
    contexts = [
        build_context(sop_class, syntax)
        for sop_class in dict.fromkeys(sop_classes.values())
        for syntax in PROFILES[destination.profile].transfer_syntaxes
    ]
    try:
        with _association(destination, calling_ae_title, contexts, timeouts, tls) as association:
            for path, sop_class in sop_classes.items():
                outcome = _send_file(association, path, sop_class, destination, timeouts)
                if not outcome.sent:
                    return _about(outcome, sop_class) if len(paths) > 1 else outcome
                on_stored(path)
    except _Unsendable as reason:
        return reason.outcome
    return outcome


def _send_file(
    association: Association, path: Path, sop_class: UID, destination: Destination, timeouts: Timeouts
) -> DeliveryOutcome:
    accepted = {
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == sop_class
    }
    if not accepted:
        return _no_context(destination, "this node")
    written_in = UID(read_file_meta_info(path).TransferSyntaxUID)
    payload = path if written_in in accepted else _for_other_encoding(path, accepted)
    return _store(association, payload, destination, timeouts)


def _about(outcome: DeliveryOutcome, sop_class: UID) -> DeliveryOutcome:
    return replace(outcome, detail=f"{sop_class.name}: {outcome.detail}")


def echo(
    destination: Destination,
    calling_ae_title: str,
    timeouts: Timeouts | None = None,
    tls: Tls | None = None,
) -> DeliveryOutcome:
    """Send a C-ECHO (PS3.4 annex A), the question whether a destination is there and knows us."""
    timeouts = timeouts or ECHO_TIMEOUTS
    contexts = [build_context(Verification, [ImplicitVRLittleEndian, ExplicitVRLittleEndian])]
    try:
        with _association(destination, calling_ae_title, contexts, timeouts, tls) as association:
            return _judge(association.send_c_echo, destination, timeouts)
    except _Unsendable as reason:
        return reason.outcome


@contextmanager
def _association(
    destination: Destination,
    calling: str,
    contexts: list[PresentationContext],
    timeouts: Timeouts,
    tls: Tls | None,
) -> Iterator[Association]:
    """Yield an established association and release it; raise `_Unsendable` with the true reason if none."""
    connected: list[bool] = []
    refusals: list[str] = []

    def on_connected(event: evt.Event) -> None:
        connected.append(True)
        if (wire := event.assoc.dul.socket) is not None and wire.socket is not None:
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
            tls_args=_tls_arguments(destination, tls, refusals.append),
            evt_handlers=[(evt.EVT_CONN_OPEN, on_connected)],
        )
    except CannotStart as error:
        raise _Unsendable(_no_connection(destination, str(error))) from error
    except OSError as error:  # the name does not resolve, or this machine has no socket left
        raise _Unsendable(_no_connection(destination, str(error))) from error
    if not association.is_established:
        if connected:
            raise _Unsendable(_no_association(association, destination, timeouts))
        silent = time.monotonic() - began >= timeouts.connection
        why = f"no answer within {timeouts.connection:g} s" if silent else "refused or unreachable"
        if refusals:
            why = f"TLS was not agreed upon: {refusals[0]}"
        raise _Unsendable(_no_connection(destination, why))
    try:
        yield association
    finally:
        association.release()


def _tls_arguments(
    destination: Destination, tls: Tls | None, failed: Callable[[str], None]
) -> tuple[SSLContext, str] | None:
    """Return what pynetdicom wants; never nothing where TLS was asked for."""
    if not destination.tls:
        return None
    if tls is None:
        raise CannotStart("TLS is wanted for it, but [tls] is missing")
    return client_context(tls, destination, failed), destination.host


def _never_block_for_ever(connection: socket.socket, seconds: float) -> None:
    """Bound every read and write: pynetdicom's own timeouts do not end one that blocks in the kernel."""
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _no_connection(destination: Destination, why: str) -> DeliveryOutcome:
    address = f"{destination.host}:{destination.port}"
    return DeliveryOutcome(
        OutcomeKind.CONNECTION,
        detail=f"no connection to {address}: {why}; check that the node runs there, "
        f"its host and port in [[destinations]], and the firewall",
    )


def _no_association(
    association: Association, destination: Destination, timeouts: Timeouts
) -> DeliveryOutcome:
    """Tell rejection, refusal of every context, abort and silence apart (PS3.8 section 7.1.1)."""
    answer = association.acceptor.primitive
    calling, called = association.requestor.ae_title, destination.ae_title
    if association.is_rejected and answer is not None:
        advice = association_advice(answer.result_source or 0, answer.diagnostic or 0, calling, called)
        detail = f"association rejected: {answer.reason_str} ({answer.result_str}); {advice}"
    elif answer is not None and answer.result == 0:
        return _no_context(destination, calling)
    else:
        detail = (
            f"no association: {called} aborted the request or did not answer it within "
            f"{timeouts.association:g} s; check that a DICOM node with that AE title listens on the port"
        )
    return DeliveryOutcome(OutcomeKind.ASSOCIATION, detail=detail)


def _no_context(destination: Destination, calling: str) -> DeliveryOutcome:
    return DeliveryOutcome(
        OutcomeKind.CONTEXT,
        detail=f"{destination.ae_title} accepts no presentation context for this SOP class; "
        f"allow {calling} to store it there, in Implicit or Explicit VR Little Endian",
    )


def _for_other_encoding(path: Path, accepted: set[UID]) -> Dataset:
    """Return the file's data set for pynetdicom to encode with or without explicit VRs.

    A value that is too long for a two-byte length would change its VR to UN under Explicit VR
    (PS3.5 section 6.2.2 note), which planning systems do not read, so such a file is not converted.
    """
    dataset = dcmread(path)
    if ExplicitVRLittleEndian in accepted and (longest := _longest_contour(dataset)) > LONGEST_EXPLICIT_VALUE:
        raise _Unsendable(
            DeliveryOutcome(
                OutcomeKind.CONTEXT,
                detail=f"a contour has {longest} bytes of points, more than Explicit VR can hold; "
                f"let the destination accept Implicit VR Little Endian for RT Structure Set Storage",
            )
        )
    return dataset


def _longest_contour(dataset: Dataset) -> int:
    """Return the bytes of the longest Contour Data, the only short-length value that can grow so far."""
    values = (
        contour.get_item("ContourData").value  # as read, before it is split into numbers
        for roi in dataset.get("ROIContourSequence", ())
        for contour in roi.get("ContourSequence", ())
        if "ContourData" in contour
    )
    return max((len(value) for value in values), default=0)


def _store(
    association: Association, payload: Path | Dataset, destination: Destination, timeouts: Timeouts
) -> DeliveryOutcome:
    """Send the object and read the status; `payload` is a path for the file's bytes as they are."""
    _config.STORE_SEND_CHUNKED_DATASET = True  # else pynetdicom decodes the file and encodes it again
    return _judge(lambda: association.send_c_store(payload), destination, timeouts)


def _judge(request: Callable[[], Dataset], destination: Destination, timeouts: Timeouts) -> DeliveryOutcome:
    """Make a DIMSE request and turn its answer, or the lack of one, into an outcome."""
    began = time.monotonic()
    try:
        answer = request()
    except RuntimeError:  # pynetdicom: "the association must be established"
        detail = f"{destination.ae_title} ended the association before the request; see that node's log"
        return DeliveryOutcome(OutcomeKind.ASSOCIATION, detail=detail)
    except ValueError:  # pynetdicom: no accepted context fits
        return _no_context(destination, "this node")
    status = answer.get("Status")
    if status is None:
        waited = time.monotonic() - began
        silent = waited >= timeouts.response
        what = f"gave no status within {waited:.0f} s" if silent else "broke off before it gave a status"
        detail = (
            f"{destination.ae_title} {what}; it may have the object or not, so it gets the same one again"
        )
        return DeliveryOutcome(OutcomeKind.UNKNOWN, detail=detail)
    kind = OutcomeKind.SENT if is_stored(status) else OutcomeKind.STATUS
    return DeliveryOutcome(kind, status, status_words(status, answer.get("ErrorComment") or ""))
