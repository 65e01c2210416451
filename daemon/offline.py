"""`oarlock segment`: one series from a folder to a structure set in a file, without network or database."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from daemon.picture import draw
from daemon.result_header import ResultIdentity
from daemon.result_objects import WantedObject
from daemon.segmentation import STAGES, ContouredSeries, contour_series
from daemon.spool import write_private
from daemon.structure_template import DEFAULT_TEMPLATE, Template
from daemon.tables import console, safe
from model.bundle import DEFAULT_BUNDLE, Bundle
from model.ct import find_series, unreadable_files
from model.segmenter import Segmenter
from model.suitability import counted


class WrongSeries(Exception):  # noqa: N818 -- said as a sentence where it is raised
    """The user must choose: the folder holds no CT series, several, or not the one that was named."""


def choose_series(folder: Path, uid: str | None) -> list[Path]:
    """Return the files of the folder's only CT series, or of the one with that Series Instance UID.

    Raises
    ------
    WrongSeries
        There is none, or the choice is open; a table of the series has been shown.
    """
    found = find_series(folder)
    if uid in found:
        return found[uid]
    if not found:
        raise WrongSeries(f"no CT image under {folder}; needed is a folder with the files of one CT series")
    if uid is None and len(found) == 1:
        return next(iter(found.values()))
    console(errors=True).print(_series_table(found))
    if uid is None:
        raise WrongSeries(f"{len(found)} CT series under {folder}; choose one with --series UID")
    raise WrongSeries(f"no CT series {uid} under {folder}")


def passed_over(folder: Path) -> list[str]:
    """Say that files beside the images cannot be read, as images that are damaged cannot."""
    unreadable = unreadable_files(folder)
    if not unreadable:
        return []
    files = counted(len(unreadable), "file")
    return [f"{files} left out that cannot be read as DICOM, such as {unreadable[0].name}"]


def _series_table(found: Mapping[str, Sequence[Path]]) -> Table:
    table = Table("Series Instance UID", "Slices", "Description", box=None, pad_edge=False)
    for uid, paths in found.items():
        header = dcmread(paths[0], specific_tags=["SeriesDescription"], stop_before_pixels=True)
        table.add_row(safe(uid), str(len(paths)), safe(header.get("SeriesDescription", "")))
    return table


def segment(
    paths: Sequence[Path],
    bundle: Path | None,
    device: str,
    outputs: Mapping[WantedObject, Path],
    template: Template = DEFAULT_TEMPLATE,
) -> ContouredSeries:
    """Contour a series into files, which exist only once all of them have passed their checks.

    Without a bundle's folder, the model that comes with oarlock is used.

    Parameters
    ----------
    outputs
        What to make, structure sets first, and where to write it; a remark tells what cannot be made.

    Raises
    ------
    SeriesUnsuitable, OutputRejected, BundleError
        As in `contour_series` and `Segmenter`.
    """
    parts = {wanted.file_name: path.with_name(f".{path.name}.part") for wanted, path in outputs.items()}

    def store(name: str, content: bytes) -> Path:
        write_private(parts[name], content)
        return parts[name]

    identity = ResultIdentity(
        generate_uid(prefix=None), generate_uid(prefix=None), datetime.now().astimezone()
    )
    segmenter = Segmenter(Bundle.load(bundle or DEFAULT_BUNDLE), device)
    try:
        with _progress_bars() as bars:
            result = contour_series(paths, segmenter, identity, template, list(outputs), store, bars.show)
        for file in result.files:
            file.path.replace(outputs[file.wanted])
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return result


def qa_sheet(result: ContouredSeries, path: Path) -> None:
    """Write the QA sheet, as PDF where the file's name ends so; it names the patient."""
    sheet = result.contoured.qa_sheet
    write_private(path, sheet.pdf if path.suffix.lower() == ".pdf" else sheet.png)


def picture(result: ContouredSeries, path: Path) -> None:
    """Draw the contours, for its owner alone; the picture names the model and no patient."""
    write_private(path, b"")
    draw(result.volume, result.masks, path, title=f"{result.model.name} {result.model.version}")


class _Bars:
    """One bar per stage, which appears when the stage begins and is full when the next one does."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def show(self, stage: str, share: float) -> None:
        """Move a stage's bar to a share from 0 to 1."""
        if stage not in self._tasks:
            self.finish()
            self._tasks[stage] = self._bars.add_task(stage, total=1.0)
        self._bars.update(self._tasks[stage], completed=share)

    def finish(self) -> None:
        """Fill the bars of the stages so far, and stop their clocks."""
        for task in self._tasks.values():
            self._bars.update(task, completed=1.0)


@contextmanager
def _progress_bars() -> Iterator[_Bars]:
    width = max(map(len, STAGES))
    columns = (TextColumn(f"{{task.description:{width}}}"), BarColumn(), TimeElapsedColumn())
    screen = console(errors=True)
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        bars = _Bars(progress)
        yield bars
        bars.finish()
