"""Whether organs lie on the side that their names say: an exchanged pair would teach that left is right."""

from collections.abc import Iterable, Mapping

from model.network_input import lateral_mm
from model.structures import LEFT, structure
from training.packing_report import Report
from training.volumes import Upright

WRONG_SIDE_MM = 15.0
"""An organ of one side whose middle lies this far on the other side of the body's middle is on the wrong side."""


def on_their_side(name: str, upright: Upright, organs: Iterable[str], report: Report) -> list[str]:
    """The organs that lie on the side their name says; the others are reported.

    Of a pair, both are left out if one lies on the wrong side, or the left one to the right of the right one.
    """
    organs = list(organs)
    image_x = upright.image_frame.origin_mm[2]
    middle = image_x - float(lateral_mm(upright.image, upright.image_frame.spacing_mm[2])[0])
    left_mm = {
        organ: upright.middle_left_mm(organ) - middle for organ in organs if structure(organ).laterality
    }
    wrong = {organ: why for organ in left_mm if (why := _why_wrong(organ, left_mm))}
    for organ in left_mm.keys() - wrong.keys():
        partner = structure(organ).mirror
        if partner in wrong:
            wrong[organ] = f"{partner} lies on the wrong side: the names of both may be exchanged"
    for organ, why in wrong.items():
        report.left_out(name, why, organ)
    return [organ for organ in organs if organ not in wrong]


def _why_wrong(organ: str, left_mm: Mapping[str, float]) -> str:
    """Why an organ's name cannot be right, by how far to the left of the body's middle each lies; or empty."""
    this = structure(organ)
    sign = 1 if this.laterality == LEFT else -1
    x = left_mm[organ]
    where = "left" if x > 0 else "right"
    if sign * x <= -WRONG_SIDE_MM:
        return f"it lies {abs(x):.0f} mm to the {where} of the body's middle: the wrong side"
    if this.mirror in left_mm and sign * (x - left_mm[this.mirror]) <= 0:
        return f"it and {this.mirror} lie on exchanged sides"
    return ""
