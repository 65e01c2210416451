"""The table of organs is complete, consistent and distinguishable."""

from itertools import combinations

import numpy as np
import pytest
from pydicom.sr._concepts_dict import concepts

from model.structures import EXTRA_STRUCTURES, LEFT, OTHER_PROTOCOLS, RIGHT, STRUCTURES, structure

EVERYTHING = STRUCTURES + EXTRA_STRUCTURES


def lab(rgb: tuple[int, int, int]) -> np.ndarray:
    """CIELAB (D65) of an sRGB colour of 0 to 255."""
    c = np.asarray(rgb) / 255
    c = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ c / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_there_are_21_organs_in_the_agreed_order():
    assert [each.name for each in STRUCTURES] == [
        "Brain",
        "Brainstem",
        "Cochlea_L",
        "Cochlea_R",
        "Glnd_Lacrimal_L",
        "Glnd_Lacrimal_R",
        "Lens_L",
        "Lens_R",
        "Lung_L",
        "Lung_R",
        "Bone_Mandible",
        "OpticNrv_L",
        "OpticNrv_R",
        "Eye_L",
        "Eye_R",
        "Parotid_L",
        "Parotid_R",
        "SpinalCanal",
        "SpinalCord",
        "Glnd_Submand_L",
        "Glnd_Submand_R",
    ]


def test_names_are_unique_and_fit_planning_systems_that_allow_16_characters():
    names = [each.name.casefold() for each in EVERYTHING]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 16


def test_mirror_partners_are_mutual_and_differ_only_in_side():
    for each in EVERYTHING:
        partner = structure(each.mirror)
        assert partner.mirror == each.name
        assert (partner.code, partner.tolerance_mm) == (each.code, each.tolerance_mm)
        if partner is each:
            assert each.laterality is None
        else:
            assert {each.laterality, partner.laterality} == {LEFT, RIGHT}
            assert each.name.endswith("_L") == (each.laterality == LEFT)


def test_codes_are_those_of_the_dicom_context_groups():
    """Each SNOMED CT value stands in a DICOM context group; only the cochlea's does not."""
    grouped = {
        value
        for values in concepts["SCT"].values()
        for value, (_, context_groups) in values.items()
        if context_groups
    }
    unknown = {each.name for each in EVERYTHING if each.code.value not in grouped}
    assert unknown == {"Cochlea_L", "Cochlea_R"}
    for each in EVERYTHING:
        assert each.code.scheme_designator == "SCT"
        assert len(each.code.meaning) <= 64


def test_colours_can_be_told_apart_from_each_other_and_from_black():
    """CIELAB distance 20 is far beyond the just noticeable 2.3; left and right differ by more still."""
    labs = {each.name: lab(each.colour_rgb) for each in EVERYTHING}
    for (a, lab_a), (b, lab_b) in combinations(labs.items(), 2):
        assert np.linalg.norm(lab_a - lab_b) > (24 if structure(a).mirror == b else 20), (a, b)
    assert min(labs[each.name][0] for each in STRUCTURES) > 45


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="Parotid_L"):
        structure("parotid_l")
    with pytest.raises(ValueError, match="known: Brain"):
        structure("###")


def test_a_known_name_is_found():
    assert structure("Larynx") is EXTRA_STRUCTURES[0]


def test_an_organ_by_another_protocol_is_that_organ_in_all_but_its_name() -> None:
    """What follows `^` qualifies the name of one of the 21; it takes no channel of theirs."""
    for each in OTHER_PROTOCOLS:
        drawn_for = structure(each.name.partition("^")[0])
        assert drawn_for in STRUCTURES
        assert (each.code, each.laterality, each.fma) == (drawn_for.code, drawn_for.laterality, drawn_for.fma)
        assert each.mirror == each.name or each.laterality is not None
        assert each not in EVERYTHING
