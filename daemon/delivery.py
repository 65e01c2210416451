"""The C-STORE SCU: sends one object to one destination and believes only the status that comes back."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config, build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # pynetdicom makes its names at import

from daemon.config import Destination, Tls
from daemon.destination_profile import PROFILES
from daemon.outgoing_association import (
    SLOWEST_BYTES_PER_SECOND,
    DeliveryOutcome,
    NotDone,
    OutcomeKind,
    Timeouts,
    associated,
    judged,
    no_context,
)

LONGEST_EXPLICIT_VALUE = 0xFFFE
"""Bytes of a value with a two-byte length under Explicit VR (PS3.5 section 7.1.2), even as values are."""

ECHO_TIMEOUTS = Timeouts(response=15, stall=15)
"""Somebody waits for the answer to a C-ECHO, and nothing has to be imported for it."""


def send(
    paths: Sequence[Path],
    destination: Destination,
    calling_ae_title: str,
    timeouts: Timeouts | None = None,
    tls: Tls | None = None,
    on_stored: Callable[[Path, DeliveryOutcome], None] = lambda _path, _outcome: None,
) -> DeliveryOutcome:
    """Send Part-10 files (little endian, uncompressed) by C-STORE over one association, in their order.

    The bytes go out as they stand in the file.
    Only a destination that refuses a file's transfer syntax gets the same values in the other VR encoding.
    The first file that is not stored ends it, and the outcome is that file's; where all are stored, it is that of
    the first about which the destination had something to say.

    Parameters
    ----------
    on_stored
        Called with each file that the destination has confirmed, and in what words, before the next one is sent.

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
    told: DeliveryOutcome | None = None
    try:
        with associated(destination, calling_ae_title, contexts, timeouts, tls) as association:
            for path, sop_class in sop_classes.items():
                outcome = _send_file(association, path, sop_class, destination, timeouts)
                if outcome.detail and len(paths) > 1:
                    outcome = _about(outcome, sop_class)
                if not outcome.sent:
                    return outcome
                on_stored(path, outcome)
                told = told or (outcome if outcome.detail else None)
    except NotDone as reason:
        return reason.outcome
    return told or outcome


def _send_file(
    association: Association, path: Path, sop_class: UID, destination: Destination, timeouts: Timeouts
) -> DeliveryOutcome:
    accepted = {
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == sop_class
    }
    if not accepted:
        return no_context(destination, "this node")
    written_in = UID(read_file_meta_info(path).TransferSyntaxUID)
    payload = path if written_in in accepted else _for_other_encoding(path, accepted)
    # The status is waited for from the moment that the object begins to go out.
    transfer = path.stat().st_size / SLOWEST_BYTES_PER_SECOND
    return _store(association, payload, destination, replace(timeouts, response=timeouts.response + transfer))


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
        with associated(destination, calling_ae_title, contexts, timeouts, tls) as association:
            return judged(association.send_c_echo, destination, timeouts)
    except NotDone as reason:
        return reason.outcome


def _for_other_encoding(path: Path, accepted: set[UID]) -> Dataset:
    """Return the file's data set for pynetdicom to encode with or without explicit VRs.

    A value that is too long for a two-byte length would change its VR to UN under Explicit VR
    (PS3.5 section 6.2.2 note), which planning systems do not read, so such a file is not converted.
    """
    dataset = dcmread(path)
    if ExplicitVRLittleEndian in accepted and (longest := _longest_contour(dataset)) > LONGEST_EXPLICIT_VALUE:
        raise NotDone(
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
    association.dimse_timeout = association.network_timeout = timeouts.response
    _config.STORE_SEND_CHUNKED_DATASET = True  # else pynetdicom decodes the file and encodes it again
    return judged(lambda: association.send_c_store(payload), destination, timeouts)
