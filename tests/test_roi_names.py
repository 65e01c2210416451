"""Names of ROIs: every language to TG-263, and nothing that is not the organ itself."""

import tomllib
from pathlib import Path

import pytest

from model.structures import EXTRA_STRUCTURES, STRUCTURES
from training.roi_names import TABLE, NameTableError, load_names

NAMES = load_names()


@pytest.mark.parametrize("organ", [each.name for each in STRUCTURES + EXTRA_STRUCTURES])
def test_every_organ_is_found_by_its_own_name(organ: str) -> None:
    """TG-263 names stand for themselves, also in capitals and with blanks."""
    assert {
        NAMES.map(organ).organ,
        NAMES.map(organ.upper()).organ,
        NAMES.map(organ.replace("_", " ")).organ,
    } == {organ}


@pytest.mark.parametrize(
    ("name", "organ"),
    [
        ("L Parotid", "Parotid_L"),
        ("parotid gland, rt", "Parotid_R"),
        ("LtParotid", "Parotid_L"),
        ("PAROTIDLT", "Parotid_L"),
        ("Parotis li.", "Parotid_L"),
        ("Parotis re", "Parotid_R"),
        ("Ohrspeicheldrüse links", "Parotid_L"),
        ("Parotide_G", "Parotid_L"),
        ("Parotide droite", "Parotid_R"),
        ("Parotide sx", "Parotid_L"),
        ("Ghiandola parotide dx", "Parotid_R"),
        ("Parótida izquierda", "Parotid_L"),
        ("PAROTIDA_D", "Parotid_R"),
        ("oorspeekselklier rechts", "Parotid_R"),
        ("Nerf optique gauche", "OpticNrv_L"),
        ("N. opticus re.", "OpticNrv_R"),
        ("Nerf_G_optique", "OpticNrv_L"),
        ("OpticNerveL", "OpticNrv_L"),
        ("Optic-Nerve-Rt", "OpticNrv_R"),
        ("Optic_Nerve_Rt", "OpticNrv_R"),
        ("Œil droit", "Eye_R"),
        ("oog links", "Eye_L"),
        ("Linse li", "Lens_L"),
        ("Cristallin D", "Lens_R"),
        ("Tränendrüse rechts", "Glnd_Lacrimal_R"),
        ("Traenendruese links", "Glnd_Lacrimal_L"),
        ("Lacrimal-Lt", "Glnd_Lacrimal_L"),
        ("SMG_L", "Glnd_Submand_L"),
        ("Submandibular-Rt", "Glnd_Submand_R"),
        ("Ghiandola sottomandibolare destra", "Glnd_Submand_R"),
        ("Spinal Cord", "SpinalCord"),
        ("Rückenmark", "SpinalCord"),
        ("Rueckenmark", "SpinalCord"),
        ("MOELLE EPINIERE", "SpinalCord"),
        ("midollo spinale", "SpinalCord"),
        ("Medula", "SpinalCord"),
        ("ruggenmerg", "SpinalCord"),
        ("Spinal-Canal", "SpinalCanal"),
        ("canal médullaire", "SpinalCanal"),
        ("Brain Stem", "Brainstem"),
        ("tronc cérébral", "Brainstem"),
        ("Unterkiefer", "Bone_Mandible"),
        ("Speiseroehre", "Esophagus"),
        ("Lunge links", "Lung_L"),
        ("Kehlkopf", "Larynx"),
    ],
)  # fmt: skip
def test_a_name_in_any_language_is_its_organ(name: str, organ: str) -> None:
    """Spelling, language, and where the side stands make no difference."""
    assert NAMES.map(name).organ == organ


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("SpinalCord_PRV05", "prv"),
        ("PRV_Brainstem", "prv"),
        ("Parotid_L_OPT", "opt"),
        ("opt Parotis li", "opt"),
        ("Ring_Brain", "ring"),
        ("Parotid_L-PTV", "ptv"),
        ("Parotid L minus PTV70", "minus"),
        ("Brainstem_auto", "auto"),
        ("zBrainstem", "TG-263"),
        ("_Brainstem", "TG-263"),
        ("~Brain", "TG-263"),
        ("Parotid_L+3", "character"),
        ("Brain*", "character"),
        ("Cord 5mm", "not in the table"),
        ("Parotid_L2", "not in the table"),
        ("Eye_L-Lens_L", "not in the table"),
        ("Parotids", "not in the table"),
        ("Parotid_L_R", "not in the table"),
        ("Brain_L", "not in the table"),
        ("Orbit_L", "not in the table"),
        ("Parotid", "no side"),
        ("GTV Parotid_L", "gtv"),
        ("", "character"),
    ],
)
def test_what_is_not_the_organ_itself_is_never_mapped(name: str, why: str) -> None:
    """Margins, helpers, unions, parts and names without a side have a reason and no organ."""
    mapped = NAMES.map(name)
    assert mapped.organ is None
    assert why in mapped.reason


def test_every_synonym_of_the_table_is_found() -> None:
    """No entry is dead: none is hidden by a word that makes a name another volume."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    lost = [
        (language, name)
        for kind, end in (("midline", ""), ("paired", "_L"))
        for organ, synonyms in table[kind].items()
        for language, names in synonyms.items()
        for name in names
        if NAMES.map(name + end).organ != organ + end
    ]
    assert not lost


def test_side_words_count_in_their_own_language_only() -> None:
    """A letter that is a side in one language says nothing behind a word of another."""
    assert NAMES.map("Parotis g").organ is None
    assert NAMES.map("Linse s").organ is None
    assert NAMES.map("Sehnerv d").organ is None


def test_a_clinic_adds_its_own_names_and_forbids_others(tmp_path: Path) -> None:
    """The own table is exact and stands above the synonyms."""
    path = tmp_path / "names.toml"
    path.write_text('[names]\n"RM-A" = "SpinalCord"\n"Brain" = ""\n')
    names = load_names(path)

    assert names.map("RM-A").organ == "SpinalCord"
    assert names.map("Brain").organ is None
    assert names.map("Brain Stem").organ == "Brainstem"


def test_a_table_for_an_organ_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    """A slip in the own table is found before anything is packed."""
    path = tmp_path / "names.toml"
    path.write_text('[names]\n"RM" = "Spinal_Cord"\n')

    with pytest.raises(NameTableError, match="Spinal_Cord is none of"):
        load_names(path)
