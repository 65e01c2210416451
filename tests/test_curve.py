"""The curve of a run: what it writes it reads again, and a resumed run leaves no step twice."""

from pathlib import Path

import pytest

from training.curve import HEADER, Curve, draw, read


def test_rows_come_back_and_those_beyond_the_checkpoint_go(tmp_path: Path) -> None:
    with Curve(tmp_path, 0) as curve:
        for step in (1, 2, 3):
            curve.add(step, 0.1 * step, 0.5, 0.25)
        curve.add_validation(2, {"Brain": (0.5, 0.25)}, (0.5, 0.25))
        curve.add_validation(3, {"Brain": (0.7, 0.25)}, (0.7, 0.25))

    with Curve(tmp_path, 2):
        pass

    assert (tmp_path / "curve.csv").read_text().splitlines()[0] == ",".join(HEADER)
    assert read(tmp_path / "curve.csv") == [
        ["1", "0.1", "0.50000", "0.25000"],
        ["2", "0.2", "0.50000", "0.25000"],
    ]
    assert read(tmp_path / "validation.csv") == [
        ["2", "mean", "0.5000", "0.2500"],
        ["2", "Brain", "0.5000", "0.2500"],
    ]


def test_a_curve_without_a_header_is_continued(tmp_path: Path) -> None:
    """As runs before there was one left it."""
    (tmp_path / "curve.csv").write_text("1,0.1,0.5,0.25\n2,0.1,0.4,0.25\n")

    with Curve(tmp_path, 2) as curve:
        curve.add(3, 0.1, 0.3, 0.2)

    assert [row[0] for row in read(tmp_path / "curve.csv")] == ["1", "2", "3"]


def test_a_validation_from_before_there_was_a_surface_is_continued_and_drawn(tmp_path: Path) -> None:
    """What was measured stays, with nothing said of the surface; a line cut short goes."""
    (tmp_path / "validation.csv").write_text("step,organ,dice\n2,mean,0.5\n2,Brain,0.5\n2,Le")
    assert draw(tmp_path) is not None

    with Curve(tmp_path, 2) as curve:
        curve.add_validation(3, {"Brain": (0.7, 0.25)}, (0.7, 0.25))
    with Curve(tmp_path, 3):
        pass

    assert (tmp_path / "validation.csv").read_text().splitlines() == [
        "step,organ,dice,surface_dice", "2,mean,0.5,", "2,Brain,0.5,",
        "3,mean,0.7000,0.2500", "3,Brain,0.7000,0.2500",
    ]  # fmt: skip


def test_both_measures_of_validation_reach_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard, which only the extra [training] installs")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Curve(tmp_path, 0) as curve:
        curve.add_validation(2, {"Brain": (0.5, 0.25)}, (0.5, 0.25))

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name, value in (("validation/Brain", 0.5), ("validation_surface/Brain", 0.25)):
        assert [(event.step, event.value) for event in events.Scalars(name)] == [(2, value)]


@pytest.mark.parametrize("steps", [0, 1, 450])
def test_a_picture_is_drawn_however_long_the_run(tmp_path: Path, steps: int) -> None:
    with Curve(tmp_path, 0) as curve:
        for step in range(1, steps + 1):
            curve.add(step, 0.1, 1 / step, 0.5)

    picture = draw(tmp_path)

    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")
