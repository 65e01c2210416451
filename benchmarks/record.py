"""A report with the commit, the machine and the time it belongs to, kept as JSON under runs/bench."""

import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Protocol

import structlog
import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.result import Report

FOLDER = Path("runs/bench")

VECTORS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
"""What decides how fast a network is on a processor, by the name Linux gives it; the best first."""


class Run(Protocol):
    """A benchmark: with `quick` on little work and once, to show that it runs and results are equal."""

    def __call__(self, *, quick: bool) -> Report:
        """Measure."""


@dataclass(frozen=True)
class Machine:
    """What was measured on."""

    processor: str
    cores: int
    memory_gb: float
    kernel: str
    file_system: str
    gpu: str
    python: str
    packages: tuple[str, ...]

    @classmethod
    def here(cls) -> "Machine":
        """Look at the machine this runs on."""
        told = (
            line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        )
        cpu = {key.strip(): value.strip() for key, _, value in told}
        packages = ("numpy", "scipy", "torch", "pydicom", "pynetdicom", "SimpleITK", "SQLAlchemy")
        return cls(
            processor=with_vectors(cpu.get("model name", platform.processor()), cpu.get("flags", "")),
            cores=len(os.sched_getaffinity(0)),
            memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
            kernel=platform.release(),
            file_system=_file_system(tempfile.gettempdir()),
            gpu=_said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or "none",
            python=platform.python_version(),
            packages=tuple(f"{each} {version(each)}" for each in packages),
        )


@dataclass(frozen=True)
class Record:
    """One module's report and where it comes from.

    Parameters
    ----------
    commit
        Short hash, with `+` where files had been changed since.
    load
        How many processes wanted a core in the minute before: what else the machine was doing.
    """

    name: str
    report: Report
    quick: bool
    commit: str
    machine: Machine
    measured_at: datetime
    seconds: float
    load: float

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return FOLDER / f"{self.name}.json"


_JSON = TypeAdapter(Record)


def measure(name: str, run: Run, *, quick: bool) -> Record:
    """Run a module's benchmark."""
    started, load, at = time.perf_counter(), os.getloadavg()[0], datetime.now(UTC)
    commit = _commit()
    report = run(quick=quick)
    return Record(name, report, quick, commit, Machine.here(), at, time.perf_counter() - started, load)


def keep(record: Record) -> None:
    """Write it down in place of the module's last one."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    record.path.write_bytes(_JSON.dump_json(record, indent=1))


def kept() -> list[Record]:
    """All that were written down."""
    return [_JSON.validate_json(path.read_bytes()) for path in sorted(FOLDER.glob("*.json"))]


def alone(name: str, run: Run) -> None:
    """Be the program `python -m benchmarks.NAME [--quick]`: measure, keep, print."""

    def main(
        *, quick: Annotated[bool, typer.Option(help="Little work, once: shows that it runs.")] = False
    ) -> None:
        """Measure, keep the result under runs/bench, and print it."""
        # What is measured is not to be told line by line.
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        record = measure(name, run, quick=quick)
        if not quick:
            keep(record)
        show(record)

    typer.run(main)


def show(record: Record) -> None:
    """Print rows and curves."""
    console = Console()
    rows = RichTable("what", "size", "ours", "peer", "", "unit", "ratio", title=record.report.title)
    for row in record.report.rows:
        peer, ratio = ("", "") if row.peer is None else (f"{row.peer.median:.4g}", f"{row.ratio:.2f}")
        rows.add_row(row.what, row.size, f"{row.ours.median:.4g}", row.peer_name, peer, str(row.unit), ratio)
    console.print(rows)
    for curve in record.report.curves:
        costs = ", ".join(f"{each.work:g}: {each.cost.median:.3g}" for each in curve.points)
        console.print(f"{curve.what}, {curve.unit} by {curve.work}: slope {curve.slope:.2f} ({costs})")
    for sentence in record.report.unmeasured:
        console.print(sentence)
    console.print(f"{record.seconds:.0f} s")


def with_vectors(processor: str, flags: str) -> str:
    """A processor's name with the best of `VECTORS` among its flags in /proc/cpuinfo."""
    best = [name for flag, name in VECTORS.items() if flag in flags.split()][:1]
    return " with ".join([processor, *best])


def _commit() -> str:
    changed = bool(_said("git", "status", "--porcelain", "--", ".", ":!docs"))
    return (_said("git", "rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def _file_system(folder: str) -> str:
    """Of the folder in which benchmarks store what they receive: its kind, and whether it keeps a journal.

    A journal costs every sync; ext4 without one is as fast as a disk can be.
    """
    kind, _, source = _said(
        "findmnt", "--noheadings", "--output", "FSTYPE,SOURCE", "--target", folder
    ).partition(" ")
    if kind != "ext4":
        return kind or "unknown"
    has_journal = any(Path("/proc/fs/jbd2").glob(f"{Path(source.strip()).name}-*"))
    return "ext4" if has_journal else "ext4 without a journal"


def _said(*command: str) -> str:
    """What a program says; empty where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode else done.stdout.strip()
