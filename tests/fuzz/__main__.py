"""Fuzz one target for so many inputs and say what came of it; exit code 1 where anything was found."""

import importlib.util
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from tests.fuzz.engine import load_target, mutated_inputs
from tests.fuzz.ledger import Ledger
from tests.fuzz.lines import reached_lines
from tests.fuzz.oracle import Finding, Oracle
from tests.paths import REPOSITORY

STALLED_SECONDS = 120
"""Without a new input for so long, a process hangs where no signal reaches it."""

MOST_DEATHS = 20


class Name(StrEnum):
    """The targets; each has a file of its name."""

    LISTENER = "listener"
    CT = "ct"
    STRUCTURE_SETS = "structure_sets"
    CONFIGURATION = "configuration"
    BUNDLE = "bundle"


@dataclass(frozen=True)
class Outcome:
    """What a run came to; coverage as libFuzzer counts it, empty without it."""

    executions: int
    seconds: float
    coverage: str
    findings: list[Path]


class Engine(StrEnum):
    """How inputs are chosen."""

    GUIDED = "guided"
    CHANCE = "chance"


def fuzz(
    name: str, runs: int, seconds: float, seed: int, engine: Engine, findings: Path, corpus: Path
) -> Outcome:
    """Run processes until all inputs were given; one that dies is a finding, and the next one goes on."""
    ledger = Ledger(findings / "ledger")
    before, began, deaths, coverage = ledger.executions, time.monotonic(), 0, ""
    while (left := runs - (ledger.executions - before)) > 0 and deaths < MOST_DEATHS:
        seconds_left = seconds - (time.monotonic() - began)
        if seconds_left <= 0:
            break
        with TemporaryDirectory(prefix="oarlock-fuzz-") as folder:
            command = [
                *(sys.executable, "-m", "tests.fuzz.engine", name, folder, findings, corpus),
                *("--runs", left, "--seconds", seconds_left, "--seed", seed + deaths),
                *(["--guided"] if engine is Engine.GUIDED else []),
            ]
            log = findings / f"{name}.log"
            ending = _watch([str(part) for part in command], ledger, log)
            coverage = _coverage(log) or coverage
        if not ending:
            break
        deaths += 1
        _keep_death(findings, ending, ledger.current, log)
    return Outcome(
        ledger.executions - before, time.monotonic() - began, coverage, sorted(findings.glob("*.input"))
    )


def _watch(command: list[str], ledger: Ledger, log: Path) -> str:
    """Run a process to its end; return how it died, empty where it did not."""
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output)
        seen, since = ledger.executions, time.monotonic()
        while True:
            try:
                code = process.wait(1)
            except subprocess.TimeoutExpired:
                if ledger.executions != seen:
                    seen, since = ledger.executions, time.monotonic()
                elif time.monotonic() - since > STALLED_SECONDS:
                    process.kill()
                    process.wait()
                    return f"no answer for {STALLED_SECONDS} s"
                continue
            except BaseException:
                process.terminate()
                process.wait()
                raise
            if code < 0:
                return f"died of {signal.Signals(-code).name}"
            return f"ended with code {code}" if code else ""


def _keep_death(findings: Path, ending: str, data: bytes, log: Path) -> None:
    finding = Finding(
        f"process {ending} at input {hash(data) & 0xFFFFFF:06x}", log.read_text(errors="replace")
    )
    (findings / f"{finding.name}.input").write_bytes(data)
    (findings / f"{finding.name}.txt").write_text(f"{finding.place}\n{finding.text[-20_000:]}\n")


def _coverage(log: Path) -> str:
    """Return the last figures of libFuzzer: edges of the control flow that were reached, and inputs kept."""
    found = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", log.read_text(errors="replace"))
    return f"{found[-1][0]} edges, {found[-1][1]} features, {found[-1][2]} inputs kept" if found else ""


def replay(name: Name, path: Path) -> None:
    """Give one saved input, with whatever it raises."""
    target = load_target(name)
    with TemporaryDirectory(prefix="oarlock-fuzz-") as folder, target.opened(Path(folder)) as fuzz_one:
        oracle = Oracle(target, Path(folder), Path(folder))
        oracle.install()
        finding = oracle.judge(fuzz_one, path.read_bytes())
    Console().print(finding.text if finding else "nothing was found", markup=False, highlight=False)
    raise typer.Exit(1 if finding else 0)


def count_lines(name: Name, runs: int, seed: int, corpus: Path) -> None:
    """Say which share of its modules a target reaches with the corpus and mutants of it."""
    target = load_target(name)
    kept = [*target.seeds(), *(path.read_bytes() for path in sorted(corpus.iterdir()))]
    inputs = chain(kept, islice(mutated_inputs(target, kept, seed), runs))
    for module, (reached, there) in reached_lines(target, inputs).items():
        typer.echo(f"{module}: {reached} of {there} lines, {reached / there:.0%}")


def main(
    name: Annotated[Name, typer.Argument(metavar="TARGET")],
    *,
    runs: Annotated[int, typer.Option(help="How many inputs.")] = 100_000,
    minutes: Annotated[float, typer.Option(help="End after so long, however many.")] = 600,
    seed: Annotated[int, typer.Option(help="Of the mutations.")] = 1,
    engine: Annotated[Engine | None, typer.Option(help="Guided where atheris is installed.")] = None,
    folder: Annotated[Path, typer.Option(help="Where findings and the corpus stay.")] = Path("build/fuzz"),
    one: Annotated[Path | None, typer.Option("--input", help="Give this one input and show all.")] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Count the lines that so many inputs reach.")
    ] = False,
) -> None:
    """Give mutated inputs to a target."""
    if one:
        replay(name, one)
    chosen = engine or (Engine.GUIDED if importlib.util.find_spec("atheris") else Engine.CHANCE)
    findings, corpus = folder / name, folder / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    if lines:
        count_lines(name, runs, seed, corpus)
        return
    outcome = fuzz(name, runs, minutes * 60, seed, chosen, findings.resolve(), corpus.resolve())
    typer.echo(
        f"{name}, {chosen}, seed {seed}: {outcome.executions} inputs in {outcome.seconds:.0f} s, "
        f"{outcome.coverage or 'coverage not measured'}, {len(outcome.findings)} findings"
    )
    for path in outcome.findings:
        first = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[0]
        typer.echo(f"  {first}\n    python -m tests.fuzz {name} --input {path}")
    raise typer.Exit(1 if outcome.findings else 0)


if __name__ == "__main__":
    typer.run(main)
