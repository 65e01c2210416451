"""Profiles: what they say, on whose word, and how they shorten names."""

import re
from dataclasses import fields, replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import Destination
from daemon.contour_data import MAX_VALUE_BYTES
from daemon.destination_profile import PROFILES, UNCONFIRMED, HoleStyle, as_markdown
from daemon.short_names import short_names, shortening_remarks
from daemon.side_words import sides
from model.structures import EXTRA_STRUCTURES, LEFT, RIGHT, STRUCTURES
from tests.paths import REPOSITORY

GENERIC, ECLIPSE = PROFILES["generic"], PROFILES["eclipse"]
TG_263 = [organ.name for organ in STRUCTURES + EXTRA_STRUCTURES]


def test_every_profile_that_may_be_configured_exists():
    assert set(PROFILES) == set(get_args(Destination.model_fields["profile"].annotation))
    assert all(name == profile.name for name, profile in PROFILES.items())


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_value_has_its_evidence(profile):
    described = {field.name for field in fields(profile)} - {"name", "system", "evidence"}
    assert set(profile.evidence) == described
    assert len(profile.rows()) == len(described)
    assert all(evidence.source for evidence in profile.evidence.values())


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_keeps_to_the_standard(profile):
    assert 1 <= profile.max_name_length <= 64
    assert profile.holes in HoleStyle
    longest = len("-999.") + profile.decimals + 1
    assert 3 * profile.max_points * longest <= MAX_VALUE_BYTES + 1


def test_the_document_shows_the_profiles_as_they_are():
    """With what is unconfirmed marked as that."""
    text = (REPOSITORY / "docs" / "profiles.md").read_text(encoding="utf-8")
    assert text.endswith(as_markdown())
    assert text.count(UNCONFIRMED) > 40


# Names


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_tg_263_names_are_never_changed(profile):
    assert short_names(TG_263, profile) == {name: name for name in TG_263}


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Submandibular_Gland_L", "Submandibular_L"),
        ("Submandibular_Gland_R", "Submandibular_R"),
        ("Submandibular gland left", "Submandibul left"),
        ("Glnd_Submand_L_PRV05", "Glnd_Sub_L_PRV05"),
        ("Optic_Chiasm_and_Nerves", "Optic_Chiasm_and"),
        ("Submandibular gland (R)", "Submandibula (R)"),
        ("SubmandibularGlandR", "SubmandibularGlR"),
        ("Glande_parotide_droite", "Glande_pa_droite"),
        ("Unterkieferdruese_rechts", "Unterkief_rechts"),
        ("Glandula_parotis_re", "Glandula_paro_re"),
        ("Left_Submandibular_Gland", "Left_Submandibul"),
    ],
)
def test_a_shortened_name_keeps_the_ending_that_tells_it_apart(name, short):
    assert short_names([name], ECLIPSE)[name] == short
    assert len(short) <= 16


def test_what_would_become_the_same_is_numbered_and_who_fits_keeps_the_name():
    names = ["Optic_Chiasm_and_Nerves", "Optic_Chiasm_and_Tracts", "OPTIC_CHIASM_AND"]
    assert short_names(names, ECLIPSE) == {
        "OPTIC_CHIASM_AND": "OPTIC_CHIASM_AND",
        "Optic_Chiasm_and_Nerves": "Optic_Chiasm_an2",
        "Optic_Chiasm_and_Tracts": "Optic_Chiasm_an3",
    }


def test_no_shortened_name_is_an_organ_s_in_tg_263():
    name = "Glnd_Lacrimal_ring_L"
    assert short_names([name], ECLIPSE) == {name: "Glnd_Lacrimal2_L"}


def test_case_alone_does_not_tell_names_apart():
    assert len({short.casefold() for short in short_names(["Brain", "BRAIN"], ECLIPSE).values()}) == 2
    by_case = replace(ECLIPSE, names_ignore_case=False)
    assert short_names(["Brain", "BRAIN"], by_case) == {"Brain": "Brain", "BRAIN": "BRAIN"}


def test_a_word_behind_the_side_leaves_the_side():
    names = [
        f"{stem}_{side}_{word}"
        for stem, sides, word in (
            ("Submandibular_gland", "LR", "sparing"),
            ("OpticNerve_Chiasm", ("Left", "Right"), "cropped"),
            ("SubmandibularGland", "LR", "3mm_ring"),
            ("Parotid_superficial", ("lt", "rt"), "a_word_that_alone_is_too_long"),
        )
        for side in sides
    ]

    shortened = short_names(names, ECLIPSE)

    assert shortened["SubmandibularGland_L_3mm_ring"] == "Subma_L_3mm_ring"
    for left, right in zip(names[::2], names[1::2], strict=True):
        one, other = (re.split("[_ .-]", shortened[name].casefold()) for name in (left, right))
        assert {"l", "lt", "left"} & set(one)
        assert {"r", "rt", "right"} & set(other)


def test_what_changed_is_said():
    shortened = short_names(["Brain", "Submandibular_Gland_L"], ECLIPSE)
    assert shortening_remarks(shortened, ECLIPSE) == [
        "Submandibular_Gland_L is called Submandibular_L for eclipse, whose names have 16 characters"
    ]


@given(
    st.lists(
        st.text("abAB_ LR0", min_size=1, max_size=40).map(str.strip).filter(bool), unique=True, max_size=30
    )
)
def test_names_of_any_kind_fit_and_stay_apart(names):
    shortened = short_names(names, ECLIPSE)
    assert set(shortened) == set(names)
    assert all(0 < len(short) <= 16 for short in shortened.values())
    assert len({short.casefold() for short in shortened.values()}) == len(names)
    for name, short in shortened.items():
        if len(sides(name)) < 2:
            assert sides(short) == sides(name)


@pytest.mark.parametrize(
    ("lefts", "rights"),
    [
        ("l lt left", "r rt right"),
        ("li lks links linke linker linkes", "re rts rechts rechte rechter rechtes"),
        ("gauche", "droit droite"),
        ("sin sinister sinistra sinistro sx", "dext dexter dextra destra destro dx"),
        ("izq izquierda izquierdo", "derecha derecho"),
    ],
)
def test_sides_are_said_in_every_language(lefts, rights):
    assert {sides(f"Parotis {word}") for word in lefts.split()} == {frozenset({LEFT})}
    assert {sides(f"Parotis {word}") for word in rights.split()} == {frozenset({RIGHT})}
