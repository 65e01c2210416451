"""A job table and a spool with series in them, and the worker's parts built on them by hand."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread

from daemon.config import Config
from daemon.courier import Courier
from daemon.job_queue import IncomingInstance, JobQueue
from daemon.job_records import DeliveryRecord, JobRecord
from daemon.job_runner import JobRunner
from daemon.outgoing_association import Timeouts
from daemon.segmentation import SegmentsVolumes
from daemon.spool import Spool
from tests.job_rows import Clock, queue_in
from tests.nodes import a_config
from tests.phantom import make_grid, write_series
from tests.stored import store_image
from tests.stub_segmenter import StubSegmenter

SHORT = Timeouts(connection=1, association=2, response=2, stall=1, report=0.1)
STRUCTURES = ("Brain", "Eye_L", "Eye_R")


def small_series(folder: Path, seed: int = 0, **attributes: Any) -> list[Path]:
    """The phantom, coarse, so that it is read in a moment."""
    grid = make_grid(pixel_spacing_mm=(4.0, 3.0), size=(60, 65), offsets_mm=range(-100, 101, 10))
    return write_series(folder, grid=grid, seed=seed, **attributes)


def queue_images(queue: JobQueue, spool: Spool, paths: Sequence[Path], calling: str = "CT1") -> int:
    """Store images and complete the series, as reception does; returns the job's number."""
    for path in paths:
        content, header = path.read_bytes(), dcmread(path, stop_before_pixels=True)
        incoming = IncomingInstance(
            study_instance_uid=header.StudyInstanceUID,
            series_instance_uid=header.SeriesInstanceUID,
            sop_instance_uid=header.SOPInstanceUID,
            transfer_syntax_uid=header.file_meta.TransferSyntaxUID,
            sha256=hashlib.sha256(content).hexdigest(),
            byte_count=len(content),
            calling_ae_title=calling,
            called_ae_title="OARLOCK",
            patient_id=header.PatientID,
            patient_name=str(header.PatientName),
            accession_number=header.AccessionNumber,
        )
        job = queue.job_for_instance(incoming)
        store_image(spool, job, header.SOPInstanceUID, content)
        assert queue.add_instance(job, incoming)
    queue.complete(job, "all images are here")
    return job


@dataclass
class Workplace:
    """What a worker works on, with a clock that tests move.

    Parameters
    ----------
    ports
        Destination name to port of the loopback; may be changed at any time, as a configuration file may.
    """

    root: Path
    ports: dict[str, int] = field(default_factory=dict)
    retry_for_hours: float = 48
    structures: Sequence[str] = STRUCTURES
    routed: Sequence[str] | None = None
    objects: Sequence[str] = ("rtstruct",)
    ae_title: str = "RECEIVER"
    commitment: bool = False
    doubtful: str = "send"  # the phantom is no patient
    qa_sheet: str = "none"
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.queue: JobQueue = queue_in(self.root, self.clock)
        self.spool = Spool(self.root, 0)
        self.spool.prepare()

    def settings(self) -> Config:
        """The configuration as it stands now."""
        return a_config(
            self.root,
            delivery={"retry_for_hours": self.retry_for_hours},
            destinations=[
                {
                    "name": name,
                    "ae_title": self.ae_title,
                    "host": "127.0.0.1",
                    "port": port,
                    "objects": list(self.objects),
                    "commitment": self.commitment,
                }
                for name, port in self.ports.items()
            ],
            routes=[
                {
                    "destinations": list(self.routed or self.ports),
                    "structures": list(self.structures),
                    "doubtful": self.doubtful,
                    "qa_sheet": self.qa_sheet,
                }
            ],
        )

    def runner(self, segmenter: SegmentsVolumes | None = None, owner: str = "worker-1") -> JobRunner:
        """A runner whose waits have no chance in them."""
        return JobRunner(
            self.queue,
            self.spool,
            segmenter or StubSegmenter(),
            self.settings,
            self.clock,
            owner,
            lambda: 1.0,
            on_progress=lambda: None,
        )

    def courier(self) -> Courier:
        """A courier with little patience, whose waits have no chance in them."""
        return Courier(self.queue, self.spool, self.settings, self.clock, "worker-1", lambda: 1.0, SHORT)

    def queue_series(self, paths: Sequence[Path]) -> int:
        """Store images and complete the series; returns the job's number."""
        return queue_images(self.queue, self.spool, paths)

    def queue_phantom(self, seed: int = 0) -> int:
        """Queue a small phantom; another seed is another patient."""
        return self.queue_series(small_series(self.root / f"sent-{seed}", seed))

    def segmented(self, seed: int = 0) -> int:
        """Queue a small phantom and segment it."""
        job = self.queue_phantom(seed)
        assert self.runner().run_next()
        return job

    def deliver_all_due(self) -> int:
        """Try whatever is due now; returns how many tries that were."""
        courier, tries = self.courier(), 0
        while courier.deliver_next():
            tries += 1
        return tries

    def job(self, job_id: int) -> JobRecord:
        """The job's row now."""
        return self.queue.job(job_id)

    def delivery(self, job_id: int, destination: str) -> DeliveryRecord:
        """The delivery's row now."""
        return next(each for each in self.queue.deliveries(job_id) if each.destination == destination)

    def result_bytes(self, job_id: int) -> bytes:
        """The structure set in the spool."""
        return self.spool.result_path(job_id).read_bytes()
