"""May this instance be stored, and in which job: every C-STORE request is answered here, off the network."""

import hashlib
import re
from dataclasses import dataclass
from threading import Lock

import structlog
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, CTImageStorage

from daemon.completeness import Completeness
from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, StorageStatus
from daemon.errors import InstanceConflict, StorageFull
from daemon.instance_header import HeaderUnreadable, InstanceHeader, read_header
from daemon.job_queue import IncomingInstance, JobQueue
from daemon.spool import Spool

log = structlog.get_logger()

MAX_COMMENT = 64
"""Error Comment (0000,0902) is an LO (PS3.7 table E.1-1)."""

_JOB_CHANGES = 5
"""A job may stop receiving between its choice and the count of the image; not again and again."""

# Leading zeros, which PS3.5 section 9.1 forbids, come from real scanners and hurt nobody.
_UID = re.compile(r"[012](\.[0-9]+)+")


@dataclass(frozen=True, kw_only=True)
class StoreRequest:
    """A C-STORE request; the data set as the sender encoded it, without File Meta Information."""

    association_id: int
    calling: str
    called: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset_bytes: bytes


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
    """

    def __init__(self, queue: JobQueue, spool: Spool, completeness: Completeness) -> None:
        self._queue = queue
        self._spool = spool
        self._completeness = completeness
        # The same image may come over two associations at once: its look-up and its row belong together.
        self._turns = tuple(Lock() for _ in range(64))

    def has_room(self) -> bool:
        """Whether the disk has room for more than what is already being received."""
        return self._spool.has_room()

    def store(self, request: StoreRequest) -> StoreAnswer:
        """Answer a C-STORE request; never raises."""
        refused = log.bind(
            association=request.association_id, calling=request.calling, instance=request.sop_instance_uid
        )
        try:
            header = read_header(request.dataset_bytes, request.transfer_syntax_uid)
            _refuse_contradictions(request, header)
            return self._store(request, _incoming(request, header))
        except HeaderUnreadable as error:
            answer = Refusal(StorageStatus.CANNOT_UNDERSTAND, str(error)).answer
        except Refusal as refusal:
            answer = refusal.answer
        except StorageFull as error:
            answer = StoreAnswer(StorageStatus.OUT_OF_RESOURCES, "storage is not available; send again later")
            refused = refused.bind(cause=str(error))
        except Exception as error:  # noqa: BLE001 -- our fault, so the sender must keep its image
            answer = StoreAnswer(StorageStatus.OUT_OF_RESOURCES, "internal error; see the log of this node")
            refused = refused.bind(exc_info=error)
        refused.warning("instance_refused", status=f"0x{answer.status:04X}", reason=answer.comment)
        return answer

    def _store(self, request: StoreRequest, incoming: IncomingInstance) -> StoreAnswer:
        with self._turns[hash(incoming.sop_instance_uid) % len(self._turns)]:
            known = self._queue.find_known(
                incoming.series_instance_uid,
                incoming.sop_instance_uid,
                incoming.calling_ae_title,
                incoming.called_ae_title,
            )
            if known is None:
                job_id = self._store_new(request, incoming)
            elif known.sha256 == incoming.sha256:
                job_id = known.job_id
                self._completeness.fed(request.association_id, job_id)
            else:
                self._set_aside(known.job_id, request, incoming)
        log.debug(
            "instance_stored" if known is None else "instance_known",
            association=request.association_id,
            job=job_id,
            instance=incoming.sop_instance_uid,
            byte_count=incoming.byte_count,
        )
        return StoreAnswer(StorageStatus.SUCCESS)

    def _store_new(self, request: StoreRequest, incoming: IncomingInstance) -> int:
        """Write the file, then its row; returns the job that counts it."""
        sop_uid = incoming.sop_instance_uid
        job_id = self._queue.job_for_instance(incoming)
        self._completeness.fed(request.association_id, job_id)
        try:
            self._spool.store_instance(job_id, sop_uid, _file(request))
        except InstanceConflict:
            self._set_aside(job_id, request, incoming)
        for _ in range(_JOB_CHANGES):
            if self._queue.add_instance(job_id, incoming):
                return job_id
            former, job_id = job_id, self._queue.job_for_instance(incoming)
            self._completeness.fed(request.association_id, job_id)
            if job_id != former:
                self._spool.move_instance(sop_uid, former, job_id)
        raise Refusal(StorageStatus.OUT_OF_RESOURCES, "the series changed meanwhile; send again")

    def _set_aside(self, job_id: int, request: StoreRequest, incoming: IncomingInstance) -> None:
        """Keep bytes that contradict what is stored under their UID, for a person to look at; then refuse."""
        file_name = self._spool.set_aside(job_id, _file(request))
        self._queue.set_aside(job_id, incoming, file_name)
        raise Refusal(
            StorageStatus.DUPLICATE_SOP_INSTANCE, "this UID is stored with other content; set aside"
        )


def _refuse_contradictions(request: StoreRequest, header: InstanceHeader) -> None:
    """Raise Refusal where the request or its header cannot be what it says it is."""
    if request.sop_class_uid != CTImageStorage:
        raise Refusal(StorageStatus.SOP_CLASS_NOT_SUPPORTED, "only CT Image Storage is taken")
    for uid, name in (
        (header.sop_class_uid, "SOP Class UID"),
        (header.sop_instance_uid, "SOP Instance UID"),
        (header.study_instance_uid, "Study Instance UID"),
        (header.series_instance_uid, "Series Instance UID"),
    ):
        if not uid:
            raise Refusal(StorageStatus.CANNOT_UNDERSTAND, f"there is no {name} in the data set")
    if not _is_uid(request.sop_instance_uid) or not _is_uid(header.sop_instance_uid):
        raise Refusal(StorageStatus.INVALID_SOP_INSTANCE, "SOP Instance UID is not a UID")
    if not _is_uid(header.study_instance_uid) or not _is_uid(header.series_instance_uid):
        raise Refusal(StorageStatus.CANNOT_UNDERSTAND, "Study or Series Instance UID is not a UID")
    mismatch = StorageStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS
    if header.sop_class_uid != request.sop_class_uid:
        raise Refusal(mismatch, "SOP Class UID differs from that of the request")
    if header.sop_instance_uid != request.sop_instance_uid:
        raise Refusal(mismatch, "SOP Instance UID differs from that of the request")
    if header.modality not in {"CT", ""}:
        raise Refusal(mismatch, "Modality is not CT")


def _is_uid(value: str) -> bool:
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def _incoming(request: StoreRequest, header: InstanceHeader) -> IncomingInstance:
    """Describe the instance to the job table; its SHA-256 is that of the data set alone."""
    return IncomingInstance(
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=request.transfer_syntax_uid,
        sha256=hashlib.sha256(request.dataset_bytes).hexdigest(),
        byte_count=len(request.dataset_bytes),
        calling_ae_title=request.calling,
        called_ae_title=request.called,
        patient_id=header.patient_id,
        patient_name=header.patient_name,
        accession_number=header.accession_number,
        study_date=header.study_date,
        study_description=header.study_description,
        series_description=header.series_description,
    )


def _file(request: StoreRequest) -> tuple[bytes, bytes]:
    """DICOM file (PS3.10 section 7.1): preamble and File Meta Information, then the bytes as received."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(request.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(request.sop_instance_uid)
    meta.TransferSyntaxUID = UID(request.transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    # From whom and to whom: with these the job table can be rebuilt from the spool.
    meta.SourceApplicationEntityTitle = request.calling
    meta.ReceivingApplicationEntityTitle = request.called
    head = DicomBytesIO()
    head.write(bytes(128) + b"DICM")
    write_file_meta_info(head, meta)
    return head.getvalue(), request.dataset_bytes
