"""The process that gives inputs to a target: guided by coverage where atheris is installed, else by chance."""

import importlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer

from tests.fuzz.damage import damaged
from tests.fuzz.ledger import Ledger
from tests.fuzz.oracle import Broken, Finding, Oracle, nothing_left_open
from tests.fuzz.target import MAX_INPUT_BYTES, FuzzOne, Target

MOST_MUTATIONS = 4


class Session:
    """One run in one process: counts inputs, keeps what was found, and ends after so many or so long.

    Parameters
    ----------
    findings
        Folder for inputs that did what none may.
    """

    def __init__(self, target: Target, folder: Path, findings: Path, runs: int, seconds: float) -> None:
        self._oracle = Oracle(target, folder, findings)
        self._ledger = Ledger(findings / "ledger")
        self._findings = findings
        self._left = runs
        self._end = time.monotonic() + seconds
        self._stack = ExitStack()
        self._target = target
        self._folder = folder
        self._fuzz_one: FuzzOne | None = None

    def open(self) -> None:
        """Prepare the target and begin to watch."""
        self._stack.enter_context(nothing_left_open())
        self._fuzz_one = self._stack.enter_context(self._target.opened(self._folder))
        self._oracle.install()

    def give(self, data: bytes) -> None:
        """Give one input, unless all were given."""
        if self._fuzz_one is None:
            return
        data = data[:MAX_INPUT_BYTES]
        self._ledger.begin(data)
        if finding := self._oracle.judge(self._fuzz_one, data):
            self._keep(finding, data)
        self._left -= 1
        if self.is_over:
            self.close()

    @property
    def is_over(self) -> bool:
        """Whether no more inputs are taken."""
        return self._left <= 0 or time.monotonic() > self._end

    def close(self) -> None:
        """Take down the target; what is left open is a finding."""
        try:
            self._stack.close()
        except Broken as error:
            self._keep(Finding("left open", str(error)), b"")
        self._fuzz_one = None

    def _keep(self, finding: Finding, data: bytes) -> None:
        """Write a finding down, the first of its kind only."""
        path = self._findings / f"{finding.name}.txt"
        if not path.exists():
            path.with_suffix(".input").write_bytes(data)
            path.write_text(f"{finding.place}\n{finding.text}\n", encoding="utf-8")


def run_by_chance(target: Target, session: Session, good: list[bytes], seed: int) -> None:
    """Mutate good inputs, the same ones for the same seed."""
    for data in mutated_inputs(target, good, seed):
        session.give(data)
        if session.is_over:
            return


def mutated_inputs(target: Target, good: list[bytes], seed: int) -> Iterator[bytes]:
    """Yield the inputs of one seed without end."""
    rng = Random(seed)
    while True:
        data = rng.choice(good)
        for _ in range(rng.randint(1, MOST_MUTATIONS)):
            data = target.mutate(data, rng, lambda piece: damaged(piece, rng))[:MAX_INPUT_BYTES]
        yield data


def run_guided(target: Target, session: Session, seed: int, corpus: Path, atheris: Any) -> None:
    """Let libFuzzer keep what reaches new code and go on from there; ends the process."""

    def mutate(data: bytes, max_size: int, number: int) -> bytes:
        rng = Random(number)
        changed = target.mutate(data, rng, lambda piece: atheris.Mutate(piece, len(piece) + 64))
        return changed[:max_size]

    def give(data: bytes) -> None:
        session.give(data)
        if session.is_over:
            sys.stdout.flush()
            os._exit(0)  # libFuzzer has no other way to end before its own count

    options = [
        f"-seed={seed}",
        f"-max_len={MAX_INPUT_BYTES}",
        "-rss_limit_mb=0",
        "-timeout=100000",
        "-len_control=0",
    ]
    options.append(f"-artifact_prefix={corpus.parent}/")  # we keep what was given ourselves
    atheris.Setup([sys.argv[0], *options, str(corpus)], give, custom_mutator=mutate)
    atheris.Fuzz()


def load_target(name: str, atheris: Any | None = None) -> Target:
    """Import a target, and with atheris instrument all that it reads with."""
    place = f"tests.fuzz.{name}"
    if atheris is None:
        return importlib.import_module(place).TARGET
    with atheris.instrument_imports(
        include=["daemon", "model", "training", "pydicom", "pynetdicom", "tomllib"]
    ):
        return importlib.import_module(place).TARGET


def main(
    target_name: str,
    folder: Path,
    findings: Path,
    corpus: Path,
    runs: Annotated[int, typer.Option()],
    seconds: Annotated[float, typer.Option()],
    seed: Annotated[int, typer.Option()],
    *,
    guided: Annotated[bool, typer.Option()] = False,
) -> None:
    """Give so many inputs to a target; started by `python -m tests.fuzz`, which outlives it."""
    atheris = importlib.import_module("atheris") if guided else None
    target = load_target(target_name, atheris)
    for number, content in enumerate(target.seeds()):
        (corpus / f"seed-{number:03d}").write_bytes(content[:MAX_INPUT_BYTES])
    # What a guided run has kept here before is as good to begin with.
    good = [path.read_bytes() for path in sorted(corpus.iterdir())]
    session = Session(target, folder, findings, runs, seconds)
    session.open()
    if atheris:
        run_guided(target, session, seed, corpus, atheris)
    else:
        run_by_chance(target, session, good, seed)


if __name__ == "__main__":
    typer.run(main)
