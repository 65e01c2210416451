"""Storage commitment (PS3.4 annex J): which instances are safe, answered from what is really on disk."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage

from daemon.dimse import is_uid
from daemon.job_queue import JobQueue
from daemon.spool import Spool

STORAGE_COMMITMENT = UID("1.2.840.10008.1.20.1")
WELL_KNOWN_INSTANCE = UID("1.2.840.10008.1.20.1.1")


class FailureReason(IntEnum):
    """Failure Reason (0008,1197), PS3.3 section C.14.1.1."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    REFERENCED_SOP_CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION_UID = 0x0131
    RESOURCE_LIMITATION = 0x0213


@dataclass(frozen=True)
class Reference:
    """SOP class and instance that a peer asks about."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Verdict:
    """What we take responsibility for, and what not."""

    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, FailureReason], ...]

    @property
    def event_type(self) -> int:
        """1: all committed; 2: failures exist (PS3.4 table J.3-1)."""
        return 2 if self.failed else 1


def examine(queue: JobQueue, spool: Spool, references: Iterable[Reference], asked_by: str) -> Verdict:
    """Read every file again and compare it with the digest that was written down when it was acknowledged.

    Not committed is a UID under which whoever asks sent other bytes too, which were refused: it may mean those.

    Parameters
    ----------
    asked_by
        AE title.
    """
    refused = queue.set_aside_from(asked_by)
    committed, failed = [], []
    for reference in references:
        is_doubtful = reference.sop_instance_uid in refused
        reason = FailureReason.PROCESSING_FAILURE if is_doubtful else _problem(queue, spool, reference)
        if reason is None:
            committed.append(reference)
        else:
            failed.append((reference, reason))
    return Verdict(tuple(committed), tuple(failed))


def read_request(information: Dataset) -> tuple[str, list[Reference]]:
    """Transaction UID and references of an N-ACTION request.

    Raises
    ------
    ValueError
        One of them is missing, or what should be a UID is none.
    """
    transaction = str(information.get("TransactionUID", ""))
    references = [
        Reference(str(item.get("ReferencedSOPClassUID", "")), str(item.get("ReferencedSOPInstanceUID", "")))
        for item in information.get("ReferencedSOPSequence", ())
    ]
    if not transaction or not references:
        raise ValueError("a storage commitment request needs a Transaction UID and references")
    for reference in references:
        if not is_uid(reference.sop_class_uid) or not is_uid(reference.sop_instance_uid):
            raise ValueError("a reference of a storage commitment request is no UID")
    return transaction, references


def request(transaction_uid: str, references: Iterable[Reference]) -> Dataset:
    """Action Information of an N-ACTION request (PS3.4 table J.3-1)."""
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    dataset.ReferencedSOPSequence = [_item(reference) for reference in references]
    return dataset


def read_report(information: Dataset) -> tuple[str, frozenset[str], dict[str, int]]:
    """Transaction UID, committed SOP Instance UIDs, and failed ones with their Failure Reason, of a report.

    An instance that a report names in both sequences counts as failed.

    Raises
    ------
    ValueError
        There is no Transaction UID.
    """
    transaction = str(information.get("TransactionUID", ""))
    if not transaction:
        raise ValueError("a storage commitment report needs a Transaction UID")
    failed = {
        str(item.get("ReferencedSOPInstanceUID", "")): int(
            item.get("FailureReason") or FailureReason.PROCESSING_FAILURE
        )
        for item in information.get("FailedSOPSequence") or ()
    }
    committed = {
        str(item.get("ReferencedSOPInstanceUID", ""))
        for item in information.get("ReferencedSOPSequence") or ()
    }
    return transaction, frozenset(committed - failed.keys()), failed


def reason_words(reason: int) -> str:
    """Failure Reason as the standard names it; another one as its number."""
    known = {each.value: each.name.replace("_", " ").lower() for each in FailureReason}
    return f"0x{reason:04X} {known.get(reason, 'not defined by the standard')}"


def report(transaction_uid: str, verdict: Verdict) -> Dataset:
    """Event Information of the N-EVENT-REPORT (PS3.4 table J.3-2)."""
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    if verdict.committed:
        dataset.ReferencedSOPSequence = [_item(reference) for reference in verdict.committed]
    if verdict.failed:
        dataset.FailedSOPSequence = [_failed_item(*failure) for failure in verdict.failed]
    return dataset


def _problem(queue: JobQueue, spool: Spool, reference: Reference) -> FailureReason | None:
    known = queue.find_instances(reference.sop_instance_uid)
    if not known:
        return FailureReason.NO_SUCH_OBJECT_INSTANCE
    if reference.sop_class_uid != CTImageStorage:
        return FailureReason.CLASS_INSTANCE_CONFLICT
    if any(
        spool.digest(instance.job_id, reference.sop_instance_uid) == instance.sha256 for instance in known
    ):
        return None
    return FailureReason.PROCESSING_FAILURE


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _failed_item(reference: Reference, reason: FailureReason) -> Dataset:
    item = _item(reference)
    item.FailureReason = int(reason)
    return item


def as_text(references: Sequence[Reference]) -> str:
    """References as the job table keeps them."""
    return "\n".join(f"{each.sop_class_uid} {each.sop_instance_uid}" for each in references)


def from_text(text: str) -> list[Reference]:
    """References out of the job table."""
    lines = (line.partition(" ") for line in text.split("\n"))
    return [Reference(class_uid, instance_uid) for class_uid, _, instance_uid in lines]
