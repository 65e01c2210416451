"""A few hundred mutated inputs for each target, and a fuzzer that does notice what no input may do."""

import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import elements, pdus
from tests.fuzz.__main__ import Engine, fuzz
from tests.fuzz.damage import damaged
from tests.fuzz.engine import load_target, mutated_inputs
from tests.paths import REPOSITORY

RUNS = {"listener": 150, "ct": 300, "structure_sets": 200, "configuration": 500, "bundle": 300}


def run(target: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command, with chance as its guide so that the inputs are the same each time."""
    command = [sys.executable, "-m", "tests.fuzz", target, "--engine", "chance", "--folder", folder, *options]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.parametrize("target", RUNS)
def test_mutated_inputs_are_read_or_refused_as_documented(tmp_path, target):
    ended = run(target, tmp_path, "--runs", str(RUNS[target]))

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{RUNS[target]} inputs" in ended.stdout
    assert "0 findings" in ended.stdout


@pytest.mark.parametrize(
    ("way", "place"),
    [
        ("raise", "ZeroDivisionError at misbehaving.py"),
        ("hide", "Broken at oracle.py"),
        ("write", "audit open"),
        ("allocate", "memory"),
        ("loop", "TooSlow at misbehaving.py"),
        ("die", "process died of SIGABRT"),
        ("start", "left open"),
        ("fail in a thread", "a thread died"),
    ],
)
def test_what_no_input_may_do_is_found_and_its_input_kept(tmp_path, monkeypatch, way, place):
    monkeypatch.setenv("MISBEHAVE", way)

    corpus = tmp_path / "corpus"
    corpus.mkdir()

    outcome = fuzz("misbehaving", 1, 60, 1, Engine.CHANCE, tmp_path, corpus)

    (kept,) = outcome.findings
    assert outcome.executions == 1
    assert kept.with_suffix(".txt").read_text().startswith(place)
    assert kept.read_bytes() == (b"" if way == "start" else way.encode())


def test_the_same_seed_gives_the_same_inputs():
    target = load_target("bundle")
    one, again, other = (list(islice(mutated_inputs(target, [b"good"], seed), 50)) for seed in (1, 1, 2))

    assert one == again
    assert one != other


def test_elements_are_found_in_sequences_and_in_either_encoding():
    item = b"\xfe\xff\x00\xe0" + b"\xff" * 4
    inner = b"\x08\x00\x16\x00UI\x04\x001.2\0"
    explicit = b"\x06\x30\x10\x00SQ\0\0" + b"\xff" * 4 + item + inner
    implicit = b"\x08\x00\x16\x00\x04\0\0\x001.2\0"

    assert [explicit[each.value : each.end] for each in elements.elements(explicit)][-1] == b"1.2\0"
    assert elements.elements(implicit, is_explicit=False)[0].end == len(implicit)


@given(st.binary(max_size=300))
def test_no_byte_is_lost_between_two_messages(stream):
    assert b"".join(pdus.split(stream)) == stream


@given(st.binary(min_size=1, max_size=300), st.integers(0, 2**32))
def test_every_mutator_takes_whatever_bytes_another_one_has_left(data, seed):
    """A guided run mutates its own mutants."""
    rng = Random(seed)
    for mutate in (pdus.mutate, elements.mutated_file, elements.mutated):
        mutate(data, rng, lambda piece: damaged(piece, rng))


def test_messages_are_taken_apart_as_their_lengths_say():
    one, other = pdus.pdu(pdus.RELEASE_RQ, bytes(4)), pdus.p_data(1, 3, b"four")

    assert pdus.split(one + other + b"\4\0\0") == [one, other, b"\4\0\0"]
