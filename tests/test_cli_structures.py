"""`oarlock structures`: what an operator sees of templates and profiles, and how it ends."""

import json

import pytest

from daemon.template_file import load_template
from model.structures import STRUCTURES
from tests.command import Oarlock, write_config
from tests.paths import REPOSITORY
from tests.test_structure_template import eclipse, eclipse_structure

EXAMPLE = REPOSITORY / "systemd" / "templates" / "head-and-neck.toml"


@pytest.fixture
def oarlock(tmp_path, capsys, monkeypatch):
    write_config(tmp_path)
    return Oarlock(tmp_path / "oarlock.toml", capsys, monkeypatch)


@pytest.fixture
def template(tmp_path):
    """A template with one name that is too long for most systems."""
    path = tmp_path / "site.toml"
    path.write_text(
        'name = "Site"\n[[structures]]\norgan = "Glnd_Submand_L"\nname = "Submandibular_Gland_L"\n'
    )
    return path


def test_without_a_template_it_lists_the_21_organs(oarlock):
    answer = oarlock("structures")
    assert answer.code == 0
    assert all(organ.name in answer.out for organ in STRUCTURES)


def test_a_template_is_listed_with_what_is_derived(oarlock):
    answer = oarlock("structures", EXAMPLE)
    assert answer.code == 0
    assert "SpinalCord + 5 mm" in answer.out
    assert "Myelon, Cord" in answer.out


def test_json_has_every_structure_with_its_codes(oarlock):
    listed = json.loads(oarlock("structures", EXAMPLE, "--json").out)
    cord = listed["structures"][1]
    assert (cord["organ"], cord["colour"], cord["type"]) == ("SpinalCord", [255, 236, 0], "ORGAN")
    assert {scheme: code["value"] for scheme, code in cord["codes"].items()} == {
        "snomed": "2748008",
        "fma": "7647",
    }
    assert listed["notes"] == []


def test_the_check_tells_which_names_a_destination_cuts(oarlock, template):
    cut = oarlock("structures", template, "--check", "--profile", "eclipse")
    assert cut.code == 1
    assert "Submandibular_Gland_L is called Submandibular_L for eclipse" in cut.out
    assert oarlock("structures", template, "--check", "--profile", "raystation").code == 0


def test_a_wrong_template_ends_with_2_and_its_lines(oarlock, template):
    template.write_text(template.read_text().replace("Submand_L", "Submand_X"))
    answer = oarlock("structures", template)
    assert answer.code == 2
    assert "site.toml: line 3, [[structures]] organ" in answer.err


def test_profiles_are_shown_with_what_is_unconfirmed(oarlock):
    answer = oarlock("structures", "--profiles")
    assert answer.code == 0
    assert "unconfirmed" in answer.out
    assert "Varian Eclipse" in answer.out
    rows = json.loads(oarlock("structures", "--profiles", "--json").out)["eclipse"]
    assert {row["standing"] for row in rows} == {"confirmed", "unconfirmed"}


def test_an_unknown_profile_ends_with_2(oarlock):
    answer = oarlock("structures", "--profile", "eclypse")
    assert (answer.code, "known: generic, eclipse" in answer.err) == (2, True)


def test_an_eclipse_template_is_imported_and_what_is_not_certain_is_said(oarlock, tmp_path):
    xml = eclipse(tmp_path, eclipse_structure("Parotis li", code="59798"), eclipse_structure("Myelon"))
    output = tmp_path / "imported.toml"
    answer = oarlock("structures", "--import-eclipse", xml, "--output", output)
    assert answer.code == 0
    assert "1 of 2 structures" in answer.out
    assert "Myelon: its name is no organ's in TG-263" in answer.err
    assert [line.name for line in load_template(output).structures] == ["Parotis li"]


def test_an_import_overwrites_nothing(oarlock, tmp_path, template):
    xml = eclipse(tmp_path, eclipse_structure("Brain"))
    before = template.read_text()
    assert oarlock("structures", "--import-eclipse", xml, "--output", template).code == 2
    assert oarlock("structures", "--import-eclipse", xml).code == 2
    assert template.read_text() == before


def test_an_import_of_nothing_known_writes_nothing(oarlock, tmp_path):
    xml = eclipse(tmp_path, eclipse_structure("Myelon"))
    answer = oarlock("structures", "--import-eclipse", xml, "--output", tmp_path / "imported.toml")
    assert answer.code == 1
    assert not (tmp_path / "imported.toml").exists()


def test_an_import_that_makes_no_template_leaves_no_file(oarlock, tmp_path):
    """The code is longer than a template takes."""
    site = eclipse_structure("Brain", code="B" * 17, scheme="99VMS_STRUCTCODE")
    output = tmp_path / "imported.toml"
    answer = oarlock("structures", "--import-eclipse", eclipse(tmp_path, site), "--output", output)
    assert answer.code == 2
    assert "at most 16 characters" in answer.err
    assert not output.exists()
