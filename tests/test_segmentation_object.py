"""The DICOM Segmentation: every voxel of every organ where it was, coded, and the same bytes each time."""

from functools import cache
from io import BytesIO

import highdicom
import numpy as np
import pytest
from highdicom.color import CIELabColor
from pydicom import Dataset, dcmread
from pydicom.uid import SegmentationStorage

from daemon.result_header import encode
from daemon.segmentation_object import build_segmentation
from model.geometry import Mask, SliceGrid
from model.structures import structure
from tests.phantom import make_grid
from tests.structure_set_samples import IDENTITY, MODEL, NOT_FOUND, ct_header, ct_volume, organ_masks

KINDS = ["HFS", "FFP", "HFDL", "tilted", "uneven", "odd size"]


@cache
def grid_of(kind: str) -> SliceGrid:
    coarse = {"size": (64, 60), "pixel_spacing_mm": (3.5, 3.0)}
    if kind == "tilted":
        return make_grid(tilt_degrees=14, **coarse)
    if kind == "uneven":
        return make_grid(offsets_mm=[*np.arange(-100, 0, 2.5), *np.arange(0, 101, 4.1)], **coarse)
    if kind == "odd size":
        return make_grid(size=(61, 59), pixel_spacing_mm=(3.5, 3.0))
    return make_grid(kind, **coarse)


@cache
def masks_of(kind: str) -> dict[str, Mask]:
    """The phantom's organs, with a lens that lies in the eye."""
    masks = organ_masks(grid_of(kind))
    eye = masks["Lens_L"].full()
    eye |= np.roll(eye, 1, axis=1)
    return {**masks, "Eye_L": Mask.from_full(eye)}


@cache
def written(kind: str) -> bytes:
    return encode(build_segmentation(ct_volume(grid_of(kind)), masks_of(kind), IDENTITY, MODEL))


def read(kind: str = "HFS") -> Dataset:
    return dcmread(BytesIO(written(kind)))


def voxels_by_numpy(dataset: Dataset, grid: SliceGrid) -> dict[str, np.ndarray]:
    """A reader of its own: bits in a row, each frame put on the plane at its own position."""
    count = dataset.NumberOfFrames * dataset.Rows * dataset.Columns
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), count=count, bitorder="little")
    frames = bits.reshape(dataset.NumberOfFrames, dataset.Rows, dataset.Columns)
    labels = {int(item.SegmentNumber): str(item.SegmentLabel) for item in dataset.SegmentSequence}
    full = {label: np.zeros(grid.shape, dtype=bool) for label in labels.values()}
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        distances = np.linalg.norm(grid.positions_mm - position, axis=1)
        assert distances.min() < 1e-6
        label = labels[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        full[label][distances.argmin()] |= frame.astype(bool)
    return full


@pytest.mark.parametrize("kind", KINDS)
def test_every_voxel_is_read_back_by_its_frame_s_position(kind):
    masks = masks_of(kind)
    found = voxels_by_numpy(read(kind), grid_of(kind))
    assert set(found) == set(masks) - {NOT_FOUND}
    for name, full in found.items():
        np.testing.assert_array_equal(full, masks[name].full(), err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_highdicom_reads_every_voxel_by_the_slice_it_was_made_from(kind):
    masks, volume = masks_of(kind), ct_volume(grid_of(kind))
    segmentation = highdicom.seg.segread(BytesIO(written(kind)))
    stack = segmentation.get_pixels_by_source_instance(
        list(volume.sop_instance_uids), assert_missing_frames_are_empty=True
    )  # (slices, rows, columns, segments)
    for index, description in enumerate(segmentation.SegmentSequence):
        np.testing.assert_array_equal(stack[..., index], masks[description.SegmentLabel].full())


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_box_is_read_as_a_box(kind):
    """Of even upright slices highdicom makes a volume by geometry alone; of others it must not."""
    grid = grid_of(kind)
    segmentation = highdicom.seg.segread(BytesIO(written(kind)))
    if kind in {"tilted", "uneven"}:
        assert (
            "SpacingBetweenSlices"
            not in segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        )
        assert segmentation.get_volume_geometry() is None
        return
    volume = segmentation.get_volume(allow_missing_positions=True)
    spacing = np.array(volume.spacing)
    np.testing.assert_allclose(sorted(spacing), sorted(grid.spacing_mm), atol=1e-6)
    for index, description in enumerate(segmentation.SegmentSequence):
        inside = np.argwhere(volume.array[..., index])
        where = volume.map_indices_to_reference(inside)
        mask = masks_of(kind)[description.SegmentLabel]
        expected = [
            grid.to_patient(s, np.argwhere(plane)) for s, plane in enumerate(mask.full()) if plane.any()
        ]
        np.testing.assert_allclose(
            np.sort(where.round(3), axis=0), np.sort(np.concatenate(expected).round(3), axis=0), atol=2e-3
        )


def test_only_slices_with_voxels_have_frames():
    dataset, masks = read(), masks_of("HFS")
    expected = sum(int(mask.voxels.any(axis=(1, 2)).sum()) for mask in masks.values())
    assert dataset.NumberOfFrames == len(dataset.PerFrameFunctionalGroupsSequence) == expected
    assert len(dataset.PixelData) == (expected * 64 * 60 + 7) // 8


def test_each_frame_names_the_slice_it_was_made_from():
    dataset, volume = read(), ct_volume(grid_of("HFS"))
    for group in dataset.PerFrameFunctionalGroupsSequence:
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        index = volume.sop_instance_uids.index(source.ReferencedSOPInstanceUID)
        np.testing.assert_allclose(
            group.PlanePositionSequence[0].ImagePositionPatient, volume.grid.positions_mm[index]
        )
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == volume.header.SeriesInstanceUID
    listed = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
    assert listed == list(volume.sop_instance_uids)


def test_dimension_indices_are_unique_and_follow_segment_and_position():
    values = [
        tuple(group.FrameContentSequence[0].DimensionIndexValues)
        for group in read().PerFrameFunctionalGroupsSequence
    ]
    assert values == sorted(set(values))
    for column in zip(*values, strict=True):
        assert sorted(set(column)) == list(range(1, max(column) + 1))


def test_segments_are_coded_with_their_side_and_coloured():
    segments = {item.SegmentLabel: item for item in read().SegmentSequence}
    assert list(segments) == ["Brain", "Lens_L", "Eye_L", "Parotid_L", "Parotid_R", "SpinalCord"]
    for number, (name, item) in enumerate(segments.items(), start=1):
        organ = structure(name)
        (category,) = item.SegmentedPropertyCategoryCodeSequence
        (kind,) = item.SegmentedPropertyTypeCodeSequence
        assert item.SegmentNumber == number
        assert (category.CodeValue, category.CodingSchemeDesignator) == ("123037004", "SCT")
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == (organ.code.value, "SCT")
        sides = [each.CodeValue for each in kind.get("SegmentedPropertyTypeModifierCodeSequence", [])]
        assert sides == ([organ.laterality.value] if organ.laterality else [])
        colour = CIELabColor.from_dicom_value(item.RecommendedDisplayCIELabValue)
        np.testing.assert_allclose(colour.to_rgb(), organ.colour_rgb, atol=2)


def test_it_says_which_weights_made_it_and_that_nobody_looked():
    dataset = read()
    (algorithm,) = dataset.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert dataset.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (MODEL.name, MODEL.version)
    assert MODEL.digest in algorithm.AlgorithmParameters
    assert "NEEDS REVIEW" in dataset.SeriesDescription
    assert "UNREVIEWED" in dataset.ContentLabel
    assert "not reviewed" in dataset.ContentDescription
    assert all("NEEDS REVIEW" in item.SegmentDescription for item in dataset.SegmentSequence)


@pytest.mark.parametrize(("without", "expected"), [((), "YES"), (("Eye_L",), "NO")])
def test_it_says_whether_segments_overlap(without, expected):
    masks = {name: mask for name, mask in masks_of("HFS").items() if name not in without}
    dataset = build_segmentation(ct_volume(grid_of("HFS")), masks, IDENTITY, MODEL)
    assert dataset.SegmentsOverlap == expected


def test_the_same_arguments_make_the_same_bytes_in_any_order_of_masks():
    volume, masks = ct_volume(grid_of("HFS")), masks_of("HFS")
    turned = dict(reversed(masks.items()))
    assert encode(build_segmentation(volume, turned, IDENTITY, MODEL)) == written("HFS")


def test_identifiers_and_dates_are_the_job_s_and_the_study_is_the_ct_s():
    header = ct_header(
        PatientID="P1",
        PatientName="Müller^Jörg",
        SpecificCharacterSet="ISO_IR 100",
        StudyDate="20240228",
        AccessionNumber="A7",
        LossyImageCompression="01",
        LossyImageCompressionRatio="8",
        SliceThickness="3",
    )
    grid = grid_of("HFS")
    result = build_segmentation(ct_volume(grid, header), masks_of("HFS"), IDENTITY, MODEL)
    dataset = dcmread(BytesIO(encode(result)))
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID == IDENTITY.sop_instance_uid
    assert dataset.SOPClassUID == SegmentationStorage
    assert dataset.SeriesInstanceUID == IDENTITY.series_instance_uid
    assert dataset.FrameOfReferenceUID == header.FrameOfReferenceUID
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
        assert dataset[keyword].value == header[keyword].value
    for kind in ("Content", "Series", "InstanceCreation"):
        assert (dataset[f"{kind}Date"].value, dataset[f"{kind}Time"].value) == ("20240229", "235907")
    assert (dataset.LossyImageCompression, dataset.LossyImageCompressionRatio) == ("01", 8)
    assert dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 3


@pytest.mark.parametrize("thickness", [["2", "3"], "-2", "0", ""])
def test_a_slice_thickness_that_is_none_gives_way_to_the_distance_of_slices(thickness):
    grid = grid_of("HFS")
    made = build_segmentation(
        ct_volume(grid, ct_header(SliceThickness=thickness)), masks_of("HFS"), IDENTITY, MODEL
    )
    measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == pytest.approx(grid.spacing_mm[0])


def test_nothing_found_is_no_segmentation():
    empty = {NOT_FOUND: masks_of("HFS")[NOT_FOUND]}
    with pytest.raises(ValueError, match="no mask has voxels"):
        build_segmentation(ct_volume(grid_of("HFS")), empty, IDENTITY, MODEL)


def test_masks_of_another_volume_are_refused():
    with pytest.raises(ValueError, match="Brain: the mask's volume"):
        build_segmentation(ct_volume(grid_of("uneven")), masks_of("HFS"), IDENTITY, MODEL)
