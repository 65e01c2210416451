"""Every benchmark runs on little work and finds equal results; figures are summed up right. No times here."""

import dataclasses
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from benchmarks import MODULES, network_engines, page, reading, reception
from benchmarks.record import Machine, Record, with_vectors
from benchmarks.result import (
    Curve,
    Goal,
    Limit,
    Point,
    Report,
    ResultsDifferError,
    Row,
    Sample,
    Table,
    Unit,
)
from benchmarks.timer import said_rounds, take_turns

PRESENT = [name for name in MODULES if find_spec(f"benchmarks.{name}")]


@pytest.mark.parametrize("name", PRESENT)
def test_a_benchmark_runs_and_its_results_are_equal_to_those_of_its_peers(name: str) -> None:
    """It raises where they differ; with a peer that is not installed it says what it left out."""
    report = import_module(f"benchmarks.{name}").run(quick=True)

    assert report.rows or report.curves or report.unmeasured
    assert report.about


def test_programs_take_turns_after_a_round_that_does_not_count() -> None:
    """A B, A B, A B: the first pair is not in the result."""
    calls = []

    def program(name: str, seconds: list[float]):
        return lambda: calls.append(name) or seconds.pop(0)

    samples = take_turns(
        {"a": program("a", [100.0, 1.0, 3.0]), "b": program("b", [200.0, 5.0, 5.0])}, 2, "testing"
    )

    assert calls == ["a", "b"] * 3
    assert samples == {"a": Sample(2.0, 1.5, 2.5, 2), "b": Sample(5.0, 5.0, 5.0, 2)}


def test_no_round_begins_after_enough_seconds() -> None:
    """Each program had a turn that counts, and none of them one more."""
    calls = []
    programs = {name: lambda name=name: calls.append(name) or 1.0 for name in "ab"}

    samples = take_turns(programs, 5, "testing", enough_seconds=0.0)

    assert calls == ["a", "b"] * 2
    assert samples["a"].rounds == samples["b"].rounds == 1


def test_the_title_of_a_table_tells_its_rounds() -> None:
    assert [said_rounds(1), said_rounds(3)] == ["once", "median of 3 rounds"]


@pytest.mark.parametrize(
    ("unit", "ours", "peer", "ratio"),
    [(Unit.SECONDS, 2.0, 6.0, 3.0), (Unit.MB_PER_SECOND, 2.0, 6.0, 1 / 3), (Unit.MB, 4.0, 2.0, 0.5)],
)
def test_a_ratio_over_one_means_that_ours_is_better(
    unit: Unit, ours: float, peer: float, ratio: float
) -> None:
    row = Row("work", "much", unit, Sample.of([ours]), "peer", Sample.of([peer]))

    assert row.ratio == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (Goal(ratio=3), True),
        (Goal(ratio=3.1), False),
        (Goal(at_most=2), True),
        (Goal(at_most=1.9), False),
        (Goal(at_least=2.1), False),
        (Goal(ratio=3, at_most=1), False),
    ],
)
def test_a_row_says_whether_it_reaches_every_number_of_its_goal(goal: Goal, *, reached: bool) -> None:
    row = Row("work", "much", Unit.SECONDS, Sample.of([2.0]), "peer", Sample.of([6.0]), goal)

    assert row.reaches_goal is reached


def test_a_row_without_a_peer_does_not_reach_a_ratio() -> None:
    row = Row("work", "much", Unit.SECONDS, Sample.of([2.0]), goal=Goal(ratio=1))

    assert row.reaches_goal is False


@pytest.mark.parametrize(("one", "least"), [(150.0, 200.0), (250.0, 250.0)])
def test_several_associations_must_be_no_slower_than_one_nor_than_one_should_be(
    one: float, least: float
) -> None:
    goals = reception._goals({1: Sample.of([one]), 4: Sample.of([1.0])})

    assert goals == {1: 200.0, 4: least}


def voxels(*is_set: int) -> torch.Tensor:
    """(10000,) of one organ."""
    mask = torch.zeros(10000, dtype=torch.bool)
    mask[list(is_set)] = True
    return mask


BIG, SMALL = voxels(*range(9000)), voxels(1, 2, 3)


@pytest.mark.parametrize(
    ("ratio", "found", "said"),
    [
        (1.5, [BIG, SMALL], "would be one"),
        (1.4, [BIG, SMALL], "is none"),
        (1.5, [voxels(*range(9001)), voxels(1, 2)], "would be one"),
        (
            1.5,
            [BIG, voxels(1)],
            "is none: it is 1.50 times as fast, its Dice is 0.99989, organs whose masks are not equal: 1.",
        ),
        (1.5, [voxels(*range(9100)), SMALL], "organs whose masks are not equal: 1."),
    ],
    ids=("equal", "too slow", "all but a voxel", "a small organ", "a large organ"),
)
def test_an_engine_must_win_with_masks_that_are_equal_organ_by_organ(
    ratio: float, found: list[torch.Tensor], said: str
) -> None:
    tried = network_engines.Tried(("an engine", "float32"), 0.1, ratio, [BIG, SMALL], found)

    assert said in tried.verdict


def a_volume(*heights_mm: float) -> reading.Volume:
    """A slice of 2 × 2 voxels at every height, each of another value."""
    values = np.arange(4 * len(heights_mm)).reshape(-1, 2, 2)
    return reading.Volume(values, lambda k, y, x: np.array([x, y, heights_mm[k]], dtype=float))


def test_a_series_read_from_its_other_end_is_equal_where_its_places_go_with_it() -> None:
    volume, turned = a_volume(0, 1, 3), a_volume(3, 1, 0)
    turned = dataclasses.replace(turned, values=turned.values[::-1])

    reading._require_equal("a peer", volume, turned)


@pytest.mark.parametrize("heights_mm", [(0, 1, 3.1), (3, 1, 0), (1, 2, 4)])
def test_equal_values_at_other_places_are_no_equal_volume(heights_mm: tuple[float, ...]) -> None:
    with pytest.raises(ResultsDifferError):
        reading._require_equal("a peer", a_volume(0, 1, 3), a_volume(*heights_mm))


def test_equal_values_in_a_turned_order_are_no_equal_volume() -> None:
    volume = a_volume(0, 1, 3)
    with pytest.raises(ResultsDifferError):
        reading._require_equal("a peer", volume, dataclasses.replace(volume, values=volume.values[::-1]))


def curve(power: float, fixed: float = 0.0, ceiling: float | None = None) -> Curve:
    """Of cost = fixed + work ** power."""
    points = tuple(Point(work, Sample.of([fixed + work**power])) for work in (1.0, 10, 100, 1e3, 1e4, 1e5))
    return Curve("what", "work", Unit.SECONDS, points, ceiling=ceiling)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_slope_is_the_exponent_of_the_cost(power: float) -> None:
    assert curve(power).slope == pytest.approx(power, abs=1e-6)
    assert curve(power).reaches_goal is (power <= 1)


@pytest.mark.parametrize(("power", "reaches"), [(1.09, True), (1.11, False)])
def test_a_slope_may_exceed_its_goal_by_what_the_page_says(power: float, *, reaches: bool) -> None:
    assert curve(power).reaches_goal is reaches
    assert "exceeds its goal by 0.1 or less" in page.SLOPES


def test_a_fixed_cost_does_not_hide_a_steep_slope() -> None:
    assert curve(2.0, fixed=1e4).slope == pytest.approx(2.0, abs=0.05)


def test_a_curve_above_its_ceiling_misses_its_goal() -> None:
    assert not curve(0.5, ceiling=1.0).reaches_goal


@pytest.mark.parametrize(
    ("unit", "reached", "limit"), [(Unit.SECONDS, 4.0, 1.0), (Unit.MB_PER_SECOND, 1.0, 4.0)]
)
def test_the_share_of_a_limit_is_one_at_the_limit(unit: Unit, reached: float, limit: float) -> None:
    assert Limit("what", unit, reached, limit, "measured").share == 0.25


def a_record(name: str, commit: str = "abc1234") -> Record:
    """One of everything, a missed goal among it."""
    rows = (
        Row(
            "good",
            "1 × 2",
            Unit.SECONDS,
            Sample.of([1.0, 2.0]),
            "peer",
            Sample.of([9.0]),
            Goal(ratio=2),
            "is said",
        ),
        Row("bad", "1", Unit.MB_PER_SECOND, Sample.of([1.0]), goal=Goal(at_least=1234)),
    )
    report = Report(
        f"Title of {name}",
        ("A sentence.",),
        rows,
        (curve(1.0), curve(2.0)),
        (Limit("disk", Unit.MB_PER_SECOND, 100.0, 400.0, "dd"),),
        (Table("Stages", ("stage", "s"), (("load", "1.0"),), ("Loading is quick.",)),),
        ("No second machine was at hand.",),
        ("peer 1.0",),
    )
    machine = Machine("a processor", 2, 8.0, "6.1", "ext4", "none", "3.11", ("numpy 2",))
    return Record(
        name,
        report,
        quick=False,
        commit=commit,
        machine=machine,
        measured_at=datetime(2024, 2, 29, tzinfo=UTC),
        seconds=12.0,
        load=0.5,
    )


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that writes the page of records and gives its text."""
    monkeypatch.chdir(tmp_path)

    def write(*records: Record) -> str:
        page.write(records)
        return page.PAGE.read_text()

    return write


def test_a_record_survives_json() -> None:
    adapter = TypeAdapter(Record)

    assert adapter.validate_json(adapter.dump_json(a_record("metrics"))) == a_record("metrics")


def test_the_page_holds_every_figure_and_marks_missed_goals(written) -> None:
    text = written(a_record("metrics"))

    assert "| good | 1 × 2 | 1.5 (1.25 – 1.75) | peer | 9 (once) | s | 2, 1 | 6.00 × | ≥ 2 × |" in text
    assert "- good, 1 × 2, peer: is said" in text
    assert "| bad | 1 | 1 (once) |  |  | MB/s | 1 |  | **≥ 1234 MB/s** |" in text
    assert "| 1 (once) at 1 | 100000 (once) at 100,000 | 1 | 1.00 | slope ≤ 1 |" in text
    assert page.SLOPES in text
    assert "| 2.00 | **slope ≤ 1** |" in text
    assert "| disk | 100 | 400 | MB/s | 25% | dd |" in text
    assert "| load | 1.0 |\n\nLoading is quick.\n" in text
    assert "no GPU" in text
    assert "No second machine was at hand." in text
    for name in ("performance-ratios", "performance-metrics"):
        assert f"(figures/{name}.png)" in text
        assert (page.PAGE.parent / page.FIGURES / f"{name}.png").stat().st_size > 1000


def test_pages_of_several_machines_keep_their_own_plots_and_link_each_other(written) -> None:
    first = written(a_record("metrics"))
    page.write([a_record("scale")], page.PAGE.with_name("performance-other.md"))
    other = page.PAGE.with_name("performance-other.md").read_text()

    assert "On other machines" not in first
    assert "On other machines: [performance.md](performance.md)." in other
    assert "(figures/performance-other-scale.png)" in other
    assert not (page.PAGE.parent / page.FIGURES / "performance-scale.png").exists()
    assert "On other machines: [performance-other.md](performance-other.md)." in written(a_record("metrics"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [("fpu avx2", "CPU with AVX2"), ("avx2 avx512f amx_bf16", "CPU with AMX"), ("fpu", "CPU"), ("", "CPU")],
)
def test_a_machine_says_how_wide_its_processor_computes(flags: str, said: str) -> None:
    assert with_vectors("CPU", flags) == said


def test_the_page_names_the_benchmarks_that_are_missing_and_ignores_foreign_records(written) -> None:
    text = written(a_record("metrics"), a_record("of something else"))

    assert "Nothing of *contours*" in text
    assert "Nothing of *metrics*" not in text
    assert "something else" not in text


@pytest.mark.parametrize("changed", [{"commit": "fffffff"}, {"machine": "another"}])
def test_the_page_says_when_its_parts_do_not_belong_together(written, changed: dict) -> None:
    record = a_record("scale")
    other = changed.get("machine")
    machine = dataclasses.replace(record.machine, processor=other) if other else record.machine
    record = dataclasses.replace(record, commit=changed.get("commit", record.commit), machine=machine)

    assert "**Not all parts were measured" in written(a_record("metrics"), record)
    assert "**Not all parts were measured" not in written(a_record("metrics"), a_record("scale"))
