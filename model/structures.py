"""The organs: TG-263 name, SNOMED CT code, laterality, colour, contouring tolerance and mirror partner.

The order of `STRUCTURES` is the order of the network's channels, of ROI numbers and of every table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches


@dataclass(frozen=True)
class Code:
    """A coded concept as in PS3.3 Table 8.8-1: value, scheme designator and meaning."""

    value: str
    scheme_designator: str
    meaning: str


LEFT = Code("7771000", "SCT", "Left")
RIGHT = Code("24028007", "SCT", "Right")
ORGAN_CATEGORY = Code("123037004", "SCT", "Anatomical Structure")


@dataclass(frozen=True)
class Structure:
    """One organ at risk.

    Attributes
    ----------
    name
        Name by AAPM TG-263, at most 16 characters; also the ROI Name.
    code
        SNOMED CT concept of the organ, without its side, as in the DICOM context groups (CID 7151, 8134).
        TG-263's own map names other concepts for the brainstem and the submandibular gland; DICOM's are used.
        The cochlea is in no context group (they hold only the inner ear); its SNOMED CT concept is used as
        the groups are extensible.
    laterality
        `LEFT`, `RIGHT`, or None for an organ of the midline.
    colour_rgb
        Fixed display colour, 0 to 255; a right organ is the paler relative of its left partner.
    tolerance_mm
        Tolerance of the surface Dice coefficient: what two careful observers differ by
        (Nikolov et al. 2021, arXiv 1809.04430).
    mirror
        Name of the partner on the other side; the organ's own name on the midline.
    fma
        Identifier in the Foundational Model of Anatomy, by which some planning systems code structures.
    """

    name: str
    code: Code
    laterality: Code | None
    colour_rgb: tuple[int, int, int]
    tolerance_mm: float
    mirror: str
    fma: int

    @property
    def fma_code(self) -> Code:
        """The FMA's concept, which includes the side: `Left parotid gland`."""
        meaning = (
            f"{self.laterality.meaning} {self.code.meaning.lower()}" if self.laterality else self.code.meaning
        )
        return Code(str(self.fma), "FMA", meaning)


def _midline(
    name: str, snomed: str, meaning: str, colour_rgb: tuple[int, int, int], tolerance_mm: float, fma: int
) -> Structure:
    return Structure(name, Code(snomed, "SCT", meaning), None, colour_rgb, tolerance_mm, name, fma)


def _pair(
    stem: str,
    snomed: str,
    meaning: str,
    colours_rgb: tuple[tuple[int, int, int], tuple[int, int, int]],
    tolerance_mm: float,
    fma: tuple[int, int],
) -> tuple[Structure, Structure]:
    """Left and right organ of one kind; colours and FMA identifiers as (left, right)."""
    code = Code(snomed, "SCT", meaning)
    left, right = f"{stem}_L", f"{stem}_R"
    return (
        Structure(left, code, LEFT, colours_rgb[0], tolerance_mm, right, fma[0]),
        Structure(right, code, RIGHT, colours_rgb[1], tolerance_mm, left, fma[1]),
    )


STRUCTURES: tuple[Structure, ...] = (
    _midline("Brain", "12738006", "Brain", (226, 150, 178), 1.01, 50801),
    _midline("Brainstem", "119238007", "Brain stem", (178, 92, 255), 2.50, 79876),
    *_pair("Cochlea", "80169004", "Cochlea", ((255, 0, 204), (255, 146, 240)), 1.25, (60203, 60202)),
    *_pair(
        "Glnd_Lacrimal", "13561001", "Lacrimal gland", ((140, 176, 0), (206, 255, 80)), 2.50, (59103, 59102)
    ),
    *_pair("Lens", "78076003", "Lens", ((255, 32, 72), (255, 140, 132)), 0.98, (58243, 58242)),
    *_pair("Lung", "39607008", "Lung", ((176, 112, 64), (206, 170, 130)), 2.97, (7310, 7309)),
    _midline("Bone_Mandible", "91609006", "Mandible", (250, 228, 170), 1.01, 52748),
    *_pair("OpticNrv", "18234004", "Optic nerve", ((0, 190, 190), (150, 252, 238)), 2.50, (50878, 50875)),
    *_pair("Eye", "81745001", "Eye", ((0, 116, 255), (104, 196, 255)), 1.65, (12515, 12514)),
    *_pair("Parotid", "45289007", "Parotid gland", ((255, 118, 0), (255, 184, 84)), 2.85, (59798, 59797)),
    _midline("SpinalCanal", "61853006", "Vertebral canal", (140, 150, 240), 1.17, 9680),
    _midline("SpinalCord", "2748008", "Spinal cord", (255, 236, 0), 2.93, 7647),
    *_pair(
        "Glnd_Submand",
        "54019009",
        "Submandibular gland",
        ((0, 178, 84), (126, 240, 150)),
        2.02,
        (59803, 59802),
    ),
)
"""The 21 organs that are contoured and sent."""

EXTRA_STRUCTURES: tuple[Structure, ...] = (
    _midline("Larynx", "4596009", "Larynx", (170, 170, 170), 2.50, 55097),
    _midline("Esophagus", "32849002", "Esophagus", (120, 90, 60), 2.50, 7131),
)
"""Learned beside the 21 because training data have them; never sent by default."""

_OFFERED = {each.name: each for each in STRUCTURES + EXTRA_STRUCTURES}

OTHER_PROTOCOLS: tuple[Structure, ...] = tuple(
    replace(_OFFERED[name], name=f"{name}^Clin", mirror=f"{_OFFERED[name].mirror}^Clin")
    for name in ("SpinalCord", "Brainstem", "Bone_Mandible", "Parotid_L", "Parotid_R")
)
"""Organs of the 21 as others draw them, learned by outputs of their own and never offered.

On the same patients the clinics of OpenKBP draw a cord a third larger than the protocol of the 21 organs does, a
mandible and a brainstem a tenth larger, and other parotids: one output would learn an organ between both. What
follows `^` is the qualifier that TG-263 leaves to whoever names.
"""

_BY_NAME = _OFFERED | {each.name: each for each in OTHER_PROTOCOLS}


TYPICAL_CM3: Mapping[str, float] = {
    "Brain": 1387, "Brainstem": 27.2, "Cochlea": 0.07, "Glnd_Lacrimal": 0.6, "Lens": 0.2, "Lung": 690,
    "Bone_Mandible": 59.4, "OpticNrv": 0.75, "Eye": 8.6, "Parotid": 30.6, "SpinalCanal": 63.9, "SpinalCord": 19.0,
    "Glnd_Submand": 9.5, "Larynx": 25.1, "Esophagus": 11.7,
}  # fmt: skip
"""Mean volume of each organ without its side, over the 35 planning CTs of deepmind/tcia-ct-scan-dataset.

Larynx and oesophagus: as contoured in 74 and 51 training cases of OpenKBP, the oesophagus in part."""


def unqualified(name: str) -> str:
    """The organ of which `OTHER_PROTOCOLS` has another drawing; any other name as it is."""
    return name.partition("^")[0]


def typical_cm3(name: str) -> float:
    """Mean volume of an organ, on whichever side and by whichever protocol."""
    return TYPICAL_CM3[unqualified(name).removesuffix("_L").removesuffix("_R")]


def structure(name: str) -> Structure:
    """Look up an organ by its TG-263 name.

    Raises
    ------
    ValueError
        If no organ has this name; the message offers the nearest names.
    """
    return _look_up(name, _BY_NAME)


def offered_structure(name: str) -> Structure:
    """Look up an organ that may be asked for, which those of `OTHER_PROTOCOLS` may not; else as `structure`."""
    return _look_up(name, _OFFERED)


def _look_up(name: str, known: Mapping[str, Structure]) -> Structure:
    found = known.get(name)
    if found is None:
        nearest = get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"nearest: {', '.join(nearest)}" if nearest else f"known: {', '.join(known)}"
        raise ValueError(f"no structure is called {name!r}; {hint}")
    return found
