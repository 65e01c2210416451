"""A site's template: what it may say, what is refused and how, what becomes of masks, and what Eclipse exports."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from daemon.config import Route
from daemon.derivation import Margin
from daemon.destination_profile import PROFILES
from daemon.eclipse_template import as_toml, read_eclipse_template
from daemon.errors import ConfigError
from daemon.structure_template import (
    DEFAULT_TEMPLATE,
    InterpretedType,
    apply_template,
    left_out,
    template_of,
    unreached_slices,
)
from daemon.template_checks import notes
from daemon.template_file import load_template
from model.derived import expand
from model.geometry import Mask
from model.structures import OTHER_PROTOCOLS, STRUCTURES, structure
from tests.paths import REPOSITORY
from tests.phantom import make_grid
from tests.structure_set_samples import NOT_FOUND, organ_masks

GRID = make_grid()
EXAMPLE = REPOSITORY / "systemd" / "templates" / "head-and-neck.toml"


@pytest.fixture
def load(tmp_path):
    """Load a template of these lines after its name."""

    def loaded(*lines: str):
        path = tmp_path / "site.toml"
        path.write_text("\n".join(['name = "Site"', *lines]), encoding="utf-8")
        return load_template(path)

    return loaded


@pytest.fixture
def problems(load):
    """What is wrong with a template of these lines."""

    def found(*lines: str) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as refused:
            load(*lines)
        return refused.value.problems

    return found


def organ(name: str, *more: str) -> list[str]:
    return ["[[structures]]", f'organ = "{name}"', *more]


# What a template says


def test_the_default_is_the_21_organs_in_their_order_by_tg_263():
    assert [line.name for line in DEFAULT_TEMPLATE.structures] == [each.name for each in STRUCTURES]
    assert [line.number for line in DEFAULT_TEMPLATE.structures] == list(range(1, 22))
    assert {line.interpreted_type for line in DEFAULT_TEMPLATE.structures} == {InterpretedType.ORGAN}
    assert DEFAULT_TEMPLATE.organs == tuple(each.name for each in STRUCTURES)


def test_a_choice_of_organs_keeps_their_numbers():
    chosen = template_of(["Parotid_R", "Larynx", "Brain"])
    assert [(line.number, line.name) for line in chosen.structures] == [
        (1, "Brain"),
        (17, "Parotid_R"),
        (22, "Larynx"),
    ]


@pytest.mark.parametrize("organ", OTHER_PROTOCOLS, ids=lambda organ: organ.name)
def test_what_is_learned_and_never_offered_cannot_be_asked_for(organ):
    with pytest.raises(ValueError, match="no structure is called"):
        template_of([organ.name])
    with pytest.raises(ValueError, match="no structure is called"):
        Route(destinations=("tps",), structures=(organ.name,))


def test_a_line_that_says_only_an_organ_has_its_usual_name_colour_type_and_codes(load):
    (line,) = load(*organ("Eye_L")).structures
    eye = structure("Eye_L")
    assert (line.name, line.colour_rgb, line.interpreted_type) == ("Eye_L", eye.colour_rgb, "ORGAN")
    assert (line.codes.snomed, line.codes.laterality) == (eye.code, eye.laterality)
    assert (line.codes.fma.value, line.codes.fma.meaning) == ("12515", "Left eye")


def test_everything_can_be_the_sites_own(load):
    (line,) = load(
        *organ("Eye_L", 'name = "Auge li"', 'synonyms = ["Oculus sin"]', 'colour = "#0102ff"'),
        'type = "AVOIDANCE"',
        'code = { value = "EYE1", scheme = "99SITE", meaning = "Left eye" }',
    ).structures
    assert (line.name, line.synonyms, line.colour_rgb) == ("Auge li", ("Oculus sin",), (1, 2, 255))
    assert line.interpreted_type is InterpretedType.AVOIDANCE
    assert line.codes.site.value == "EYE1"


def test_numbers_follow_the_order_of_the_file(load):
    template = load(*organ("SpinalCord"), *organ("Brain"))
    assert [(line.number, line.name) for line in template.structures] == [(1, "SpinalCord"), (2, "Brain")]


def test_organs_that_are_only_sources_are_wanted_from_the_network_too(load):
    template = load(
        *organ("Brain"), "[[structures]]", 'name = "Parotids"', 'union = ["Parotid_R", "Parotid_L"]'
    )
    assert template.organs == ("Brain", "Parotid_L", "Parotid_R")


def test_a_derived_structure_is_darker_than_its_source_and_not_an_organ(load):
    template = load(
        *organ("SpinalCord"), "[[structures]]", 'name = "PRV"', 'margin = { of = "SpinalCord", mm = 5 }'
    )
    cord, prv = template.structures
    assert all(dark <= bright for dark, bright in zip(prv.colour_rgb, cord.colour_rgb, strict=True))
    assert prv.colour_rgb != cord.colour_rgb
    assert (prv.interpreted_type, prv.organ) == (InterpretedType.AVOIDANCE, None)


def test_a_derived_structure_is_darker_than_its_source_that_is_not_written_too(load):
    template = load("[[structures]]", 'name = "PRV"', 'margin = { of = "SpinalCord", mm = 5 }')

    cord = structure("SpinalCord").colour_rgb
    assert template.structures[0].colour_rgb == tuple(round(0.6 * value) for value in cord)


def test_structures_derived_from_one_another_or_from_the_same_all_differ_in_colour(load):
    margin = '[[structures]]\nname = "{}"\nmargin = {{ of = "{}", mm = {} }}'.format
    template = load(
        margin("PRV_of_PRV", "PRV5", 2),  # before what it is derived from
        margin("PRV5", "SpinalCord", 5),
        margin("PRV3", "SpinalCord", 3),
        *organ("SpinalCord"),
    )
    colours = {line.name: np.array(line.colour_rgb) for line in template.structures}
    cord = np.array(structure("SpinalCord").colour_rgb)
    for name, share in (("PRV5", 0.6), ("PRV_of_PRV", 0.36), ("PRV3", 0.216)):
        assert np.allclose(colours[name], share * cord, atol=1.5)


def test_structures_derived_in_a_circle_are_refused(problems):
    margin = '[[structures]]\nname = "{}"\nmargin = {{ of = "{}", mm = 1 }}'.format
    assert problems(margin("A", "B"), margin("B", "A"))


def test_where_slices_are_unevenly_spaced_a_margin_may_end_before_the_next_one_in_a_part(load):
    template = load(
        *organ("SpinalCord"), "[[structures]]", 'name = "PRV"', 'margin = { of = "SpinalCord", mm = 3 }'
    )
    uneven = make_grid(offsets_mm=np.array([*range(0, 20, 2), *range(20, 41, 5)], float), size=(9, 9))
    (sentence,) = unreached_slices(template, uneven)
    assert sentence == (
        "PRV (SpinalCord + 3 mm): no other slice lies within 3 mm superior and 3 mm inferior at 4 of 14 places, "
        "as slices are 5 mm apart"
    )
    assert not list(unreached_slices(template, make_grid(offsets_mm=np.arange(0, 20, 2.0), size=(9, 9))))


def test_a_derived_structure_keeps_the_colour_that_it_is_given_whichever_it_is(load):
    grey = load(
        *organ("SpinalCord"),
        *("[[structures]]", 'name = "PRV"', 'margin = { of = "SpinalCord", mm = 5 }', 'colour = "#a0a0a0"'),
    ).structures[1]
    assert grey.colour_rgb == (160, 160, 160)


@pytest.mark.parametrize(
    ("key", "formula"),
    [
        ('margin = { of = "SpinalCord", mm = 5 }', "SpinalCord + 5 mm"),
        (
            'margin = { of = "SpinalCord", mm = { left = 2.5, superior = 4 } }',
            "SpinalCord + 2.5 mm left, 4 mm superior",
        ),
        ('union = ["Parotid_L", "Parotid_R"]', "Parotid_L or Parotid_R"),
        ('intersection = ["Brain", "Eye_L"]', "Brain and Eye_L"),
        ('subtract = { from = "Brain", what = ["Brainstem", "Eye_L"] }', "Brain minus Brainstem, Eye_L"),
        (
            'crop = { of = "Parotid_L", away_from = ["Bone_Mandible"], mm = 3 }',
            "Parotid_L, 3 mm away from Bone_Mandible",
        ),
    ],
)
def test_every_derivation_reads_as_a_formula(load, key, formula):
    (line,) = load("[[structures]]", 'name = "X"', key).structures
    assert str(line.derivation) == formula


def test_the_example_is_a_sound_template_that_fits_every_profile():
    template = load_template(EXAMPLE)
    assert len(template.structures) == 12
    assert not [remark for profile in PROFILES.values() for remark in notes(template, profile)]


def test_a_derived_structure_may_name_both_sides_or_what_is_cut_away(load):
    lines = load(
        *("[[structures]]", 'name = "Parotids L+R"', 'union = ["Parotid_L", "Parotid_R"]'),
        *("[[structures]]", 'name = "Lung_L_minus_R"', 'subtract = { from = "Lung_L", what = ["Lung_R"] }'),
        *("[[structures]]", 'name = "Cord_R"', 'subtract = { from = "SpinalCord", what = ["Lung_L"] }'),
    ).structures

    assert len(lines) == 3


# What is refused


def test_every_problem_is_told_with_its_file_line_and_key(problems):
    found = problems(
        *organ("parotid_l"), *organ("Eye_L", 'farbe = "#000000"'), *organ("Eye_R", 'colour = "red"')
    )
    assert [problem.partition(": ")[2].partition(":")[0] for problem in found] == [
        "line 3, [[structures]] organ",
        "line 6, [[structures]] farbe",
        "line 9, [[structures]] colour",
    ]
    assert all("site.toml" in problem for problem in found)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (organ("Parotis_L"), "nearest: Parotid_L"),
        (organ("SpinalCord^Clin"), "no structure is called 'SpinalCord^Clin'; nearest: SpinalCord"),
        (organ("Eye_L", 'synonymes = ["x"]'), 'did you mean "synonyms"'),
        (organ("Brain") + organ("Eye_L", 'name = "BRAIN"'), '"BRAIN" also stands for structure 1, Brain'),
        (
            organ("Brain", 'name = "B"') + organ("Eye_L", 'synonyms = ["b"]'),
            '"b" also stands for structure 1, B',
        ),
        (organ("Brain") + organ("Brain", 'name = "Brain2"'), "Brain is also structure 1, Brain"),
        (organ("Eye_L", 'name = "Eye_R"'), "TG-263's name of Eye_R, and this structure is Eye_L"),
        (organ("Eye_L", 'name = "right eye"'), '"right eye" says right, and the organ is Eye_L'),
        (organ("Eye_R", 'synonyms = ["Oculus L"]'), '"Oculus L" says left, and the organ is Eye_R'),
        (organ("Eye_L", 'name = "Auge_rechts"'), '"Auge_rechts" says right, and the organ is Eye_L'),
        (organ("Eye_R", 'name = "Auge li"'), '"Auge li" says left, and the organ is Eye_R'),
        (organ("Parotid_R", 'name = "Parotide gauche"'), "says left, and the organ is Parotid_R"),
        (organ("Parotid_L", 'synonyms = ["Parotide dx"]'), "says right, and the organ is Parotid_L"),
        (organ("Parotid_L", 'name = "ParotisR"'), "says right, and the organ is Parotid_L"),
        (["[[structures]]", 'name = "Lens_L"', 'union = ["Eye_L", "Eye_R"]'], "this structure is derived"),
        (
            ["[[structures]]", 'name = "Parotid_R_PRV05"', 'margin = { of = "Parotid_L", mm = 5 }'],
            '"Parotid_R_PRV05" says right, and what it is made from is left',
        ),
        (
            ["[[structures]]", 'name = "Lens Rt"', 'subtract = { from = "Lens_L", what = ["Eye_R"] }'],
            "what it is made from is left",
        ),
        (
            [
                *("[[structures]]", 'name = "Grown"', 'margin = { of = "Eye_R", mm = 3 }'),
                *(
                    "[[structures]]",
                    'name = "left ring"',
                    'crop = { of = "Grown", away_from = ["Eye_R"], mm = 1 }',
                ),
            ],
            '"left ring" says left, and what it is made from is right',
        ),
        (organ("Eye_L", 'name = "Augenhöhle"'), "must be printable ASCII"),
        (organ("Eye_L", 'name = "a\\\\b"'), "without backslash"),
        (organ("Eye_L", f'name = "{"x" * 65}"'), "at most 64 characters"),
        (organ("Eye_L", 'type = "PTV"'), "must be 'ORGAN', 'AVOIDANCE', 'CAVITY' or 'CONTROL'"),
        (organ("Eye_L", "colour = [0, 0, 256]"), "less than or equal to 255"),
        (organ("Eye_L", 'colour = "#12345"'), 'must be like "#ffec00"'),
        (organ("Eye_L", 'union = ["Eye_R", "Brain"]'), "needs an organ, or exactly one of margin, union"),
        (["[[structures]]", 'name = "X"'], "needs an organ, or exactly one of margin, union"),
        (["[[structures]]", 'union = ["Eye_R", "Eye_L"]'], "name is missing"),
        (["[[structures]]", 'name = "X"', 'union = ["Eye_R"]'], "needs 2 or more entries"),
        (
            ["[[structures]]", 'name = "X"', 'margin = { of = "Brain", mm = -1 }'],
            "must be 0 to 100 mm, found -1",
        ),
        (["[[structures]]", 'name = "X"', 'margin = { of = "Brain", off = 1 }'], 'did you mean "of"'),
        (
            ["[[structures]]", 'name = "X"', 'margin = { of = "Brainn", mm = 1 }'],
            'no structure is called "Brainn"; did you mean "Brain"',
        ),
        (
            ["[[structures]]", 'name = "X"', 'margin = { of = "X", mm = 1 }'],
            "derived from itself: X from X",
        ),
        (
            [
                *("[[structures]]", 'name = "X"', 'margin = { of = "Y", mm = 1 }'),
                *("[[structures]]", 'name = "Y"', 'union = ["Brain", "X"]'),
            ],
            "derived from itself: ",
        ),
        ([], "[structures]: is missing"),
        (["structures = []"], "needs 1 or more entries"),
        (["[[structures]"], "not TOML"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_needed(problems, lines, expected):
    assert expected in "\n".join(problems(*lines))


def test_a_template_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot read the file"):
        load_template(tmp_path / "none.toml")


# What becomes of masks


def test_every_organ_of_the_template_becomes_a_roi_found_or_not():
    masks = organ_masks(GRID)
    rois = apply_template(template_of([*masks, "Eye_L"]), masks, GRID)
    assert [roi.name for roi in rois] == [line.name for line in template_of([*masks, "Eye_L"]).structures]
    for roi in rois:
        assert roi.is_found == (roi.name not in {NOT_FOUND, "Eye_L"})
        assert roi.mask.shape == GRID.shape
    assert rois[0].mask is masks["Brain"]


def test_a_site_name_changes_nothing_of_the_mask(load):
    (roi,) = apply_template(load(*organ("Parotid_L", 'name = "Parotis li"')), organ_masks(GRID), GRID)
    assert (roi.name, roi.organ) == ("Parotis li", "Parotid_L")
    assert roi.is_found


def test_a_derived_structure_without_one_of_its_sources_is_left_out_and_that_is_said(load):
    """A union of what was found alone would look complete."""
    template = load("[[structures]]", 'name = "Both"', f'union = ["Parotid_L", "{NOT_FOUND}"]')
    (roi,) = apply_template(template, organ_masks(GRID), GRID)
    assert not roi.is_found
    assert roi.missing == (NOT_FOUND,)
    assert list(left_out([roi])) == [
        f"Both (Parotid_L or {NOT_FOUND}) is left out: {NOT_FOUND} was not found"
    ]


def test_derived_structures_may_stand_before_what_they_are_derived_from(load):
    """By the site's names, and by TG-263 for organs that are not written themselves."""
    masks = organ_masks(GRID)
    template = load(
        *("[[structures]]", 'name = "PRV"', 'margin = { of = "Myelon", mm = 5 }'),
        *organ("SpinalCord", 'name = "Myelon"'),
        *("[[structures]]", 'name = "PRV2"', 'margin = { of = "Brain", mm = { left = 2 } }'),
    )
    prv, cord, other = apply_template(template, masks, GRID)
    assert (prv.generation, other.generation) == ("Myelon + 5 mm", "Brain + 2 mm left")
    np.testing.assert_array_equal(prv.mask.full(), expand(cord.mask, GRID, Margin.uniform(5)).full())
    np.testing.assert_array_equal(other.mask.full(), expand(masks["Brain"], GRID, Margin(left=2)).full())
    assert prv.mask.count > cord.mask.count


@pytest.mark.parametrize(
    ("key", "combine"),
    [
        ('union = ["Parotid_L", "Brain", "Lens_L"]', lambda left, brain, lens: left | brain | lens),
        ('intersection = ["Big", "Parotid_L"]', lambda left, _brain, _lens: left),
        (
            'subtract = { from = "Big", what = ["Lens_L", "Brain"] }',
            lambda left, brain, lens: left & ~lens & ~brain,
        ),
        ('crop = { of = "Big", away_from = ["Brain"] }', lambda left, brain, lens: (left | lens) & ~brain),
    ],
)
def test_derived_structures_are_what_their_formula_says(load, key, combine):
    """`Big` is derived itself: both the left parotid and the left lens."""
    masks = organ_masks(GRID)
    template = load(
        *("[[structures]]", 'name = "X"', key),
        *("[[structures]]", 'name = "Big"', 'union = ["Parotid_L", "Lens_L"]'),
    )
    made, _ = apply_template(template, masks, GRID)
    left, brain, lens = (masks[name].full() for name in ("Parotid_L", "Brain", "Lens_L"))
    np.testing.assert_array_equal(made.mask.full(), combine(left, brain, lens))


@pytest.mark.parametrize("orientation", ["HFS", "HFP", "FFS"])
def test_a_margin_towards_the_left_grows_to_the_patients_left(load, orientation):
    """Larger x of LPS, whichever way the rows of the image run."""
    template = load("[[structures]]", 'name = "X"', 'margin = { of = "Lens_L", mm = { left = 9 } }')
    grid = make_grid(orientation)
    masks = organ_masks(grid)
    (grown,) = apply_template(template, masks, grid)
    before, after = (x_range(mask, grid) for mask in (masks["Lens_L"], grown.mask))
    assert after[0] == pytest.approx(before[0])
    assert before[1] + 6 < after[1] <= before[1] + 9 + 1e-6


def x_range(mask: Mask, grid) -> tuple[float, float]:
    """Least and largest x of its voxels in LPS mm."""
    slices, rows, columns = np.nonzero(mask.full())
    x = grid.to_patient(int(slices[0]), np.stack([rows, columns], axis=1))[:, 0]
    return x.min(), x.max()


def test_a_derived_structure_of_which_nothing_remains_is_left_out_and_that_is_said(load):
    template = load("[[structures]]", 'name = "X"', 'intersection = ["Parotid_L", "Parotid_R"]')
    (roi,) = apply_template(template, organ_masks(GRID), GRID)
    assert list(left_out([roi])) == ["X (Parotid_L and Parotid_R) is left out: nothing remains of it"]


# Names that a destination cuts


def test_names_that_a_profile_cuts_are_told(load):
    template = load(*organ("Glnd_Submand_L", 'name = "Submandibular_Gland_L"'))
    assert notes(template, PROFILES["eclipse"]) == [
        "Submandibular_Gland_L is called Submandibular_L for eclipse, whose names have 16 characters"
    ]
    assert not notes(template, PROFILES["raystation"])


# Eclipse


def eclipse(folder: Path, *structures: str) -> Path:
    path = folder / "hn.xml"
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?><StructureTemplate Version="1.2">'
        f'<Preview ID="HN" Type="Structure"/><Structures>{"".join(structures)}</Structures></StructureTemplate>',
        encoding="utf-8",
    )
    return path


def eclipse_structure(name: str, kind="Organ", code="", scheme="FMA", colour="Yellow") -> str:
    coded = f'<StructureCode Code="{code}" CodeScheme="{scheme}" CodeSchemeVersion="3.2"/>' if code else ""
    return (
        f'<Structure ID="{name}" Name="{name}"><Identification><VolumeID/><VolumeCode/>'
        f"<VolumeType>{kind}</VolumeType><VolumeCodeTable/>{coded}</Identification>"
        f"<TypeIndex>2</TypeIndex><ColorAndStyle>{colour}</ColorAndStyle></Structure>"
    )


def test_an_eclipse_template_becomes_a_template_that_loads(tmp_path):
    path = eclipse(
        tmp_path,
        eclipse_structure("Parotis li", code="59798", colour="RGB255  7  0"),
        eclipse_structure("BRAIN", kind="Avoidance"),
        eclipse_structure("SpinalCord", code="CORD", scheme="99VMS_STRUCTCODE", colour="RGB 1 2 3"),
    )
    site = tmp_path / "site.toml"
    site.write_text(as_toml(read_eclipse_template(path), "HN"), encoding="utf-8")
    parotid, brain, cord = load_template(site).structures
    assert (parotid.organ.name, parotid.name, parotid.colour_rgb) == ("Parotid_L", "Parotis li", (255, 7, 0))
    assert (brain.organ.name, brain.name, brain.interpreted_type) == ("Brain", "BRAIN", "AVOIDANCE")
    assert brain.colour_rgb == structure("Brain").colour_rgb
    assert (cord.codes.site.value, cord.codes.site.scheme_designator) == ("CORD", "99VMS_STRUCTCODE")
    assert cord.colour_rgb == (1, 2, 3)


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (eclipse_structure("Myelon"), "no organ's in TG-263, and it has no code"),
        (eclipse_structure("Myelon", code="1234"), "nor its code FMA 1234"),
        (eclipse_structure("Parotid_L", code="59797"), "is Parotid_L by name and Parotid_R by its FMA code"),
        (eclipse_structure("Parotid_L", code="1234"), "its FMA code 1234 is another one's"),
        (eclipse_structure("SpinalCord_PRV", code="7647"), "by its FMA code, but its name has prv"),
        (eclipse_structure("Myelon+5mm", code="7647"), "by its FMA code, but its name has +"),
        (eclipse_structure("Parotid_L-PTV", code="59798"), "by its FMA code, but its name has -"),
        (eclipse_structure("Parotis rechts", code="59798"), "but its name says another side"),
        (eclipse_structure("Rückenmark", code="7647"), "is not of printable ASCII"),
        (eclipse_structure("Brain", kind="PTV"), "is of type PTV, which is not contoured automatically"),
    ],
)
def test_what_is_not_certain_is_listed_and_not_taken_over(tmp_path, xml, reason):
    (found,) = read_eclipse_template(eclipse(tmp_path, xml))
    assert found.organ is None
    assert reason in found.reason
    assert "[[structures]]" not in as_toml([found], "HN")
    assert reason in as_toml([found], "HN")


@pytest.mark.parametrize(
    ("written", "colour"),
    [
        ("RGB255228181", (255, 228, 181)),
        ("RGB  0255  0", (0, 255, 0)),
        ("RGB 64128  0", (64, 128, 0)),
        ("RGB 255  0  0", (255, 0, 0)),
        ("RGB 1 100 100", (1, 100, 100)),
        ("RGB 300 0 0", None),
        ("Segment - Cyan", None),
    ],
)
def test_colours_of_eclipse_have_three_characters_a_number(tmp_path, written, colour):
    (found,) = read_eclipse_template(eclipse(tmp_path, eclipse_structure("Brain", colour=written)))
    assert found.colour_rgb == colour


def test_of_two_structures_for_one_organ_the_one_by_its_name_is_taken_over(tmp_path):
    coded = eclipse_structure("Hirnstamm", code="79876")
    found = read_eclipse_template(eclipse(tmp_path, coded, eclipse_structure("Brainstem", code="79876")))
    assert [(each.name, each.organ is not None) for each in found] == [
        ("Hirnstamm", False),
        ("Brainstem", True),
    ]
    assert found[0].reason == "is Brainstem, as Brainstem is too"


@pytest.mark.parametrize(
    "structure",
    [
        eclipse_structure("PTV", kind="PTV\n[[structures]]\norgan = 'Lens_L'"),
        eclipse_structure("Other", code="1", scheme="99&#10;x = ["),
        eclipse_structure("A&#127;B"),
        eclipse_structure("Brain&#127;", code="50801"),
        eclipse_structure("Lens_R", code="A&#127;", scheme="99VMS_STRUCTCODE"),
    ],
    ids=["a type of many lines", "a scheme of many lines", "DEL", "DEL in an organ", "DEL in a code"],
)
def test_nothing_in_an_eclipse_template_begins_a_line_of_ours(tmp_path, structure):
    """What was not certain stays a comment, and what was stays readable."""
    site = tmp_path / "site.toml"
    found = read_eclipse_template(eclipse(tmp_path, eclipse_structure("SpinalCord"), structure))
    site.write_text(as_toml(found, "HN"), encoding="utf-8")

    told = tomllib.loads(site.read_text(encoding="utf-8"))

    assert [each["organ"] for each in told["structures"]] == [each.organ.name for each in found if each.organ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<a", "not XML"),
        ('<?xml version="1.0" encoding="UTF-77"?><a/>', "not XML: unknown encoding"),
        ('<?xml version="1.0" encoding="UTF-7"?><a/>', "not XML: multi-byte encodings are not supported"),
        ("<a/>", "no Structures/Structure in it"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "declares entities"),
    ],
)
def test_other_files_are_refused(tmp_path, content, expected):
    path = tmp_path / "a.xml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=expected):
        read_eclipse_template(path)


def test_quotes_in_names_survive_as_toml(tmp_path):
    path = eclipse(tmp_path, eclipse_structure("Eye &quot;L&quot;", code="12515"))
    site = tmp_path / "site.toml"
    site.write_text(as_toml(read_eclipse_template(path), 'H"N'), encoding="utf-8")
    template = load_template(site)
    assert (template.name, template.structures[0].name) == ('H"N', 'Eye "L"')
