"""Tables for the terminal: jobs, one job, structures and the findings of a check."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from daemon.job_records import DeliveryRecord, JobRecord
from daemon.job_report import JobReport
from daemon.jobs import DeliveryState, JobState
from daemon.printable import printable

_COLOURS = {
    JobState.DELIVERED: "green",
    JobState.FAILED: "bold red",
    JobState.REJECTED: "red",
    JobState.HELD: "magenta",
    JobState.SEGMENTING: "cyan",
    JobState.SEGMENTED: "cyan",
    JobState.CANCELLED: "dim",
    JobState.PURGED: "dim",
    DeliveryState.SENT: "green",
    DeliveryState.FAILED: "bold red",
    DeliveryState.PENDING: "yellow",
    DeliveryState.CANCELLED: "dim",
}
_WIDTH_IN_A_FILE = 200


_SEVERITY_COLOURS = {"hold": "bold red", "warning": "yellow", "note": "dim"}


class FindingFigures(Protocol):
    """What a table of findings shows."""

    @property
    def code(self) -> str:
        """For counting."""

    @property
    def severity(self) -> str:
        """note, warning or hold."""

    @property
    def structure(self) -> str | None:
        """TG-263 name; None where it concerns the image."""

    @property
    def text(self) -> str:
        """What was found and what was expected."""


class StructureFigures(Protocol):
    """What a table of structures shows; both the job table's rows and a fresh result have it."""

    @property
    def name(self) -> str:
        """TG-263 name."""

    @property
    def volume_cm3(self) -> float:
        """Volume of the mask."""

    @property
    def contours(self) -> int:
        """Number of contours; none for an organ that was not found."""

    @property
    def slices(self) -> int:
        """Number of slices that have a contour."""


def console(*, errors: bool = False) -> Console:
    """Return the terminal, or a wide page where output goes into a file or another program."""
    stream = sys.stderr if errors else sys.stdout
    return Console(
        file=stream, width=None if stream.isatty() else _WIDTH_IN_A_FILE, highlight=False, markup=False
    )


def safe(value: object) -> Text:
    """Return a value that came over the network as text that a terminal cannot take for commands."""
    return Text("" if value is None else printable(str(value)))


def jobs_table(jobs: Sequence[JobRecord], deliveries: Sequence[DeliveryRecord] = ()) -> Table:
    """Newest jobs first, one line each; deliveries that did not succeed yet stand with their jobs."""
    setbacks = {
        each.job_id: each for each in deliveries if each.state is DeliveryState.PENDING and each.detail
    }
    table = _table("Job", "State", "Since", "Patient", "Accession", "Series", "Images", "From", "Remark")
    for job in jobs:
        patient = " ".join(part for part in (job.patient_name, job.patient_id) if part)
        table.add_row(
            str(job.id),
            _state(job.state),
            _local(job.state_since),
            safe(patient),
            safe(job.accession_number),
            safe(job.series_description),
            str(job.instance_count),
            safe(job.calling_ae_title),
            safe(_remark(job) or _setback(setbacks.get(job.id))),
        )
    return table


def job_page(report: JobReport) -> RenderableType:
    """Return everything about one job: its particulars, history, deliveries, structures and stage times."""
    parts: list[RenderableType] = [_particulars(report.job), _history(report)]
    if report.findings:
        parts.append(findings_table(report.findings))
    if report.deliveries:
        parts.append(_deliveries(report))
    if report.results:
        parts.append(_results(report))
    if report.structures:
        parts.append(structures_table(report.structures))
    if report.stage_times:
        table = _table("Stage", "Seconds", title="Stages")
        for stage in report.stage_times:
            table.add_row(stage.stage, f"{stage.seconds:.1f}")
        parts.append(table)
    if report.set_asides:
        parts.append(_set_asides(report))
    return Group(*(part for section in parts for part in (section, "")))


def structures_table(structures: Iterable[StructureFigures]) -> Table:
    """Name, volume, contours and slices of every structure; a line says so where one was not found."""
    table = _table("Structure", "Volume cm³", "Contours", "Slices", title="Structures")
    for each in structures:
        if each.contours:
            table.add_row(each.name, f"{each.volume_cm3:.1f}", str(each.contours), str(each.slices))
        else:
            table.add_row(Text(each.name, style="dim"), Text("not found", style="dim"), "", "")
    return table


def findings_table(findings: Iterable[FindingFigures]) -> Table:
    """What is doubtful about the image and the structures, and how much it matters."""
    table = _table("Severity", "About", "Finding", "Code", title="Findings")
    for each in findings:
        colour = _SEVERITY_COLOURS.get(each.severity, "")
        table.add_row(
            Text(each.severity, style=colour), safe(each.structure or "the image"), safe(each.text), each.code
        )
    return table


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold underline",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    numbers = {"Job", "Images", "Volume cm³", "Contours", "Slices", "Seconds", "Tries"}
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table


def _particulars(job: JobRecord) -> Table:
    table = Table(
        title=f"Job {job.id}",
        title_justify="left",
        title_style="bold underline",
        box=None,
        pad_edge=False,
        show_header=False,
    )
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    model = " ".join(
        part for part in (job.model_name, job.model_version, (job.model_digest or "")[:12]) if part
    )
    facts: dict[str, object] = {
        "State": _state(job.state),
        "Since": _local(job.state_since),
        "Reason": " ".join(part for part in (job.reason_code and f"[{job.reason_code}]", job.reason) if part),
        "Waits for": job.awaits,
        "Progress": _progress(job),
        "Not before": _local(job.not_before) if job.state is JobState.QUEUED else "",
        "Patient": " ".join(part for part in (job.patient_name, job.patient_id) if part),
        "Accession": job.accession_number,
        "Study": " ".join(part for part in (job.study_date, job.study_description) if part),
        "Series": job.series_description,
        "Images": f"{job.instance_count} ({job.byte_count / 1e6:.1f} MB), last {_local(job.last_instance_at)}"
        + ("; those of earlier revisions are contoured too" if job.revision > 1 else ""),
        "From → to": f"{job.calling_ae_title} → {job.called_ae_title}, revision {job.revision}",
        "Study UID": job.study_instance_uid,
        "Series UID": job.series_instance_uid,
        "Result UID": job.result_sop_instance_uid,
        "Model": model,
        "Attempts": job.attempts,
    }
    for name, value in facts.items():
        if isinstance(value, Text):
            table.add_row(name, value)
        elif value not in {None, ""}:
            table.add_row(name, safe(value))
    return table


def _history(report: JobReport) -> Table:
    table = _table("At", "From", "To", "Reason", title="History")
    for event in report.events:
        is_remark = event.from_state is event.to_state
        table.add_row(
            _local(event.at),
            "" if is_remark else safe(event.from_state),
            "" if is_remark else _state(event.to_state),
            safe(
                " ".join(
                    part for part in (event.reason_code and f"[{event.reason_code}]", event.detail) if part
                )
            ),
        )
    return table


def _deliveries(report: JobReport) -> Table:
    table = _table(
        "Destination", "State", "Tries", "Status", "Sent or next try", "Detail", title="Deliveries"
    )
    is_held = report.job.state is JobState.HELD  # nothing is tried before its release
    for each in report.deliveries:
        next_try = each.not_before if each.state is DeliveryState.PENDING and not is_held else None
        table.add_row(
            safe(each.destination),
            _state(each.state),
            str(each.attempts),
            "" if each.last_status is None else f"0x{each.last_status:04X}",
            _local(each.sent_at or next_try),
            safe(": ".join(part for part in (each.failure_kind, each.detail) if part)),
        )
    return table


def _results(report: JobReport) -> Table:
    table = _table("Object", "Profile", "SOP Instance UID", "File", title="Results")
    for each in report.results:
        table.add_row(each.kind, each.profile, each.sop_instance_uid, each.file_name)
    return table


def _set_asides(report: JobReport) -> Table:
    table = _table("At", "From", "Image", "File", title="Set aside: other content under a known UID")
    for each in report.set_asides:
        table.add_row(
            _local(each.at), safe(each.calling_ae_title), safe(each.sop_instance_uid), safe(each.file_name)
        )
    return table


def _remark(job: JobRecord) -> str:
    if job.state is JobState.RECEIVING and job.awaits:
        return f"waits for {job.awaits}"
    if job.state is JobState.SEGMENTING:
        return _progress(job)
    if job.state is JobState.QUEUED and job.not_before:
        return f"again at {_local(job.not_before)}: {job.reason}"
    return " ".join(part for part in (job.reason_code and f"[{job.reason_code}]", job.reason) if part)


def _setback(delivery: DeliveryRecord | None) -> str:
    if delivery is None:
        return ""
    again = f"; again at {_local(delivery.not_before)}" if delivery.not_before else ""
    return f"{delivery.destination}: {delivery.detail}{again}"


def _progress(job: JobRecord) -> str:
    if job.state is not JobState.SEGMENTING or job.progress_stage is None:
        return ""
    return f"{job.progress_stage} {100 * (job.progress_fraction or 0):.0f} %"


def _state(state: JobState | DeliveryState) -> Text:
    return Text(str(state), style=_COLOURS.get(state, ""))


def _local(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
