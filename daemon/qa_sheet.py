"""The QA sheet: one A4 page on which a person sees whether a job's contours can be right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from daemon.picture_panels import colour, draw_section, outlines_on, volume_text
from daemon.picture_views import AIR_HU, choose_sections
from daemon.qa_sheet_table import Row, rows_of
from daemon.qa_sheet_words import (
    FAMILY,
    origin_lines,
    patient_line,
    shortened,
    study_line,
    wrapped,
)
from daemon.result_header import ModelIdentity, ResultIdentity, readable
from daemon.structure_template import ROI, left_out
from model.ct import CTVolume
from model.findings import Finding, Severity, gravest

PAGE_MM = (297.0, 210.0)
"""A4, the long side across."""

DPI = 150
"""Makes a picture of 1754 × 1240 pixels."""

_MM_PER_INCH, _POINTS_PER_MM = 25.4, 72 / 25.4
_EDGE_MM, _HEAD_MM, _PANEL_MM, _GAP_MM = 7.0, 23.0, 57.0, 1.0
_TABLE_LEFT_MM = _EDGE_MM + 3 * (_PANEL_MM + _GAP_MM) + 4
_RIGHT_MM = PAGE_MM[0] - _EDGE_MM
_ROW_MM, _TABLE_MM, _LINE_MM = 4.25, 98.0, 3.55
_NUMBER_MM = 8.0
_FOOT_MM = 200.0
_TEXT, _SMALL = 8.0, 7.5  # points

_INK, _FAINT, _RULE, _RED = "#14181c", "#69747f", "#c4ccd4", "#b3141c"
_BADGES = {Severity.HOLD: _RED, Severity.WARNING: "#b35a00", Severity.NOTE: "#4d5a66"}
_MARKS = {"low": "▼ low", "high": "▲ high"}


@dataclass(frozen=True, eq=False)
class QASheet:
    """A page that is drawn, and becomes a picture or a document when it is asked for."""

    figure: Figure

    @cached_property
    def png(self) -> bytes:
        """1754 × 1240 pixels."""
        return _png(self.figure)

    @cached_property
    def pdf(self) -> bytes:
        """A4, contours and letters as vectors."""
        return _pdf(self.figure)


def build_qa_sheet(
    volume: CTVolume,
    rois: Sequence[ROI],
    identity: ResultIdentity,
    model: ModelIdentity,
    *,
    identify: bool,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    findings: Sequence[Finding] | None = None,
) -> QASheet:
    """Draw the sheet of one job, in the names and colours of its structure set.

    The same arguments make the same bytes.
    Six axial, two coronal and one sagittal section with the contours, in radiological convention and true
    proportions; each structure's volume beside the usual ones; what the checks found, gravest first; what made it.

    Parameters
    ----------
    rois
        Of the template, in its order; one without voxels is listed as not found. Only organs are drawn.
    identity
        Its `created` is the sheet's date.
    identify
        Whether the patient's name and ID and the series' description are written on it: only where it stays in
        the patient's own study.
    ranges
        Usual volumes in cm³, (low, high) by name; None where none are known.
    findings
        What the automatic checks found; None where they did not run, which the sheet says.
    """
    figure = _compose(volume, rois, identity, model, identify=identify, ranges=ranges, findings=findings)
    return QASheet(figure)


def _compose(
    volume: CTVolume,
    rois: Sequence[ROI],
    identity: ResultIdentity,
    model: ModelIdentity,
    *,
    identify: bool,
    ranges: Mapping[str, tuple[float, float]] | None,
    findings: Sequence[Finding] | None,
) -> Figure:
    ordered = sorted(findings or (), key=lambda finding: -list(Severity).index(finding.severity))
    figure = Figure(
        figsize=(PAGE_MM[0] / _MM_PER_INCH, PAGE_MM[1] / _MM_PER_INCH), dpi=DPI, facecolor="white"
    )
    page = _page(figure)
    _draw_head(page, volume, identity, model, gravest(ordered), identify=identify)
    organs = {roi.organ: roi for roi in rois if roi.organ}
    _draw_panels(figure, volume, organs)
    rows = rows_of(rois, volume.grid, ranges, ordered)
    below = _draw_table(page, rows, top=_HEAD_MM + 3)
    entries = [
        *((f.severity.upper(), _BADGES[f.severity], f"{_subject(f, organs)}: {f.text}") for f in ordered),
        *(("LEFT OUT", _FAINT, sentence) for sentence in left_out(rois)),
        *(("CT", _FAINT, remark) for remark in volume.remarks),
    ]
    _draw_findings(page, _summary(rows, findings), entries, top=below + 3)
    _draw_foot(page, has_ranges=bool(ranges))
    return figure


def _subject(finding: Finding, organs: Mapping[str, ROI]) -> str:
    """What a finding is about, under its name in the structure set and the one by which findings are told."""
    organ = finding.structure
    if organ is None:
        return "image"
    name = organs[organ].name if organ in organs else organ
    return organ if name == organ else f"{name} ({organ})"


def _png(figure: Figure) -> bytes:
    file = BytesIO()
    quickly = {"compress_level": 1}  # a third of the time that the usual level takes, for a file as large
    FigureCanvasAgg(figure).print_figure(
        file, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs=quickly
    )
    return file.getvalue()


def _pdf(figure: Figure) -> bytes:
    """Without the date and the program's version, which would differ between two runs."""
    file = BytesIO()
    nothing = {"CreationDate": None, "Creator": None, "Producer": None}
    FigureCanvasPdf(figure).print_figure(file, format="pdf", dpi=DPI, metadata=nothing)
    return file.getvalue()


def _page(figure: Figure) -> Axes:
    """Axes over the whole page, in millimetres from its upper left corner."""
    page = figure.add_axes((0, 0, 1, 1))
    page.set_axis_off()
    page.set_xlim(0, PAGE_MM[0])
    page.set_ylim(PAGE_MM[1], 0)
    return page


def _write(
    page: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float = _TEXT,
    color: str = _INK,
    weight: str = "normal",
    ha: str = "left",
) -> None:
    page.text(
        x,
        y,
        text,
        size=size,
        color=color,
        weight=weight,
        ha=ha,
        va="center_baseline",
        family=FAMILY,
        parse_math=False,
    )


def _rule(page: Axes, left: float, right: float, y: float) -> None:
    page.plot([left, right], [y, y], color=_RULE, linewidth=0.6)


def _draw_head(
    page: Axes,
    volume: CTVolume,
    identity: ResultIdentity,
    model: ModelIdentity,
    worst: Severity | None,
    *,
    identify: bool,
) -> None:
    header = readable(volume.header)
    badge_mm = 78.0
    limit = (_RIGHT_MM - badge_mm - 4 - _EDGE_MM) * _POINTS_PER_MM
    patient = shortened(patient_line(header, identify=identify), 13, limit, "bold")
    study = shortened(study_line(volume, header, identify=identify), 9, limit)
    made = shortened("  ·  ".join(origin_lines(model, identity)), 9, limit)
    _write(page, _EDGE_MM, 8.5, patient, size=13, weight="bold")
    _write(page, _EDGE_MM, 14.5, study, size=9)
    _write(page, _EDGE_MM, 19.5, made, size=9, color=_FAINT)
    left = _RIGHT_MM - badge_mm
    ground = _RED if worst is Severity.HOLD else "#ffc24d"
    ink = "white" if worst is Severity.HOLD else _INK
    page.add_patch(Rectangle((left, 4.5), badge_mm, 16.5, facecolor=ground, edgecolor="none"))
    centre = left + badge_mm / 2
    _write(page, centre, 10.5, "NEEDS REVIEW", size=20, weight="bold", color=ink, ha="center")
    words = "automatic contours, approved by nobody"
    if worst is Severity.HOLD:
        words = "grave doubts: see the findings"
    _write(page, centre, 17, words, size=9, color=ink, ha="center")


def _draw_panels(figure: Figure, volume: CTVolume, organs: Mapping[str, ROI]) -> None:
    """Two columns of axial sections from head to feet, one of coronal and sagittal sections."""
    masks = {organ: roi.mask for organ, roi in organs.items()}
    colours = {organ: colour(roi.colour_rgb) for organ, roi in organs.items()}
    sections = choose_sections(volume.grid, masks, coronal_count=2)
    *axial, coronal, other_coronal, sagittal = sections
    upright = [coronal, other_coronal, sagittal]
    places = [*(divmod(n, 2) for n in range(len(axial))), *((row, 2) for row in range(3))]
    layers = outlines_on(sections, masks)
    for section, (row, column), outlines in zip([*axial, *upright], places, layers, strict=True):
        axes = figure.add_axes(_panel_box(row, column))
        draw_section(axes, section, section.sample(volume.hu, AIR_HU), outlines, colours, scale=0.72)


def _panel_box(row: int, column: int) -> tuple[float, float, float, float]:
    """Left, bottom, width, height as shares of the page."""
    left = _EDGE_MM + column * (_PANEL_MM + _GAP_MM)
    top = _HEAD_MM + row * (_PANEL_MM + _GAP_MM)
    width, height = PAGE_MM
    return left / width, 1 - (top + _PANEL_MM) / height, _PANEL_MM / width, _PANEL_MM / height


def _draw_table(page: Axes, rows: Sequence[Row], top: float) -> float:
    """Return where it ends."""
    left, volume, usual, verdict = _TABLE_LEFT_MM, 44.0, 66.0, 70.0
    row_mm = min(_ROW_MM, _TABLE_MM / max(len(rows), 1))
    for x, title, ha in (
        (8.5, "structure", "left"),
        (volume, "cm³", "right"),
        (usual, "usual cm³", "right"),
        (verdict, "volume", "left"),
        (_RIGHT_MM - left, "finding", "right"),
    ):
        _write(page, left + x, top, title, size=_SMALL, color=_FAINT, ha=ha)
    _rule(page, left, _RIGHT_MM, top + row_mm / 2)
    for number, row in enumerate(rows, start=1):
        y = top + number * row_mm
        is_missing, is_odd = row.volume_cm3 is None, row.verdict in _MARKS
        ink, weight = (_FAINT if is_missing else _RED if is_odd else _INK), "bold" if is_odd else "normal"
        if row.volume_cm3 is not None and row.is_organ:
            swatch = Rectangle(
                (left, y - 1.5), 6, 3, facecolor=colour(row.colour_rgb), edgecolor=_INK, linewidth=0.4
            )
            page.add_patch(swatch)
        if row.volume_cm3 is not None:
            _write(page, left + volume, y, volume_text(row.volume_cm3), color=ink, weight=weight, ha="right")
        name = shortened(row.name, _TEXT, (volume - 8.5 - _NUMBER_MM) * _POINTS_PER_MM, weight)
        _write(page, left + 8.5, y, name, color=ink, weight=weight)
        if row.usual_cm3:
            limits = " – ".join(volume_text(limit) for limit in row.usual_cm3)
            _write(page, left + usual, y, limits, color=_FAINT, ha="right")
        word = _MARKS.get(row.verdict, row.verdict)
        shade = ink if is_odd else _RED if is_missing else _FAINT
        _write(page, left + verdict, y, word, color=shade, weight=weight)
        room = (_RIGHT_MM - left - verdict - 15) * _POINTS_PER_MM
        notes = shortened(", ".join(map(str, row.notes)), _TEXT, room, "bold")
        _write(page, _RIGHT_MM, y, notes, weight="bold", ha="right")
    bottom = top + (len(rows) + 0.6) * row_mm
    _rule(page, left, _RIGHT_MM, bottom)
    return bottom


def _draw_findings(page: Axes, summary: str, entries: Sequence[tuple[str, str, str]], top: float) -> None:
    """The summary, then every entry with its badge, the badge's colour and its text; what has no room is counted.

    Findings come first, the gravest before the others.
    """
    y = top
    room = (_RIGHT_MM - _TABLE_LEFT_MM) * 0.88 * _POINTS_PER_MM  # bold letters are wider
    for line in wrapped(summary, _SMALL, room):
        _write(page, _TABLE_LEFT_MM, y, line, size=_SMALL, weight="bold")
        y += _LINE_MM
    y += 0.8
    for number, (badge, color, text) in enumerate(entries, start=1):
        lines = wrapped(text, _SMALL, (_RIGHT_MM - _TABLE_LEFT_MM - 19) * 0.98 * _POINTS_PER_MM)
        rest = len(entries) - number
        if y + len(lines) * _LINE_MM > _FOOT_MM - 4 - (_LINE_MM if rest else 0):
            _write(
                page, _TABLE_LEFT_MM, y, f"and {rest + 1} more in the job's record", size=_SMALL, color=_RED
            )
            return
        _write(page, _TABLE_LEFT_MM + 3.5, y, f"{number}", size=_SMALL, weight="bold", ha="right")
        _write(page, _TABLE_LEFT_MM + 5, y, badge, size=6, weight="bold", color=color)
        for line in lines:
            _write(page, _TABLE_LEFT_MM + 19, y, line, size=_SMALL)
            y += _LINE_MM
        y += 0.5


def _summary(rows: Sequence[Row], findings: Sequence[Finding] | None) -> str:
    missing = [row.name for row in rows if row.volume_cm3 is None]
    if missing:
        sentences = [f"Not found: {', '.join(missing)}."]
    else:
        sentences = ["All structures were found."] if rows else ["There are no structures."]
    if findings is None:
        sentences.append("The automatic checks did not run.")
    elif not findings:
        sentences.append("The automatic checks found nothing; that is no review.")
    return " ".join(sentences)


def _draw_foot(page: Axes, *, has_ranges: bool) -> None:
    words = (
        "Axial and coronal sections show the patient's right side at the left. Window −160 to 240 HU. "
        "“Cut off”: the organ reaches the image's first or last slice."
    )
    if has_ranges:
        words += " Usual volumes are the reference ranges kept with the model."
    for number, line in enumerate(wrapped(words, 6.5, 0.98 * 3 * _PANEL_MM * _POINTS_PER_MM)):
        _write(page, _EDGE_MM, _FOOT_MM + number * _LINE_MM, line, size=6.5, color=_FAINT)
    y = _FOOT_MM + _LINE_MM
    for left, label, right in (
        (_TABLE_LEFT_MM, "Reviewed by", _TABLE_LEFT_MM + 62),
        (_TABLE_LEFT_MM + 66, "Date", _RIGHT_MM),
    ):
        _write(page, left, y, label, size=_SMALL)
        _rule(page, left + (18 if "by" in label else 8), right, y + 1)
