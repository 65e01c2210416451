"""`oarlock segment`: one series from a folder, and everything that must not happen to the output."""

import shutil

import pytest
from pydicom import dcmread

from tests.band_bundle import write_band_bundle
from tests.command import Oarlock
from tests.phantom import write_series


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_band_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct")
    write_series(folder)
    return folder


@pytest.fixture
def oarlock(tmp_path, capsys, monkeypatch):
    return Oarlock(tmp_path / "no-configuration-is-needed.toml", capsys, monkeypatch)


def test_a_folder_becomes_a_structure_set(oarlock, series, bundle, tmp_path):
    """The file, the picture and a table of the structures come out, and no configuration is needed."""
    output, picture = tmp_path / "out.dcm", tmp_path / "out.png"
    answer = oarlock(
        "segment", series, "--output", output, "--bundle", bundle, "--device", "cpu", "--picture", picture
    )
    found = [roi.ROIName for roi in dcmread(output).StructureSetROISequence]
    table = {line.split()[0]: line.split()[1:] for line in answer.out.splitlines() if line}

    assert answer.code == 0, answer.err
    assert set(found) == {"Brain", "Bone_Mandible", "Parotid_L", "Parotid_R"}
    assert all(float(table[name][0]) > 10 and int(table[name][1]) > 0 for name in found)
    assert table["Lens_L"] == ["not", "found"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_mode & 0o777 == 0o600
    assert str(output) in answer.out
    assert str(picture) in answer.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.dcm", "out.png"]


def test_what_is_there_is_not_overwritten_unasked(oarlock, series, bundle, tmp_path):
    """An existing output ends with 2 and stays; --force replaces it."""
    output = tmp_path / "out.dcm"
    output.write_text("precious")
    arguments = ("segment", series, "--output", output, "--bundle", bundle, "--device", "cpu")
    refused = oarlock(*arguments)

    assert (refused.code, refused.err) == (2, f"oarlock: {output} exists; --force overwrites it\n")
    assert output.read_text() == "precious"
    assert oarlock(*arguments, "--force").code == 0
    assert dcmread(output).Modality == "RTSTRUCT"


def test_several_series_are_named_and_one_can_be_chosen(oarlock, series, bundle, tmp_path):
    """The choice is the user's: the series are listed with slices and description, --series takes one."""
    both = tmp_path / "both"
    shutil.copytree(series, both / "a")
    others = write_series(both / "b", seed=1, SeriesDescription="Second look")
    first, second = (dcmread(next((both / name).iterdir())).SeriesInstanceUID for name in "ab")
    output = tmp_path / "out.dcm"
    arguments = ("segment", both, "--output", output, "--bundle", bundle, "--device", "cpu")
    asked, wrong = oarlock(*arguments), oarlock(*arguments, "--series", "1.2.3")

    assert (asked.code, wrong.code) == (2, 2)
    assert "--series UID" in asked.err
    for words in (first, second, str(len(others)), "Second look", "Planning CT"):
        assert words in asked.err
    assert "no CT series 1.2.3" in wrong.err
    assert oarlock(*arguments, "--series", second).code == 0
    assert dcmread(output).ReferencedFrameOfReferenceSequence


def test_an_unsuitable_series_is_refused_with_reason_and_numbers(oarlock, series, bundle, tmp_path):
    """A slice is missing: exit code 1, the reason's code, what was found, and no file."""
    gap = tmp_path / "gap"
    shutil.copytree(series, gap)
    middle = sorted(gap.iterdir(), key=lambda path: float(dcmread(path).ImagePositionPatient[2]))[20]
    middle.unlink()
    answer = oarlock("segment", gap, "--output", tmp_path / "out.dcm", "--bundle", bundle)

    assert answer.code == 1
    assert answer.err.startswith("oarlock: [missing-slice] ")
    assert " mm" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["gap"]


@pytest.mark.parametrize("other", ["--picture", "--segmentation"])
def test_two_outputs_of_one_name_are_refused_before_any_work(oarlock, series, tmp_path, other):
    output = tmp_path / "out.dcm"
    answer = oarlock("segment", series, "--output", output, other, output)

    assert answer.code == 2
    assert "two of the outputs have one name" in answer.err
    assert not output.exists()


def test_wrong_use_is_told_before_any_work(oarlock, series, tmp_path):
    """No folder, no CT in it, nowhere to write to: each ends with 2."""
    empty = tmp_path / "empty"
    empty.mkdir()
    output = tmp_path / "out.dcm"

    assert oarlock("segment", tmp_path / "none", "--output", output).code == 2
    assert "no CT image under" in oarlock("segment", empty, "--output", output).err
    assert oarlock("segment", empty, "--output", output).code == 2
    assert oarlock("segment", series, "--output", tmp_path / "none" / "out.dcm").code == 2
    assert oarlock("segment", series).code == 2


def test_a_broken_model_is_said_so(oarlock, series, bundle, tmp_path):
    """Weights that were changed end with 1 and the digest that was expected."""
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    with (broken / "weights.safetensors").open("ab") as weights:
        weights.write(b"!")
    answer = oarlock("segment", series, "--output", tmp_path / "out.dcm", "--bundle", broken)

    assert answer.code == 1
    assert "SHA-256" in answer.err


def test_everything_that_a_destination_may_get_can_be_had_as_files(oarlock, series, bundle, tmp_path):
    template = tmp_path / "site.toml"
    template.write_text('name = "Site"\n[[structures]]\norgan = "Brain"\nname = "Hirn"\n')
    made = {name: tmp_path / name for name in ("rt.dcm", "seg.dcm", "qa.pdf")}

    done = oarlock(
        "segment", series, "--bundle", bundle, "--output", made["rt.dcm"], "--segmentation", made["seg.dcm"],
        "--qa-sheet", made["qa.pdf"], "--template", template, "--profile", "eclipse",
    )  # fmt: skip

    assert done.code == 0, done.err
    assert [roi.ROIName for roi in dcmread(made["rt.dcm"]).StructureSetROISequence] == ["Hirn"]
    assert [each.SegmentLabel for each in dcmread(made["seg.dcm"]).SegmentSequence] == ["Brain"]
    assert made["qa.pdf"].read_bytes().startswith(b"%PDF")
    assert {path.stat().st_mode & 0o777 for path in made.values()} == {0o600}  # they name the patient
    assert not list(tmp_path.glob(".*.part"))


def test_a_segmentation_that_cannot_be_made_is_told_and_costs_nothing_else(oarlock, series, bundle, tmp_path):
    template = tmp_path / "site.toml"
    template.write_text('name = "S"\n[[structures]]\nname = "Both"\nunion = ["Parotid_L", "Parotid_R"]\n')
    made, missing = tmp_path / "rt.dcm", tmp_path / "seg.dcm"

    done = oarlock(
        "segment", series, "--bundle", bundle, "--output", made, "--segmentation", missing, "--template", template
    )  # fmt: skip

    assert (done.code, made.exists(), missing.exists()) == (0, True, False)
    assert "note: no segmentation is made" in done.out
    assert str(missing) not in done.out


def test_damaged_files_beside_the_images_are_told(oarlock, series, bundle, tmp_path):
    shutil.copytree(series, tmp_path / "ct")
    images = (tmp_path / "ct").iterdir()
    ends = sorted(images, key=lambda path: dcmread(path).ImagePositionPatient[2])[-3:]
    for path in ends:
        path.write_bytes(b"")

    done = oarlock("segment", tmp_path / "ct", "--bundle", bundle, "--output", tmp_path / "rt.dcm")

    assert done.code == 0, done.err
    assert f"note: 3 files left out that cannot be read as DICOM, such as {min(ends).name}" in done.out


def test_a_profile_that_does_not_exist_is_said_with_those_that_do(oarlock, series, tmp_path):
    done = oarlock("segment", series, "--output", tmp_path / "rt.dcm", "--profile", "eclypse")

    assert done.code == 2
    assert "raystation" in done.err
