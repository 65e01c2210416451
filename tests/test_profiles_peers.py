"""A structure set for every profile, as other programs read it: dciodvfy, plastimatch and Orthanc."""

import shutil
import subprocess
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread

from daemon.config import Destination
from daemon.delivery import send
from daemon.destination_profile import PROFILES, HoleStyle, Profile
from daemon.outgoing_association import OutcomeKind
from daemon.result_header import encode
from daemon.structure_set import build_structure_set
from daemon.structure_set_check import check_structure_set
from daemon.structure_template import ROI, Template, apply_template, organ_line
from model.contours import Contour, trace
from model.ct import CTVolume, read_series
from model.geometry import SliceGrid
from model.keyhole import with_holes
from model.structures import structure
from tests.peers import orthanc
from tests.phantom import make_grid, write_series
from tests.structure_set_samples import IDENTITY, MODEL, ORGANS, organ_masks

SITE_NAMES = {"Brain": "Gehirn", "Parotid_L": "Ohrspeicheldruese_L", "Parotid_R": "Ohrspeicheldruese_R"}
TEMPLATE = Template(
    "Site",
    tuple(organ_line(structure(name), n, SITE_NAMES.get(name)) for n, name in enumerate(ORGANS, start=1)),
)


@dataclass(frozen=True)
class Written:
    """One profile's file beside its CT."""

    ct: Path
    path: Path
    volume: CTVolume
    rois: list[ROI]
    profile: Profile


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series") / "ct"
    return folder, read_series(write_series(folder, grid=make_grid(offsets_mm=np.arange(-100, 100.1, 2.5))))


@pytest.fixture(scope="module", params=PROFILES)
def written(request, series, tmp_path_factory):
    """With site names, some of them too long, a hole in the brain and a remark about a lens."""
    profile = PROFILES[request.param]
    folder, volume = series
    rois = [
        replace(
            roi,
            contours=traced(roi, profile, volume.grid),
            remark="smaller than any seen" if roi.organ == "Lens_L" else "",
        )
        for roi in apply_template(TEMPLATE, organ_masks(volume.grid), volume.grid)
    ]
    path = tmp_path_factory.mktemp(profile.name) / "rtstruct.dcm"
    path.write_bytes(
        encode(build_structure_set(volume, rois, IDENTITY, MODEL, (), profile, doubts=["Lens_L"]))
    )
    return Written(folder, path, volume, rois, profile)


def traced(roi: ROI, profile: Profile, grid: SliceGrid) -> list[Contour]:
    return with_holes(trace(roi.mask, grid.pixel_spacing_mm), profile.holes.value)


def needs(program: str) -> str:
    return shutil.which(program) or pytest.skip(f"{program} is not installed")


def test_our_own_check_accepts_it(written):
    summaries = check_structure_set(written.path, written.volume, written.rois, IDENTITY, written.profile)
    assert [each.name for each in summaries] == [roi.name for roi in written.rois]
    assert all(each.found for each in summaries)


def test_dciodvfy_finds_no_error(written):
    found = subprocess.run([needs("dciodvfy"), written.path], capture_output=True, text=True, check=False)
    said = found.stdout + found.stderr
    assert "RTStructureSet" in said
    assert "Error" not in said, said


def test_names_fit_and_keep_their_side(written):
    names = [roi.ROIName for roi in dcmread(written.path).StructureSetROISequence]
    assert max(map(len, names)) <= written.profile.max_name_length
    assert [name[-2:] for name in names if name.startswith("Ohr")] == ["_L", "_R"]


def test_plastimatch_finds_the_organs_where_they_are(written, tmp_path):
    """By the even-odd rule where holes are nested; each contour by itself where they are keyholes."""
    command = [needs("plastimatch"), "convert", "--input", written.path, "--referenced-ct", written.ct]
    command += ["--output-prefix", tmp_path / "masks", "--prefix-format", "nrrd"]
    if written.profile.holes is HoleStyle.NESTED:
        command.append("--xor-contours")
    subprocess.run(command, capture_output=True, text=True, check=True)
    names = [roi.ROIName for roi in dcmread(written.path).StructureSetROISequence]
    for name, roi in zip(names, written.rois, strict=True):
        image = SimpleITK.ReadImage(tmp_path / "masks" / f"{name}.nrrd")
        theirs = SimpleITK.GetArrayFromImage(image).astype(bool)
        ours = roi.mask.full()
        dice = 2 * np.count_nonzero(theirs & ours) / (np.count_nonzero(theirs) + np.count_nonzero(ours))
        assert dice >= 0.98, (name, dice)


def test_orthanc_stores_it_unchanged(written, tmp_path):
    with orthanc(tmp_path / "orthanc") as peer:
        destination = Destination(
            name="PACS",
            ae_title=peer.ae_title,
            host="127.0.0.1",
            port=peer.port,
            profile=written.profile.name,
        )
        outcome = send([written.path], destination, "OARLOCK")
        assert outcome.kind is OutcomeKind.SENT, outcome
        (stored,) = peer.instances()
        assert dcmread(BytesIO(peer.instance_bytes(stored))) == dcmread(written.path)
