"""Text on the QA sheet: what the head says, and what of it can be written and fits."""

from functools import cache

from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import text_to_path
from pydicom import Dataset

from daemon.result_header import ModelIdentity, ResultIdentity, software_version
from model.ct import CTVolume
from model.geometry import SliceGrid

FAMILY = "DejaVu Sans"
"""The font that matplotlib brings: the same on every machine."""

_MISSING_GLYPH = "?"
_ELLIPSIS = "…"


def drawable(text: str) -> str:
    """One line that the font can show; what it cannot becomes a question mark, and never an error."""
    known = _glyphs()
    return "".join(
        c if ord(c) in known else _MISSING_GLYPH for c in " ".join(str(text).split()) if c.isprintable()
    )


def width_points(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line in points."""
    font = FontProperties(family=FAMILY, size=size, weight=weight)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width)


def wrapped(text: str, size: float, limit_points: float) -> list[str]:
    """Break a text at its spaces so that no line is wider than the limit; a longer word is cut."""
    lines: list[str] = []
    for word in drawable(text).split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and width_points(joined, size) <= limit_points:
            lines[-1] = joined
        else:
            lines.append(shortened(word, size, limit_points))
    return lines


def shortened(text: str, size: float, limit_points: float, weight: str = "normal") -> str:
    """Cut the end of a line that is too wide, and show that it is cut."""
    text = drawable(text)
    if width_points(text, size, weight) <= limit_points:
        return text
    while text and width_points(text + _ELLIPSIS, size, weight) > limit_points:
        text = text[:-1]
    return text.rstrip() + _ELLIPSIS


def patient_line(header: Dataset, *, identify: bool) -> str:
    """Name and ID as the CT has them, or that they are left out."""
    if not identify:
        return "Patient not named on this sheet"
    name, number = header.get("PatientName"), header.get("PatientID")
    return f"{_told_apart(_name(name)) or 'no name'}  ·  ID {_told_apart(number) or 'none'}"


def _told_apart(identifier: object) -> str:
    """Write the numbers of letters that the font lacks: with question marks two patients would have one name."""
    known = _glyphs()
    return "".join(c if ord(c) in known or c.isspace() else f"\\u{ord(c):04x}" for c in str(identifier or ""))


def study_line(volume: CTVolume, header: Dataset, *, identify: bool) -> str:
    """Study date, series and slices; the free text of the series' description only where it may identify."""
    words = [f"Study of {_date(header.get('StudyDate'))}", f"CT series {header.get('SeriesNumber') or '–'}"]
    if identify and header.get("SeriesDescription"):
        words[-1] += f" “{header.SeriesDescription}”"
    words.append(_slices(volume.grid))
    return "  ·  ".join(words)


def origin_lines(model: ModelIdentity, identity: ResultIdentity) -> tuple[str, str]:
    """What made the contours, and when."""
    created = f"{identity.created:%Y-%m-%d %H:%M}{_zone(identity)}"
    return (
        f"Model {model.name} {model.version}, weights sha256 {model.digest[:12]}{_ELLIPSIS}",
        f"oarlock {software_version()}  ·  created {created}",
    )


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(FT2Font(findfont(FontProperties(family=FAMILY))).get_charmap())


def _name(name: object) -> str:
    """The first group of a Person Name's representations that is not empty, family name first (PS3.5 6.2.1.1)."""
    shown = next((group for group in str(name or "").split("=") if group.strip("^ ")), "")
    family, *others = (part.strip() for part in shown.split("^"))
    return ", ".join(filter(None, (family, " ".join(filter(None, others)))))


def _date(value: object) -> str:
    digits = str(value or "")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}" if len(digits) == 8 else digits or "unknown date"


def _zone(identity: ResultIdentity) -> str:
    return f"{identity.created:%z}" and f" UTC{identity.created:%z}"


def _slices(grid: SliceGrid) -> str:
    gap_mm, *_ = grid.spacing_mm
    spacing = f"{gap_mm:.3g} mm apart" if grid.is_uniform else f"unevenly spaced, mostly {gap_mm:.3g} mm"
    tilt = f", tilted {grid.tilt_degrees:.0f}°" if grid.tilt_degrees >= 1 else ""
    return f"{grid.shape[0]} slices {spacing}{tilt}"
