"""May this instance be stored, and in which job: every C-STORE request is answered here, off the network."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock
from typing import NoReturn

import structlog
from pydicom.uid import CTImageStorage

from daemon.completeness import Completeness
from daemon.dimse import StorageStatus, is_uid
from daemon.errors import InstanceConflict, StorageFull
from daemon.instance_header import HeaderUnreadable, InstanceHeader, read_header
from daemon.job_queue import IncomingInstance, JobQueue
from daemon.part10 import part10_head
from daemon.spool import Spool
from daemon.spool_files import Arrival

log = structlog.get_logger()

MAX_IMAGE_BYTES = 128 * 2**20
"""More than any CT slice: 2,048 × 2,048 pixels take 8 MB."""

BEGINNING_BYTES = 2**16
"""So much of a data set is kept in memory, as most headers end within it."""

MAX_COMMENT = 64
"""Error Comment (0000,0902) is an LO (PS3.7 table E.1-1)."""

_JOB_CHANGES = 5
"""A job may stop receiving between its choice and the count of the image; not again and again."""


@dataclass(frozen=True, kw_only=True)
class StoreRequest:
    """A C-STORE request without its data set."""

    association_id: int
    calling: str
    called: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class StoreAnswer:
    """A C-STORE response; the comment says why, in at most 64 characters, where it is no success."""

    status: StorageStatus
    comment: str = ""


class Refusal(Exception):  # noqa: N818 -- said as a sentence where it is raised
    """The answer to a request that is not stored."""

    def __init__(self, status: StorageStatus, comment: str) -> None:
        self.answer = StoreAnswer(status, comment[:MAX_COMMENT])
        super().__init__(comment)


class Reception:
    """Stores what may be stored; a Success is given only after bytes and row are safe on disk.

    One Reception serves all associations: its methods may be called from many threads.
    A data set goes to disk as it arrives, so that an association takes no more memory than a chunk of it.

    Parameters
    ----------
    max_image_bytes
        A longer data set is refused.
    """

    def __init__(
        self,
        queue: JobQueue,
        spool: Spool,
        completeness: Completeness,
        max_image_bytes: int = MAX_IMAGE_BYTES,
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._completeness = completeness
        self._max_image_bytes = max_image_bytes
        # The same image may come over two associations at once: its look-up and its row belong together.
        self._turns = tuple(Lock() for _ in range(64))

    def has_room(self) -> bool:
        """Whether the disk has room for more than what is already being received."""
        return self._spool.has_room()

    def store(self, request: StoreRequest, dataset: Iterable[bytes | memoryview]) -> StoreAnswer:
        """Take a data set, without File Meta Information, and answer; raises only what its chunks raise."""
        arriving = _Arriving(self._spool, request, self._max_image_bytes)
        try:
            for chunk in dataset:
                arriving.take(chunk)
            arriving.end()
            return self._answer(request, arriving)
        finally:
            arriving.discard()

    def _answer(self, request: StoreRequest, arriving: "_Arriving") -> StoreAnswer:
        told: dict[str, object] = {}
        try:
            header = arriving.header()
            _refuse_contradictions(request, header)
            return self._store(request, _incoming(request, header, arriving), arriving.file)
        except HeaderUnreadable as error:
            answer = Refusal(StorageStatus.CANNOT_UNDERSTAND, str(error)).answer
        except Refusal as refusal:
            answer = refusal.answer
        except StorageFull as error:
            answer = StoreAnswer(StorageStatus.OUT_OF_RESOURCES, "storage is not available; send again later")
            told["cause"] = str(error)
        except Exception as error:  # noqa: BLE001 -- our fault, so the sender must keep its image
            answer = StoreAnswer(StorageStatus.OUT_OF_RESOURCES, "internal error; see the log of this node")
            told["exc_info"] = error
        log.warning(
            "instance_refused",
            association=request.association_id,
            calling=request.calling,
            instance=request.sop_instance_uid,
            byte_count=arriving.byte_count,
            status=f"0x{answer.status:04X}",
            reason=answer.comment,
            **told,
        )
        return answer

    def _store(self, request: StoreRequest, incoming: IncomingInstance, file: Arrival) -> StoreAnswer:
        with self._turns[hash(incoming.sop_instance_uid) % len(self._turns)]:
            place = self._queue.place(
                incoming.series_instance_uid,
                incoming.sop_instance_uid,
                incoming.calling_ae_title,
                incoming.called_ae_title,
            )
            known = place.known
            if known is None:
                job_id = place.receiving or self._queue.job_for_instance(incoming)
                job_id = self._store_new(request, incoming, job_id, file)
            elif known.sha256 == incoming.sha256:
                job_id = known.job_id
                self._completeness.fed(request.association_id, job_id)
                self._restore_unless_sound(job_id, incoming, file)
                self._queue.sent_again(incoming)
            else:
                self._set_aside(known.job_id, incoming, file)
        log.debug(
            "instance_stored" if known is None else "instance_known",
            association=request.association_id,
            job=job_id,
            instance=incoming.sop_instance_uid,
            byte_count=incoming.byte_count,
        )
        return StoreAnswer(StorageStatus.SUCCESS)

    def _store_new(
        self, request: StoreRequest, incoming: IncomingInstance, job_id: int, file: Arrival
    ) -> int:
        """Write the file, then its row; returns the job that counts it."""
        sop_uid = incoming.sop_instance_uid
        self._completeness.fed(request.association_id, job_id)
        try:
            self._spool.store_arrival(job_id, sop_uid, file)
        except InstanceConflict:
            # No row knows the file that is there: it was never acknowledged, and blocks nobody.
            self._spool.remove_instance(job_id, sop_uid)
            self._spool.store_arrival(job_id, sop_uid, file)
        for _ in range(_JOB_CHANGES):
            if self._queue.add_instance(job_id, incoming):
                return job_id
            former, job_id = job_id, self._queue.job_for_instance(incoming)
            self._completeness.fed(request.association_id, job_id)
            if job_id != former:
                self._spool.move_instance(sop_uid, former, job_id)
        raise Refusal(StorageStatus.OUT_OF_RESOURCES, "the series changed meanwhile; send again")

    def _restore_unless_sound(self, job_id: int, incoming: IncomingInstance, file: Arrival) -> None:
        """Store a known image whose file is gone or damaged: a success promises that it is there."""
        sop_uid = incoming.sop_instance_uid
        if self._spool.digest(job_id, sop_uid) == incoming.sha256:
            return
        self._spool.restore(job_id, sop_uid, file)
        if self._queue.is_purged(job_id):  # erased since it was known: nothing of it may stay
            self._spool.purge(job_id)
            raise Refusal(StorageStatus.OUT_OF_RESOURCES, "the series changed meanwhile; send again")
        log.warning("instance_restored", job=job_id, instance=sop_uid)

    def _set_aside(self, job_id: int, incoming: IncomingInstance, file: Arrival) -> NoReturn:
        """Keep bytes that contradict what is stored under their UID, for a person to look at; then refuse."""
        file_name = self._spool.set_aside_arrival(job_id, file)
        self._queue.set_aside(job_id, incoming, file_name)
        raise Refusal(
            StorageStatus.DUPLICATE_SOP_INSTANCE, "this UID is stored with other content; set aside"
        )


class _Arriving:
    """The data set of one request on its way to the disk: counted, hashed, bounded; its first fault is kept."""

    def __init__(self, spool: Spool, request: StoreRequest, max_bytes: int) -> None:
        self._spool = spool
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._file: Arrival | None = None
        self._beginning = bytearray()
        self._syntax = request.transfer_syntax_uid
        self.byte_count = 0
        self._fault: Exception | None = _refused_at_once(request) or _without_room(spool)
        self._head = b"" if self._fault else _head(request)

    @property
    def file(self) -> Arrival:
        """Where it lies; only after `header`."""
        assert self._file is not None
        return self._file

    @property
    def sha256(self) -> str:
        """Of the data set alone."""
        return self._digest.hexdigest()

    def take(self, chunk: bytes | memoryview) -> None:
        """Write a chunk; after a fault only count it, as the answer may be given only after all of them."""
        self.byte_count += len(chunk)
        if self._fault is None:
            try:
                self._write(chunk)
            except Exception as error:  # noqa: BLE001 -- answered once everything has come
                self._fault = error
                self.discard()

    def end(self) -> None:
        """Everything has come: the disk goes on with it while it is looked at."""
        if self._file is not None and self._fault is None:
            try:
                self._file.begin_sync()
            except StorageFull as error:
                self._fault = error

    def _write(self, chunk: bytes | memoryview) -> None:
        if self.byte_count > self._max_bytes:
            comment = f"more than {self._max_bytes} bytes, which is the limit here"
            raise Refusal(StorageStatus.CANNOT_UNDERSTAND, comment)
        if self._file is None:
            self._file = self._spool.arrive()
            self._file.write(self._head)
        self._file.write(chunk)
        self._digest.update(chunk)
        if len(self._beginning) < BEGINNING_BYTES:
            self._beginning += chunk[: BEGINNING_BYTES - len(self._beginning)]

    def header(self) -> InstanceHeader:
        """Read the header of the whole; raises the fault, or HeaderUnreadable."""
        if self._fault is not None:
            raise self._fault
        if self._file is None:
            raise HeaderUnreadable("there is no data set")
        try:
            return read_header(self._beginning, self._syntax, self.byte_count)
        except HeaderUnreadable:  # perhaps only because it is longer
            with self._file.content() as content, content[len(self._head) :] as dataset:
                return read_header(dataset, self._syntax)

    def discard(self) -> None:
        """Forget the file, where it became no image; repeatable."""
        if self._file is not None:
            self._file.discard()


def _refused_at_once(request: StoreRequest) -> Refusal | None:
    """Refuse what no data set can mend, before a byte of it goes to disk."""
    if request.sop_class_uid != CTImageStorage:
        return Refusal(StorageStatus.SOP_CLASS_NOT_SUPPORTED, "only CT Image Storage is taken")
    if not is_uid(request.sop_instance_uid):
        return Refusal(StorageStatus.INVALID_SOP_INSTANCE, "SOP Instance UID is not a UID")
    return None


def _without_room(spool: Spool) -> StorageFull | None:
    """What is said below the watermark, on associations that were open before too."""
    return None if spool.has_room() else StorageFull("[storage] min_free_bytes is not free any more")


def _refuse_contradictions(request: StoreRequest, header: InstanceHeader) -> None:
    """Raise Refusal where the request or its header cannot be what it says it is."""
    for uid, name in (
        (header.sop_class_uid, "SOP Class UID"),
        (header.sop_instance_uid, "SOP Instance UID"),
        (header.study_instance_uid, "Study Instance UID"),
        (header.series_instance_uid, "Series Instance UID"),
    ):
        if not uid:
            raise Refusal(StorageStatus.CANNOT_UNDERSTAND, f"there is no {name} in the data set")
    if not is_uid(header.sop_instance_uid):
        raise Refusal(StorageStatus.INVALID_SOP_INSTANCE, "SOP Instance UID is not a UID")
    if not is_uid(header.study_instance_uid) or not is_uid(header.series_instance_uid):
        raise Refusal(StorageStatus.CANNOT_UNDERSTAND, "Study or Series Instance UID is not a UID")
    mismatch = StorageStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS
    if header.sop_class_uid != request.sop_class_uid:
        raise Refusal(mismatch, "SOP Class UID differs from that of the request")
    if header.sop_instance_uid != request.sop_instance_uid:
        raise Refusal(mismatch, "SOP Instance UID differs from that of the request")
    if header.modality not in {"CT", ""}:
        raise Refusal(mismatch, "Modality is not CT")


def _incoming(request: StoreRequest, header: InstanceHeader, arrived: _Arriving) -> IncomingInstance:
    """Describe the instance to the job table; its SHA-256 is that of the data set alone."""
    return IncomingInstance(
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=request.transfer_syntax_uid,
        sha256=arrived.sha256,
        byte_count=arrived.byte_count,
        calling_ae_title=request.calling,
        called_ae_title=request.called,
        patient_id=header.patient_id,
        patient_name=header.patient_name,
        accession_number=header.accession_number,
        study_date=header.study_date,
        study_description=header.study_description,
        series_description=header.series_description,
    )


def _head(request: StoreRequest) -> bytes:
    return part10_head(
        request.sop_class_uid,
        request.sop_instance_uid,
        request.transfer_syntax_uid,
        request.calling,
        request.called,
    )
