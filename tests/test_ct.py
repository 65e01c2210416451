"""Reading CT series: what is read is where it belongs, what is refused is refused for its true reason."""

import contextlib
import os
import shutil
import subprocess
import tarfile
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom import uid

from model.ct import find_series, read_series, unreadable_files
from model.dicom_file import MAX_INFLATED_BYTES
from model.errors import ReasonCode, SeriesUnsuitable
from model.geometry import Mask
from model.slice_header import slice_header
from model.suitability import stack_slices
from tests.paths import shared_data
from tests.phantom import AIR_HU, ORIENTATIONS, PARTS, make_grid, phantom_hu, phantom_masks, write_series

SMALL = make_grid(offsets_mm=np.arange(-100, 101, 8), size=(36, 34), pixel_spacing_mm=(6, 5.5))


def refusal(paths, **options):
    """The reason for which a series is refused."""
    with pytest.raises(SeriesUnsuitable) as caught:
        read_series(paths, **options)
    assert "needed" in str(caught.value)
    return caught.value


def write_small(folder, **options):
    """A phantom of few pixels, for what does not depend on them."""
    return write_series(folder, grid=SMALL, **options)


def changing(keyword, value, slices=None):
    """Sets, or with None deletes, an attribute on some slices, on all if not said."""

    def change(index, dataset):
        if slices is not None and index not in slices:
            return
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)

    return change


def a_secondary_capture(**attributes):
    """Makes the last image one."""

    def change(index, dataset):
        for keyword, value in {"ImageType": ["DERIVED", "SECONDARY"], **attributes}.items():
            changing(keyword, value, [len(SMALL.positions_mm) - 1])(index, dataset)

    return change


# Place


@pytest.mark.parametrize("tilt_degrees", [0, 14])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_part_of_the_phantom_is_found_where_it_is(tmp_path, orientation, tilt_degrees):
    """The left ball is left, the front cone in front, the upper bar above, however patient and gantry lie."""
    grid = make_grid(
        orientation,
        tilt_degrees=tilt_degrees,
        size=(60, 65),
        pixel_spacing_mm=(4, 3),
        centre_mm=(0.3, 0.2, 0.1),  # no voxel exactly on a surface, where rounded positions would decide
    )
    paths = write_series(tmp_path, grid=grid, orientation=orientation)
    volume = read_series(paths[::-1])

    np.testing.assert_array_equal(volume.hu, phantom_hu(grid))
    for part in PARTS:
        points = np.concatenate(
            [volume.grid.to_patient(i, np.argwhere(plane == part.hu)) for i, plane in enumerate(volume.hu)]
        )
        assert len(points) > 100
        assert part.contains(*points.T).all()


def test_order_of_files_and_instance_numbers_never_matters(tmp_path):
    """Slices stand along the normal, whatever the files say about their order."""
    forwards = read_series(write_small(tmp_path / "a", shuffled=False))
    shuffled = read_series(sorted(write_small(tmp_path / "b", shuffled=True), key=str))

    np.testing.assert_array_equal(forwards.hu, shuffled.hu)
    assert forwards.sop_instance_uids == shuffled.sop_instance_uids


def test_each_slice_keeps_its_uid(tmp_path):
    """The UID at an index is the UID of the image at that position."""
    paths = write_small(tmp_path, orientation="FFS")
    volume = read_series(paths)

    for index in (0, 17, 25):
        dataset = pydicom.dcmread(paths[index])
        assert volume.sop_instance_uids[index] == dataset.SOPInstanceUID
        np.testing.assert_allclose(volume.grid.positions_mm[index], dataset.ImagePositionPatient, atol=1e-6)


def test_tilt_comes_from_geometry_not_from_the_tag(tmp_path):
    """Gantry/Detector Tilt is absent or wrong in the field; the step between slices is not."""
    tilted = read_series(write_series(tmp_path / "a", tilt_degrees=14, GantryDetectorTilt="0"))
    upright = read_series(write_series(tmp_path / "b", GantryDetectorTilt="14"))

    assert tilted.grid.tilt_degrees == pytest.approx(14, abs=0.01)
    assert tilted.grid.is_uniform
    assert tilted.remarks == ("gantry tilt 14.0 degrees",)
    assert upright.remarks == ()


def test_header_has_everything_but_pixels(tmp_path):
    """The structure set is written from it."""
    volume = read_series(write_small(tmp_path, AccessionNumber="A7"))

    assert volume.header.AccessionNumber == "A7"
    assert volume.header.SOPInstanceUID == volume.sop_instance_uids[0]
    assert "PixelData" not in volume.header


def test_progress_runs_from_little_to_all(tmp_path):
    """A progress bar never goes back, and ends full."""
    shares = []
    read_series(write_small(tmp_path), shares.append)

    assert shares == sorted(shares)
    assert shares[-1] == 1


# Values


@pytest.mark.parametrize(
    "transfer_syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_transfer_syntaxes_give_identical_values(tmp_path, transfer_syntax, signed):
    """How pixels travel changes nothing."""
    options = {"transfer_syntax": transfer_syntax, "signed": signed, "intercept": 0 if signed else -1024}
    volume = read_series(write_small(tmp_path, **options))

    np.testing.assert_array_equal(volume.hu, phantom_hu(SMALL))


def test_slope_and_intercept_are_those_of_each_slice(tmp_path):
    """Scanners may scale every slice by itself."""
    count = SMALL.shape[0]
    slopes, intercepts = np.linspace(0.5, 2, count), -1024 - np.arange(count)
    volume = read_series(write_small(tmp_path, slope=slopes, intercept=intercepts))

    np.testing.assert_allclose(volume.hu, phantom_hu(SMALL), atol=1.01)


@pytest.mark.parametrize(
    ("padding", "attributes"),
    [
        (-3024, {}),
        (-2000, {"PixelPaddingValue": -2000}),
        (-1500, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1400}),
        (-950, {"PixelPaddingValue": -950}),
        (32000, {"PixelPaddingValue": 32000}),
    ],
)
def test_padding_becomes_air(tmp_path, padding, attributes):
    """What lies outside the field of view is -1024, whichever way it is marked."""
    hu = phantom_hu(SMALL)
    hu[:, :3] = padding
    volume = read_series(write_small(tmp_path, hu=hu, signed=True, intercept=0, **attributes))

    assert (volume.hu[:, :3] == -1024).all()
    np.testing.assert_array_equal(volume.hu[:, 3:], hu[:, 3:])


def test_padding_written_with_the_wrong_sign_is_understood(tmp_path):
    """63536 for -2000 is the same 16 bits, and stands in real files."""
    hu = phantom_hu(SMALL)
    hu[:, :3] = -1500

    def change(_index, dataset):
        dataset.add_new("PixelPaddingValue", "US", 63536)
        dataset.add_new("PixelPaddingRangeLimit", "US", 64136)

    volume = read_series(write_small(tmp_path, hu=hu, signed=True, intercept=0, change=change))

    assert (volume.hu[:, :3] == -1024).all()


def test_a_padding_value_that_tissue_has_is_ignored_and_told(tmp_path):
    """Obeying it would cut the phantom's body away."""
    volume = read_series(write_small(tmp_path, signed=True, intercept=0, PixelPaddingValue=40))

    np.testing.assert_array_equal(volume.hu, phantom_hu(SMALL))
    assert "Pixel Padding Value ignored" in volume.remarks[0]


# What does not belong


def localizer(**attributes):
    """Turns the last slice into a localizer."""

    def change(index, dataset):
        if index == SMALL.shape[0] - 1:
            dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)

    return change


def test_a_localizer_is_left_out_by_its_image_type(tmp_path):
    """It is no slice, and the reader is told."""
    change = localizer(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], Rows=20, Columns=24)
    volume = read_series(write_small(tmp_path, change=change))

    assert volume.hu.shape == (25, 36, 34)
    assert volume.remarks == ("1 localizer left out",)


def test_a_localizer_that_does_not_say_so_is_left_out_by_its_orientation(tmp_path):
    """Image Type may be empty; lying across the slices is enough."""
    volume = read_series(write_small(tmp_path, change=localizer(ImageType=None)))

    assert volume.hu.shape == (25, 36, 34)
    assert volume.remarks == ("1 localizer left out, known by lying across the slices",)


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        (
            changing("SOPClassUID", uid.SecondaryCaptureImageStorage, [25]),
            "1 Secondary Capture Image Storage object left out",
        ),
        (a_secondary_capture(ImagePositionPatient=None), "1 secondary capture left out"),
        (
            a_secondary_capture(ImagePositionPatient=SMALL.positions_mm[24].tolist()),
            "1 secondary capture left out",
        ),
        (a_secondary_capture(Rows=35), "1 secondary capture left out"),
        (changing("SamplesPerPixel", 3, [0]), "1 colour image left out"),
    ],
)
def test_secondary_captures_are_left_out(tmp_path, change, remark):
    """A dose report in the series is no slice."""
    assert read_series(write_small(tmp_path, change=change)).remarks == (remark,)


@pytest.mark.parametrize("image_type", [None, "", ["DERIVED", "SECONDARY", "AXIAL"]])
def test_image_type_alone_refuses_no_series(tmp_path, image_type):
    """It is empty in real series, and SECONDARY on whole averages of 4D CT."""
    volume = read_series(write_small(tmp_path, change=changing("ImageType", image_type)))

    assert volume.hu.shape == SMALL.shape
    assert volume.remarks == ()


@pytest.mark.parametrize("slices", [range(0, 26, 2), [25]])
def test_secondary_images_in_their_own_place_are_slices(tmp_path, slices):
    """Left out, they would halve the slices, or shorten the stack, and nobody would be told."""
    volume = read_series(
        write_small(tmp_path, change=changing("ImageType", ["DERIVED", "SECONDARY", "AXIAL"], slices))
    )

    assert volume.hu.shape == SMALL.shape
    assert volume.remarks == ()


def test_a_localizer_among_secondary_slices_makes_none_of_them_a_capture(tmp_path):
    """Averages of a 4D CT are SECONDARY, and the localizer that lies among them is PRIMARY."""
    scout = localizer(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])

    def change(index, dataset):
        dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        scout(index, dataset)

    volume = read_series(write_small(tmp_path, change=change))

    assert volume.hu.shape == (25, 36, 34)
    assert volume.remarks == ("1 localizer left out",)


@pytest.mark.parametrize("name", ["DOE^JANE", "Doe^Jane^^^", ""])
def test_one_patient_may_be_written_in_several_ways(tmp_path, name):
    """Capitals and empty components are how programs spell the same name."""

    def change(index, dataset):
        dataset.PatientName = name if index < 5 else "Doe^Jane"

    assert read_series(write_small(tmp_path, change=change)).hu.shape == SMALL.shape


@pytest.mark.parametrize("patient_id", ["", "0"])
@pytest.mark.parametrize(("keyword", "other"), [("PatientName", "Roe^Ann"), ("PatientBirthDate", "19700101")])
def test_two_patients_who_share_an_id_or_have_none_are_refused(tmp_path, patient_id, keyword, other):
    """An empty Patient ID is legal, and some scanners give the same one to all who come without."""

    def change(index, dataset):
        dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = patient_id, "Doe^Jane", "19500101"
        if index < 5:
            setattr(dataset, keyword, other)

    error = refusal(write_small(tmp_path, change=change))

    assert error.code == ReasonCode.MIXED_PATIENT
    assert "on 21, 5 images" in str(error)
    assert not {"Doe", "Roe", "1950", "1970"} & set(str(error).split())


@pytest.mark.parametrize(
    ("orientation", "is_refused"),
    [
        ([1, 0, 0, 0.0099, 0.99995, 0], True),  # 1.9 mm aside at the last row
        ([0.996, 0, 0, 0, 1, 0], False),  # 0.8 mm at the last column
        ([0.9998, 0.0175, 0, -0.0175, 0.9998, 0], False),  # turned by a degree, in four decimals
    ],
)
def test_directions_that_leave_the_last_pixels_place_open_are_refused(tmp_path, orientation, is_refused):
    """Row and column direction are unit vectors at a right angle; what is read must be what stands there."""
    grid = make_grid(offsets_mm=np.arange(-100, 101, 8), size=(64, 64), pixel_spacing_mm=(3, 3))
    paths = write_series(tmp_path, grid=grid, change=changing("ImageOrientationPatient", orientation))

    if is_refused:
        assert refusal(paths).code == ReasonCode.MISSING_POSITION
    else:
        assert read_series(paths).hu.shape == grid.shape


def test_copies_of_files_count_once(tmp_path):
    """The same file twice is not two slices at one position."""
    paths = write_small(tmp_path)
    copy = shutil.copy(paths[3], tmp_path / "copy of 3")
    volume = read_series([*paths, copy])

    assert volume.hu.shape == SMALL.shape
    assert volume.remarks == ("1 copied file left out",)


def test_find_series_sorts_files_by_series_and_passes_over_the_rest(tmp_path):
    """Names, extensions and folders do not matter; text, broken files and other objects are no series."""
    first = write_small(tmp_path / "a" / "deep")
    second = write_small(tmp_path / "b", seed=1)
    renamed = second[0].rename(tmp_path / "b" / "no extension")
    (tmp_path / "note.dcm").write_text("not DICOM")
    (tmp_path / "broken").write_bytes(first[0].read_bytes()[:150])
    (tmp_path / "empty").touch()
    write_small(tmp_path / "c", seed=2, SOPClassUID=uid.MRImageStorage)
    found = find_series(tmp_path)

    assert sorted(map(len, found.values())) == [26, 26]
    assert renamed in found[pydicom.dcmread(renamed).SeriesInstanceUID]
    assert [path.name for path in unreadable_files(tmp_path)] == ["broken", "empty", "note.dcm"]


# Refused


@pytest.mark.parametrize(
    ("code", "options"),
    [
        (ReasonCode.NOT_CT, {"SOPClassUID": uid.MRImageStorage}),
        (ReasonCode.NOT_CT, {"SOPClassUID": uid.EnhancedCTImageStorage}),
        (ReasonCode.LOCALIZER_ONLY, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        (ReasonCode.MIXED_PATIENT, {"change": changing("PatientID", "4712", range(5))}),
        (ReasonCode.MIXED_SERIES, {"change": changing("StudyInstanceUID", "1.2.3", range(5))}),
        (ReasonCode.MIXED_SERIES, {"change": changing("SeriesInstanceUID", "1.2.3", [4])}),
        (ReasonCode.MIXED_SERIES, {"change": changing("StudyInstanceUID", None)}),
        (ReasonCode.NO_FRAME_OF_REFERENCE, {"change": changing("FrameOfReferenceUID", None)}),
        (ReasonCode.NO_FRAME_OF_REFERENCE, {"change": changing("FrameOfReferenceUID", "", [5])}),
        (ReasonCode.MIXED_FRAME_OF_REFERENCE, {"change": changing("FrameOfReferenceUID", "1.2.3", [5])}),
        (ReasonCode.MISSING_POSITION, {"change": changing("ImagePositionPatient", None, [5])}),
        (ReasonCode.MISSING_POSITION, {"change": changing("ImagePositionPatient", "", [5])}),
        (ReasonCode.MISSING_POSITION, {"change": changing("ImagePositionPatient", [1, 2], [5])}),
        (ReasonCode.MISSING_POSITION, {"change": changing("ImageOrientationPatient", None, [5])}),
        (
            ReasonCode.MISSING_POSITION,
            {"change": changing("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], [5])},
        ),
        (ReasonCode.MISSING_POSITION, {"change": changing("ImageOrientationPatient", [0] * 6)}),
        (ReasonCode.MISSING_POSITION, {"change": changing("ImageOrientationPatient", ["1e300"] * 6, [5])}),
        (
            ReasonCode.MIXED_ORIENTATION,
            {"change": changing("ImageOrientationPatient", [1, 0, 0, 0, 0.96, 0.28], range(20))},
        ),
        (
            ReasonCode.MIXED_ORIENTATION,
            {"change": changing("ImageOrientationPatient", [0, 1, 0, 0, 0, -1], range(20))},
        ),
        (ReasonCode.NOT_AXIAL, {"change": changing("ImageOrientationPatient", [1, 0, 0, 0, 0, -1])}),
        (ReasonCode.NO_PIXEL_SPACING, {"change": changing("PixelSpacing", None, [5])}),
        (ReasonCode.NO_PIXEL_SPACING, {"change": changing("PixelSpacing", [1, 0], [5])}),
        (ReasonCode.MIXED_SPACING, {"change": changing("PixelSpacing", [6, 5.51], [5])}),
        (ReasonCode.MIXED_MATRIX, {"change": changing("Rows", 23, [5])}),
        (ReasonCode.NO_RESCALE, {"change": changing("RescaleSlope", None, [5])}),
        (ReasonCode.NO_RESCALE, {"change": changing("RescaleSlope", 0, [5])}),
        (ReasonCode.NO_RESCALE, {"change": changing("RescaleIntercept", None)}),
        (ReasonCode.NO_RESCALE, {"change": changing("RescaleSlope", "1e300", [5])}),
        (ReasonCode.IMPLAUSIBLE_HU, {"change": changing("RescaleSlope", "1e8")}),
        (ReasonCode.NO_RESCALE, {"RescaleType": "US"}),
        (ReasonCode.DUPLICATE_INSTANCE, {"change": changing("SOPInstanceUID", "1.2.3", [5, 6])}),
    ],
)
def test_headers_that_make_no_volume_are_refused_with_their_code(tmp_path, code, options):
    """Each fault has its own code, and the message says what is needed."""
    assert refusal(write_small(tmp_path, **options)).code == code


def test_no_files_are_no_series():
    """Nothing in is nothing out."""
    assert refusal([]).code == ReasonCode.NOT_CT


def test_too_few_slices_are_refused_unless_fewer_are_asked_for(tmp_path):
    """Nine slices are a fragment; who knows better may say so."""
    paths = write_small(tmp_path)[8:17]

    assert refusal(paths).code == ReasonCode.TOO_FEW_SLICES
    assert read_series(paths, minimum_slices=9).hu.shape == (9, 36, 34)


def test_two_phases_at_the_same_positions_are_refused_with_their_numbers(tmp_path):
    """Nobody can tell which of two images at one position to contour."""
    paths = write_small(tmp_path / "a")
    first = pydicom.dcmread(paths[0])
    whose = {name: first[name].value for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")}
    # The second phase is of the same patient position, so the same frame of reference too.
    error = refusal([*paths, *write_small(tmp_path / "b", seed=1, **whose)])

    assert error.code == ReasonCode.DUPLICATE_POSITION
    assert "52 images at 26 positions" in str(error)


def test_a_stack_that_jumps_sideways_is_refused(tmp_path):
    """Two acquisitions with different centres are no one volume."""

    def change(index, dataset):
        if index > 20:
            dataset.ImagePositionPatient[0] += 1

    error = refusal(write_small(tmp_path, change=change))

    assert error.code == ReasonCode.IRREGULAR_SPACING
    assert "line" in str(error)


@pytest.mark.parametrize(
    "gaps",
    [
        [2.5] * 10 + [5] * 10,
        [5] * 10 + [2.5] * 10 + [5] * 10,
        [2.5] * 10 + [3.75] + [5] * 10,
        [2.5] * 10 + [5] * 2,
        [1.25] * 10 + [2.5] * 4 + [5] * 10,
        [5] * 10 + [3] + [5] * 10,
        [5] * 10 + [2.5],
        [2.5] * 10 + [2.6] + [2.5] * 10,
    ],
)
@pytest.mark.parametrize("orientation", ["HFS", "FFS"])
def test_spacing_may_change(tmp_path, gaps, orientation):
    """Every slice keeps its own position, and the reader is told."""
    offsets = np.concatenate([[0], np.cumsum(gaps)]) - sum(gaps) / 2
    grid = make_grid(orientation, offsets_mm=offsets, size=(24, 20), pixel_spacing_mm=(9, 10))
    volume = read_series(write_series(tmp_path, grid=grid, orientation=orientation))

    np.testing.assert_allclose(volume.grid.positions_mm, grid.positions_mm, atol=1e-6)
    np.testing.assert_array_equal(volume.hu, phantom_hu(grid))
    if max(gaps) - min(gaps) > 0.2:
        assert volume.remarks == (f"spacing varies: {min(gaps):.2f} to {max(gaps):.2f} mm",)


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ([2.5] * 5 + [5] + [2.5] * 5, "gap of 5.00 mm between the slices at z = 12.50 mm and z = 17.50 mm"),
        ([2.5] * 5 + [7.5] + [2.5] * 5, "2 missing slices would fill it"),
        ([2.5] * 5 + [5] + [2.5] * 2 + [5] + [2.5] * 2, "1 missing slice would fill it"),
        ([2.5] * 5 + [5, 7.5] + [2.5] * 5, "gap of 5.00 mm"),
        ([2.5] * 5 + [5] * 2 + [2.5] * 5, "gap of 5.00 mm"),
        ([2.5] * 5 + [5] * 8 + [2.5] * 5, "gap of 5.00 mm"),
        ([2.5] * 5 + [7.5] + [5] * 5, "gap of 7.50 mm"),
        ([2.5] * 8 + [5, 2.5], "gap of 5.00 mm"),
        ([2.5] * 9 + [5], "gap of 5.00 mm"),
        ([2.5] * 9 + [12.5] + [2.5] * 9, "4 missing slices would fill it"),
        ([0.4] * 20 + [0.8] + [0.4] * 20, "gap of 0.80 mm"),
        ([0.6, 0.6, 0.7, 0.6] * 5 + [1.25] + [0.6, 0.6, 0.7, 0.6] * 5, "gap of 1.25 mm"),
    ],
)
def test_a_missing_slice_is_refused_with_the_positions_beside_it(tmp_path, gaps, said):
    """A gap that the spacing beside it would fill is a hole, not a change of spacing."""
    grid = make_grid(offsets_mm=np.concatenate([[0], np.cumsum(gaps)]), size=(8, 8))
    error = refusal(write_series(tmp_path, grid=grid))

    assert error.code == ReasonCode.MISSING_SLICE
    assert said in str(error)


@pytest.mark.parametrize(
    "gaps",
    [
        [5] * 5 + [8] + [5] * 5,
        [1, 4] * 8,
        [5] * 5 + [2, 3] * 4 + [5] * 5,
        [2.1, 2.9, 2.4, 3.3, 1.9, 2.6, 3.0, 2.2, 2.8, 3.5],
        [5] * 5 + [12] + [5] * 5,
        [12] * 10,
        [5] * 5 + [0.5] + [5] * 5,
    ],
)
def test_what_is_irregular_is_refused(tmp_path, gaps):
    """Interleaved acquisitions, random gaps and huge ones are no volume."""
    grid = make_grid(offsets_mm=np.concatenate([[0], np.cumsum(gaps)]), size=(8, 8))

    assert refusal(write_series(tmp_path, grid=grid)).code == ReasonCode.IRREGULAR_SPACING


def test_a_missing_slice_is_seen_in_a_tilted_series(tmp_path):
    """Gaps are measured along the normal, where a tilted series is as regular as any."""
    paths = write_series(tmp_path, tilt_degrees=14)
    del paths[20]

    assert refusal(paths).code == ReasonCode.MISSING_SLICE


@pytest.mark.parametrize("value", [AIR_HU, 0])
def test_a_slice_without_an_image_is_refused_as_if_it_were_missing(tmp_path, value):
    """It would cut the body in two, of which only the larger part is contoured."""
    hu = phantom_hu(SMALL)
    hu[20] = value

    error = refusal(write_small(tmp_path, hu=hu))

    assert error.code == ReasonCode.MISSING_SLICE
    assert f"z = {SMALL.positions_mm[20, 2]:.2f} mm" in str(error)


def test_air_above_the_head_is_no_missing_slice(tmp_path):
    hu = phantom_hu(SMALL)
    hu[-3:] = AIR_HU
    hu[0] = AIR_HU

    assert len(read_series(write_small(tmp_path, hu=hu)).hu) == len(hu)


@pytest.mark.parametrize(
    ("hu", "options"),
    [
        (np.full(SMALL.shape, 40), {}),
        (np.full(SMALL.shape, -1000), {}),
        (phantom_hu(SMALL) + 1024, {"intercept": 0}),
        (np.where(phantom_hu(SMALL) == AIR_HU, -1000, 900), {}),
    ],
)
def test_values_that_are_no_hounsfield_units_are_refused(tmp_path, hu, options):
    """No air, no soft tissue, or a scale that begins at zero."""
    error = refusal(write_small(tmp_path, hu=hu, **options))

    assert error.code == ReasonCode.IMPLAUSIBLE_HU
    assert "%" in str(error)


@pytest.mark.parametrize("keep", [0, 100, 200, 400, 900, -200])
def test_a_truncated_file_is_refused_and_nothing_else_is_raised(tmp_path, keep):
    """Wherever a file breaks off, the series is refused."""
    paths = write_small(tmp_path)
    paths[7].write_bytes(paths[7].read_bytes()[:keep])

    assert isinstance(refusal(paths), SeriesUnsuitable)


def test_a_damaged_stream_is_refused(tmp_path):
    """Compressed pixels that cannot be decoded are said to be so, with the file."""
    paths = write_small(tmp_path, transfer_syntax=uid.JPEG2000Lossless)
    data = bytearray(paths[7].read_bytes())
    start = data.index(b"\xff\x4f\xff\x51")
    data[start : start + 60] = bytes(60)
    paths[7].write_bytes(data)
    error = refusal(paths)

    assert error.code == ReasonCode.UNDECODABLE
    assert paths[7].name in str(error)


def test_random_bytes_anywhere_never_raise_anything_else(tmp_path):
    """One bad file refuses the series; it never breaks the program."""
    paths = write_small(tmp_path)
    whole = paths[7].read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(30):
        data = bytearray(whole)
        at = rng.integers(132, 1400, 6)
        for position in at:
            data[position] = rng.integers(256)
        paths[7].write_bytes(data)
        with contextlib.suppress(SeriesUnsuitable):
            read_series(paths)


def test_an_image_with_two_uids_is_refused(tmp_path):
    """By its one UID a copy is known, and a contour says on which image it was drawn."""
    paths = write_small(tmp_path)
    uid_bytes = pydicom.dcmread(paths[7]).SOPInstanceUID.encode()
    two = uid_bytes[:10] + b"\\" + uid_bytes[11:]
    paths[7].write_bytes(paths[7].read_bytes().replace(uid_bytes, two))

    assert refusal(paths).code == ReasonCode.UNDECODABLE


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("rows", [8, 40_000])
def test_compressed_pixels_of_another_size_than_the_header_says_reach_no_decoder(tmp_path, syntax, rows):
    """GDCM would end the process where they are fewer, others would ask for memory where they are more."""
    paths = write_small(tmp_path, transfer_syntax=syntax)
    data = bytearray(paths[7].read_bytes())
    pixels = data.rindex(b"\xe0\x7f\x10\x00")
    jpeg = next((m for m in (b"\xff\xc3", b"\xff\xf7") if m in data[pixels:]), None)
    at, size = (
        (data.index(jpeg, pixels) + 5, 2) if jpeg else (data.index(b"\xff\x4f\xff\x51", pixels) + 12, 4)
    )
    data[at : at + size] = rows.to_bytes(size)
    paths[7].write_bytes(data)
    error = refusal(paths)

    assert error.code == ReasonCode.UNDECODABLE
    assert f"rows={rows}" in error.message


def test_a_length_of_four_gigabytes_reserves_no_memory(tmp_path):
    paths = write_small(tmp_path)
    whole = paths[7].read_bytes()
    at = whole.index(b"\x28\x00\x30\x00DS")  # Pixel Spacing, made to have a length of four bytes
    paths[7].write_bytes(whole[:at] + b"\x28\x00\x30\x00UT\0\0\xf0\xff\xff\xff" + whole[at + 8 :])
    tracemalloc.start()
    try:
        assert isinstance(refusal(paths), SeriesUnsuitable)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_a_file_that_inflates_without_bound_is_refused(tmp_path):
    """A hundred kilobytes of zeros for each hundred megabytes."""
    paths = write_small(tmp_path, transfer_syntax=uid.DeflatedExplicitVRLittleEndian)
    whole = paths[7].read_bytes()
    start = 144 + int.from_bytes(whole[140:144], "little")
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    element = b"\x09\x00\x01\x10OB\0\0" + MAX_INFLATED_BYTES.to_bytes(4, "little")
    zeros = b"".join(deflater.compress(bytes(2**20)) for _ in range(MAX_INFLATED_BYTES // 2**20))
    paths[7].write_bytes(whole[:start] + deflater.compress(element) + zeros + deflater.flush())

    assert "inflates to more than 128 MB" in refusal(paths).message


def test_more_frames_than_one_are_refused_before_they_are_decoded(tmp_path):
    paths = write_small(tmp_path, NumberOfFrames=2**31 - 1)

    assert "2147483647 frames" in refusal(paths).message


def test_unsuitable_geometry_is_refused_before_pixels_are_read(tmp_path):
    """A series of any size is judged by its headers."""
    paths = write_small(tmp_path, change=changing("FrameOfReferenceUID", None))
    paths[3].write_bytes(paths[3].read_bytes()[:-500])

    assert refusal(paths).code == ReasonCode.NO_FRAME_OF_REFERENCE


# Real series


def test_lossless_copies_of_a_real_slice_are_identical():
    """Nine transfer syntaxes of one slice, minimum -2000 - 1024, give the same HU."""
    folder = shared_data() / "dicom" / "cornerstone-transfer-syntaxes"
    lossless = ["1.2", "1.2.1", "1.2.1.99", "1.2.2", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90", "1.2.5"]
    paths = [next(folder.glob(f"*_1.2.840.10008.{suffix}.dcm")) for suffix in lossless]
    volumes = [read_series([path], minimum_slices=1) for path in paths]

    assert volumes[0].hu.min() == -1024
    for volume in volumes[1:]:
        np.testing.assert_array_equal(volume.hu, volumes[0].hu)


@pytest.mark.parametrize("suffix", ["4.50", "4.81", "4.91"])
def test_lossy_copies_of_a_real_slice_are_close_and_told(suffix):
    """Lossy images are read, and the reader is told."""
    folder = shared_data() / "dicom" / "cornerstone-transfer-syntaxes"
    exact = read_series([folder / "CTImage.dcm"], minimum_slices=1)
    (path,) = folder.glob(f"*_1.2.840.10008.1.2.{suffix}.dcm")
    lossy = read_series([path], minimum_slices=1)

    assert np.median(np.abs(lossy.hu - exact.hu)) < 20
    assert any("lossy" in remark for remark in lossy.remarks)


@pytest.mark.parametrize("suffix", ["4.51", "4.53", "4.55"])
def test_what_no_decoder_takes_is_refused_as_undecodable(suffix):
    """Two retired transfer syntaxes, and twelve bits of JPEG Extended."""
    folder = shared_data() / "dicom" / "cornerstone-transfer-syntaxes"

    assert refusal(list(folder.glob(f"*.{suffix}.dcm")), minimum_slices=1).code == ReasonCode.UNDECODABLE


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("slicer-cthead", ReasonCode.NO_FRAME_OF_REFERENCE),
        ("dicom2nifti-not-a-volume", ReasonCode.DUPLICATE_POSITION),
        ("dicom2nifti-gantry-tilt", ReasonCode.NO_FRAME_OF_REFERENCE),
        ("segmentation_RT-cheese", ReasonCode.TOO_FEW_SLICES),
        ("rt-utils-phantom", ReasonCode.TOO_FEW_SLICES),
    ],
)
def test_unsuitable_real_series_are_refused_for_their_true_reason(name, code):
    """Public series with known faults."""
    ((_, paths),) = find_series(shared_data() / "dicom" / name).items()

    assert refusal(paths).code == code


def test_real_tilted_series_stands_sheared():
    """14 degrees are found without any tag, 4.851 mm between planes; only its frame of reference is missing."""
    folder = shared_data() / "dicom" / "dicom2nifti-gantry-tilt"
    headers = [replace(slice_header(p), frame_of_reference_uid="1.2.3") for p in folder.glob("*.dcm")]
    stack = stack_slices(headers, minimum_slices=4)

    assert stack.remarks == ("gantry tilt 14.0 degrees",)
    assert stack.grid.spacing_mm[0] == pytest.approx(4.851, abs=0.001)
    assert stack.grid.is_uniform


def test_real_head_phantom_is_read_without_its_localizer(tmp_path):
    """28 slices next to a localizer of the same study, in one folder and even in one list."""
    with tarfile.open(shared_data() / "dicom" / "dcm_qa_ct-head-phantom" / "S21570.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    found = sorted(find_series(tmp_path).values(), key=len)
    volume = read_series([*found[0], *found[1]])

    assert [len(paths) for paths in found] == [1, 28]
    assert refusal(found[0]).code == ReasonCode.LOCALIZER_ONLY
    assert volume.hu.shape == (28, 512, 512)
    assert volume.remarks == ("1 localizer left out",)
    assert volume.grid.spacing_mm == pytest.approx((5, 0.451171875, 0.451171875))


def test_real_values_below_air_become_air():
    """A PET/CT with -3024 outside its field of view."""
    ((_, paths),) = find_series(shared_data() / "dicom" / "rt-utils-phantom").items()

    assert read_series(paths, minimum_slices=2).hu.min() == -1024


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dicom3tools")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"orientation": "FFS", "tilt_degrees": 14},
        {"transfer_syntax": uid.JPEGLosslessSV1},
        {"transfer_syntax": uid.ImplicitVRLittleEndian, "signed": True, "intercept": 0},
    ],
)
def test_phantom_files_are_valid_dicom(tmp_path, options):
    """What our own tests send is what a scanner may send."""
    path = write_series(tmp_path, **options)[0]
    checked = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)

    assert "Error" not in checked.stderr + checked.stdout


def test_phantom_parts_have_their_volumes():
    """The phantom itself is right: a ball of radius 22 mm and a cube of 34 mm."""
    grid = make_grid(offsets_mm=np.arange(-98, 99, 2.0), pixel_spacing_mm=(1, 1), size=(192, 162))
    masks = phantom_masks(grid)

    assert isinstance(masks["left_ball"], Mask)
    assert masks["left_ball"].volume_cm3(grid) == pytest.approx(4 / 3 * np.pi * 2.2**3, rel=0.01)
    assert masks["right_cube"].volume_cm3(grid) == pytest.approx(3.4**3, rel=0.03)


def test_metal_is_never_air(tmp_path):
    hu = phantom_hu(SMALL).astype(int)
    hu[:, 10, 10:12] = 40000
    volume = read_series(write_small(tmp_path, hu=hu, slope=2))
    assert (volume.hu[:, 10, 10:12] == 32767).all()


def test_bits_in_another_place_than_the_standard_wants_are_refused(tmp_path):
    """Their values would be read wrongly."""
    error = refusal(write_small(tmp_path, change=changing("BitsStored", 12)))
    assert error.code == ReasonCode.UNDECODABLE
    assert "High Bit 15 of 12 stored bits" in str(error)


def test_values_are_rounded(tmp_path):
    volume = read_series(write_small(tmp_path, slope=0.7))
    stored_hu = np.rint(np.rint((phantom_hu(SMALL) + 1024) / 0.7) * 0.7 - 1024)
    np.testing.assert_array_equal(volume.hu, stored_hu)


def test_an_intercept_may_be_a_fraction(tmp_path):
    volume = read_series(write_small(tmp_path, intercept=-1023.6))
    expected = np.rint(np.rint(phantom_hu(SMALL) + 1023.6) - 1023.6)
    np.testing.assert_array_equal(volume.hu, expected.clip(-1024))


def test_two_images_of_one_uid_size_and_time_are_no_copies(tmp_path):
    paths = write_small(tmp_path, change=changing("SOPInstanceUID", "1.2.3", [5, 6]))
    for path in paths:
        os.utime(path, (0, 0))
    assert refusal(paths).code == ReasonCode.DUPLICATE_INSTANCE


def turned_about_its_row(degrees):
    """Change of the sixth slice's orientation."""
    turn = np.radians(degrees)
    orientation = [1, 0, 0, 0, float(f"{np.cos(turn):.8f}"), float(f"{np.sin(turn):.8f}")]
    return changing("ImageOrientationPatient", orientation, [5])


def test_directions_may_differ_by_rounding_only(tmp_path):
    assert len(read_series(write_small(tmp_path / "rounded", change=turned_about_its_row(0.03))).hu)
    paths = write_small(tmp_path / "turned", change=turned_about_its_row(0.2))
    assert refusal(paths).code == ReasonCode.MIXED_ORIENTATION


def test_a_spacing_that_differs_by_five_micrometres_is_another(tmp_path):
    assert (
        refusal(write_small(tmp_path, change=changing("PixelSpacing", [6, 5.505], [5]))).code
        == ReasonCode.MIXED_SPACING
    )


def test_five_images_across_among_a_hundred_are_scouts(tmp_path):
    """Left out as such, and not refused for their orientation; what they leave here are gaps."""
    grid = make_grid(offsets_mm=np.arange(0, 200, 2), size=(8, 8))
    across = changing("ImageOrientationPatient", [0, 1, 0, 0, 0, -1], [0, 20, 40, 60, 80])
    assert refusal(write_series(tmp_path, grid=grid, change=across)).code == ReasonCode.MISSING_SLICE


def test_ten_millimetres_are_taken(tmp_path):
    grid = make_grid(offsets_mm=np.arange(0, 200, 10.0), size=(8, 8))
    assert len(stack_slices([slice_header(p) for p in write_series(tmp_path, grid=grid)]).headers) == 20


def test_a_gap_a_fifth_wider_is_irregular(tmp_path):
    gaps = [5] * 10 + [6] + [5] * 10
    grid = make_grid(offsets_mm=np.concatenate([[0], np.cumsum(gaps)]), size=(8, 8))
    assert refusal(write_series(tmp_path, grid=grid)).code == ReasonCode.IRREGULAR_SPACING


def test_a_small_tilt_is_told(tmp_path):
    grid = make_grid(
        offsets_mm=np.arange(-100, 101, 8), size=(36, 34), pixel_spacing_mm=(6, 5.5), tilt_degrees=2
    )
    assert any("gantry tilt 2.0" in each for each in read_series(write_series(tmp_path, grid=grid)).remarks)
