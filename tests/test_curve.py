"""The curve of a run: what it writes it reads again, and a resumed run leaves no step twice."""

from pathlib import Path

import pytest

from training.curve import HEADER, Curve, draw, read


def test_rows_come_back_and_those_beyond_the_checkpoint_go(tmp_path: Path) -> None:
    with Curve(tmp_path, 0) as curve:
        for step in (1, 2, 3):
            curve.add(step, 0.1 * step, 0.5, 0.25)
        curve.add_validation(2, {"Brain": 0.5}, 0.5)
        curve.add_validation(3, {"Brain": 0.7}, 0.7)

    with Curve(tmp_path, 2):
        pass

    assert (tmp_path / "curve.csv").read_text().splitlines()[0] == ",".join(HEADER)
    assert read(tmp_path / "curve.csv") == [
        ["1", "0.1", "0.50000", "0.25000"],
        ["2", "0.2", "0.50000", "0.25000"],
    ]
    assert read(tmp_path / "validation.csv") == [["2", "mean", "0.5000"], ["2", "Brain", "0.5000"]]


def test_a_curve_without_a_header_is_continued(tmp_path: Path) -> None:
    """As runs before there was one left it."""
    (tmp_path / "curve.csv").write_text("1,0.1,0.5,0.25\n2,0.1,0.4,0.25\n")

    with Curve(tmp_path, 2) as curve:
        curve.add(3, 0.1, 0.3, 0.2)

    assert [row[0] for row in read(tmp_path / "curve.csv")] == ["1", "2", "3"]


@pytest.mark.parametrize("steps", [0, 1, 450])
def test_a_picture_is_drawn_however_long_the_run(tmp_path: Path, steps: int) -> None:
    with Curve(tmp_path, 0) as curve:
        for step in range(1, steps + 1):
            curve.add(step, 0.1, 1 / step, 0.5)

    picture = draw(tmp_path)

    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")
