"""Pack data sets of CT and contours for training, and report what was left out and why.

    python -m training.prepare archive /data/planning-cts --validation 0.2 --out runs/packs
    python -m training.prepare openkbp DATA/openkbp tcia21 DATA/tcia21 shapes DATA/tcia-shapes --out runs/packs

Validation cases go into packs of their own and are never trained on. Beside the packs of each source lies
`SOURCE-report.csv` with a line for every case, and for everything that was left out.

    archive      folders of CT series and RT structure sets, however nested
    nnunet       nnU-Net raw data: imagesTr, labelsTr, dataset.json, and present_labels.json if there is one
    openkbp-csv  OpenKBP as published: a folder of CSV files for each patient
    nrrd         CT_IMAGE.nrrd and segmentations/ORGAN.nrrd for each scan, as in the TCIA planning CT set
    openkbp, tcia21, shapes  the data sets of the bundle that comes with oarlock
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from training.dataset import PackWriter
from training.packing import SPLITS, VALIDATION, Choices, PackingError, Source, read_absent, read_validation
from training.packing_report import Outcome, Report
from training.roi_names import NameTableError, load_names
from training.source_archive import archive_cases
from training.source_nnunet import nnunet_cases
from training.source_nrrd import nrrd_cases
from training.source_openkbp import openkbp_cases
from training.source_openkbp_csv import openkbp_csv_cases
from training.source_shapes import shape_cases
from training.source_tcia21 import tcia21_cases
from training.volumes import ImageUnreadableError

SOURCES: dict[str, Source] = {
    "archive": archive_cases,
    "nnunet": nnunet_cases,
    "openkbp-csv": openkbp_csv_cases,
    "nrrd": nrrd_cases,
    "openkbp": openkbp_cases,
    "tcia21": tcia21_cases,
    "shapes": shape_cases,
}


def main(
    sources: list[str] = typer.Argument(..., metavar="SOURCE FOLDER …", help=f"Pairs; {', '.join(SOURCES)}."),  # noqa: B008
    out: Path = typer.Option(Path("runs/packs"), help="Folder for the packs and reports."),  # noqa: B008
    validation: str = typer.Option(
        "0", help="Share of the patients kept for measuring, or a file that lists them."
    ),
    absent: Path | None = typer.Option(None, help="CSV patient,organ: organs that patients truly lack."),  # noqa: B008
    names: Path | None = typer.Option(None, help=r"TOML \[names]: ROI names of your clinic to TG-263 names."),  # noqa: B008
) -> None:
    """Pack every named data set: train and validation cases apart."""
    console = Console()
    try:
        pairs = _pairs(sources)
        choices = Choices(
            load_names(names), read_absent(absent) if absent else {}, read_validation(validation)
        )
        for source, folder in pairs:
            pack(source, folder, choices, out, console)
    except (PackingError, NameTableError, ImageUnreadableError, OSError) as error:
        Console(stderr=True).print(f"[red]{escape(str(error))}")
        sys.exit(2)


def pack(source: str, folder: Path, choices: Choices, out: Path, console: Console) -> Report:
    """Pack one source into `out`/SOURCE-SPLIT-NN.npz and say what became of everything in it.

    Raises
    ------
    PackingError
        The folder or the choices cannot be used as they are, or no case can: earlier packs stay then.
    """
    report = Report()
    writers = {split: PackWriter(out / f"{source}-{split}") for split in SPLITS}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} cases"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(source, total=None)
        for split, case in SOURCES[source](folder, choices, report):
            writers[split].add(case)
            report.packed(case, split)
            progress.update(task, advance=1, description=f"{source} {case.name}")
        for writer in writers.values():
            writer.finish()
        if not report.count(Outcome.PACKED):
            _tell(report, source, out, console)
            raise PackingError(
                f"{folder}: no case could be packed, and the packs of before stay; is it the right folder?"
            )
        # Only now, when nothing can fail for want of room: of two splits, neither is new beside an old one.
        paths = [path for writer in writers.values() for path in writer.close()]
    _remark_on_splits(choices, report)
    _tell(report, source, out, console)
    for path in paths:
        console.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return report


def _tell(report: Report, source: str, out: Path, console: Console) -> None:
    report.show(console)
    report.write(out / f"{source}-report.csv")
    console.print(f"every line of the report: {out / f'{source}-report.csv'}")


def _pairs(words: Sequence[str]) -> list[tuple[str, Path]]:
    names, folders = words[::2], [Path(word) for word in words[1::2]]
    if len(words) % 2 or any(name not in SOURCES for name in names):
        raise PackingError(f"name pairs of {', '.join(SOURCES)} and a folder; found {' '.join(words)}")
    if len(set(names)) < len(names):
        raise PackingError(
            "a source is named twice, and its packs would replace each other: use another --out"
        )
    for folder in folders:
        if not folder.is_dir():
            raise PackingError(f"{folder} is no folder")
    return list(zip(names, folders, strict=True))


def _remark_on_splits(choices: Choices, report: Report) -> None:
    packed = [line for line in report.lines if line.outcome is Outcome.PACKED]
    if choices.validation and packed and all(line.split != VALIDATION for line in packed):
        report.remark("--validation", "no case is in the validation split: list patients in a file instead")


if __name__ == "__main__":
    typer.run(main)
