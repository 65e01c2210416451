"""Segmentation, picture and document of a job, judged by validators, DCMTK and Orthanc."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from pydicom import Dataset, dcmread

from daemon.encapsulated_pdf import build_encapsulated_pdf
from daemon.qa_sheet import QASheet, build_qa_sheet
from daemon.result_header import encode
from daemon.secondary_capture import build_secondary_capture, rgb_of_png
from daemon.segmentation_object import build_segmentation
from tests.peers import orthanc
from tests.phantom import make_grid
from tests.structure_set_samples import IDENTITY, MODEL, ROOT, ct_header, ct_volume, organ_masks, rois_of

HEADER = ct_header(
    PatientID="P1",
    PatientName="Müller^Jörg",
    PatientBirthDate="19600101",
    PatientSex="M",
    SpecificCharacterSet="ISO_IR 100",
    StudyDate="20240228",
    StudyTime="101112",
    StudyID="7",
    AccessionNumber="A7",
    SeriesNumber="3",
    Manufacturer="A scanner's maker",
    SliceThickness="3",
)
COARSE = {"size": (64, 60), "pixel_spacing_mm": (3.5, 3.0)}
GRIDS = {
    "upright": make_grid(**COARSE),
    "tilted": make_grid(tilt_degrees=14, **COARSE),
    "uneven": make_grid(offsets_mm=[*np.arange(-100, 0, 2.5), *np.arange(0, 101, 4.1)], **COARSE),
}


@pytest.fixture(scope="module")
def sheet() -> QASheet:
    grid = GRIDS["upright"]
    return build_qa_sheet(
        ct_volume(grid, HEADER), rois_of(organ_masks(grid), grid), IDENTITY, MODEL, identify=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sheet: QASheet) -> Path:
    """Every object as a file; each has a series of its own."""
    folder = tmp_path_factory.mktemp("products")
    volume = ct_volume(GRIDS["upright"], HEADER)
    made: dict[str, Dataset] = {}
    for number, (name, grid) in enumerate(GRIDS.items(), start=20):
        made[name] = build_segmentation(ct_volume(grid, HEADER), organ_masks(grid), identity(number), MODEL)
    made["picture"] = build_secondary_capture(
        rgb_of_png(sheet.png), volume, identity(30), MODEL, identifies=True
    )
    made["document"] = build_encapsulated_pdf(sheet.pdf, volume, identity(31), MODEL, identifies=True)
    for name, dataset in made.items():
        (folder / f"{name}.dcm").write_bytes(encode(dataset))
    return folder


def identity(number: int):
    return replace(IDENTITY, sop_instance_uid=f"{ROOT}.9.{number}", series_instance_uid=f"{ROOT}.8.{number}")


def needs(program: str) -> str:
    if not shutil.which(program):
        pytest.skip(f"needs {program}")
    return program


NAMES = [*GRIDS, "picture", "document"]


@pytest.mark.parametrize("name", NAMES)
def test_dciodvfy_finds_no_error(folder, name):
    found = subprocess.run(
        [needs("dciodvfy"), folder / f"{name}.dcm"], capture_output=True, text=True, check=False
    )
    told = found.stdout + found.stderr
    iods = {"picture": "SCImage", "document": "EncapsulatedPDF"}
    assert iods.get(name, "Segmentation") in told
    assert "Error" not in told, told


@pytest.mark.parametrize("name", NAMES)
def test_dcmtk_reads_it_to_its_end(folder, name):
    dumped = subprocess.run(
        [needs("dcmdump"), "+P", "SOPInstanceUID", "+P", "SeriesDescription", folder / f"{name}.dcm"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "NEEDS REVIEW" in dumped.stdout
    assert not dumped.stderr


def test_dcmtk_takes_the_document_out_as_it_was_put_in(folder, sheet, tmp_path):
    subprocess.run([needs("dcm2pdf"), folder / "document.dcm", tmp_path / "out.pdf"], check=True)
    assert (tmp_path / "out.pdf").read_bytes().rstrip(b"\0") == sheet.pdf


def test_dcmtk_shows_the_picture_as_it_was_drawn(folder, sheet, tmp_path):
    subprocess.run([needs("dcmj2pnm"), folder / "picture.dcm", tmp_path / "out.ppm"], check=True)
    np.testing.assert_array_equal(imread(tmp_path / "out.ppm"), rgb_of_png(sheet.png))


@pytest.fixture(scope="module")
def stored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """SOP Instance UID to the file that Orthanc gives back, each object sent twice."""
    needs("Orthanc")
    with orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        for _ in range(2):
            for path in sorted(folder.iterdir()):
                server.upload(path)
        found = {}
        for identifier in server.instances():
            tags = server.request("GET", f"/instances/{identifier}/simplified-tags")
            found[tags["SOPInstanceUID"]] = server.instance_bytes(identifier)
        studies = server.request("GET", "/studies")
        series = server.request("GET", "/series")
        assert (len(studies), len(series)) == (1, len(NAMES))
        yield found


@pytest.mark.parametrize("name", NAMES)
def test_orthanc_stores_it_once_in_the_study_of_the_ct(folder, stored, name):
    """In a series of its own; sent again, it is the same object."""
    path = folder / f"{name}.dcm"
    assert len(stored) == len(NAMES)
    assert stored[dcmread(path).SOPInstanceUID] == path.read_bytes()
