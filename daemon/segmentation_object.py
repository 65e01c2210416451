"""The Segmentation IOD (PS3.3 A.51): one segment per organ, its frames on the CT's own slices."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from highdicom.base import SOPClass
from highdicom.color import CIELabColor
from highdicom.content import (
    AlgorithmIdentificationSequence,
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
)
from highdicom.seg import SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as CodeOf
from pydicom.tag import Tag
from pydicom.uid import SegmentationStorage

from daemon.result_header import (
    MANUFACTURER,
    MAX_LO,
    ModelIdentity,
    ResultIdentity,
    code_item,
    derived_uid,
    new_result,
    plain,
    readable,
    referenced_slice,
    referenced_slices,
    series_description,
)
from model.ct import CTVolume
from model.geometry import POSITION_TOLERANCE_MM, Mask, SliceGrid
from model.structures import EXTRA_STRUCTURES, ORGAN_CATEGORY, STRUCTURES, Code, Structure, structure

SERIES_NUMBER = 901
SERIES_DESCRIPTION = "Automatic segmentation - NEEDS REVIEW"
CONTENT_LABEL = "AUTO UNREVIEWED"
"""CS: at most 16 capitals, digits, spaces and underscores."""

_ORDER = {each.name: place for place, each in enumerate(STRUCTURES + EXTRA_STRUCTURES)}
_FRAMES_AT_ONCE = 8
"""Their bits always fill whole bytes, whatever the size of a frame."""


@dataclass(frozen=True)
class _Frame:
    """One organ on one slice."""

    segment_number: int
    slice_index: int
    mask: Mask

    def pixels(self) -> NDArray[np.bool_]:
        """(rows, columns) of the whole slice."""
        whole = np.zeros(self.mask.shape[1:], dtype=bool)
        crop = self.mask.voxels[self.slice_index - self.mask.corner[0]]
        _, row, column = self.mask.corner
        whole[row : row + crop.shape[0], column : column + crop.shape[1]] = crop
        return whole


def build_segmentation(
    volume: CTVolume,
    masks: Mapping[str, Mask],
    identity: ResultIdentity,
    model: ModelIdentity,
    doubts: Sequence[str] = (),
) -> SOPClass:
    """Make the segmentation of one volume; the same arguments make the same bytes.

    Written module by module: highdicom's `Segmentation` wants all organs in one array, which for 21 organs on
    200 slices is 1.1 GB, and takes seven times as long. Its parts are used, and its reader in the tests.

    Every frame has its slice's own position, so uneven and sheared slices lie where they belong. Only where all
    slices make one upright box is a Spacing Between Slices written: a reader that needs a box must not be told
    of one that is none.

    Parameters
    ----------
    volume
        The CT; its header gives patient, study and frame of reference, and each frame refers to its slice.
    masks
        By TG-263 name, on the volume's grid; organs may overlap, and one without voxels is left out, as it is
        from a structure set. Segments are in the order of `STRUCTURES`, numbered from 1 without gaps.
    doubts
        What is doubtful, for the series' description, as in the structure set.

    Raises
    ------
    ValueError
        A name that is no structure's, a mask of another volume, or no mask with voxels: a segmentation cannot
        be empty.
    """
    found = _found(volume, masks)
    organs = [structure(name) for name in found]
    frames = list(_frames(found))
    header = readable(volume.header)
    result = new_result(
        SegmentationStorage,
        volume,
        identity,
        model,
        modality="SEG",
        series_number=SERIES_NUMBER,
        series_description=series_description(SERIES_DESCRIPTION, doubts),
    )
    # Frame of Reference (C.7.4.1)
    result.FrameOfReferenceUID = header.FrameOfReferenceUID
    result.PositionReferenceIndicator = header.get("PositionReferenceIndicator")
    # Segmentation Image (C.8.20.2)
    result.ImageType = ["DERIVED", "PRIMARY"]
    result.ContentLabel = CONTENT_LABEL
    result.ContentDescription = "Segmented automatically; not reviewed by a person"
    result.ContentCreatorName = None
    result.BurnedInAnnotation = "NO"
    result.SegmentationType = "BINARY"
    result.SegmentsOverlap = "YES" if _any_overlap(found) else "NO"
    result.SegmentSequence = [_segment(number, each, model) for number, each in enumerate(organs, start=1)]
    _copy_lossy_compression(result, header)
    # Common Instance Reference (C.12.2)
    series = Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ReferencedInstanceSequence = referenced_slices(volume.sop_instance_uids)
    result.ReferencedSeriesSequence = [series]
    # Multi-frame Functional Groups and Dimension (C.7.6.16, C.7.6.17)
    _add_dimensions(result, derived_uid(identity, "dimension organization"))
    result.SharedFunctionalGroupsSequence = [_shared_groups(volume.grid, header)]
    result.PerFrameFunctionalGroupsSequence = _groups_of_frames(frames, volume)
    result.NumberOfFrames = len(frames)
    # Image Pixel (C.7.6.3)
    _add_pixels(result, frames, volume.grid)
    return result


def _found(volume: CTVolume, masks: Mapping[str, Mask]) -> dict[str, Mask]:
    """Organs with voxels, in the order of `STRUCTURES`."""
    found = {structure(name).name: mask for name, mask in masks.items() if not mask.is_empty}
    if not found:
        raise ValueError("no mask has voxels; a segmentation needs at least one frame")
    for name, mask in found.items():
        if mask.shape != volume.grid.shape:
            raise ValueError(f"{name}: the mask's volume is {mask.shape}, the CT's is {volume.grid.shape}")
    return {name: found[name] for name in sorted(found, key=_ORDER.__getitem__)}


def _frames(found: Mapping[str, Mask]) -> Iterator[_Frame]:
    for number, mask in enumerate(found.values(), start=1):
        for index in np.flatnonzero(mask.voxels.any(axis=(1, 2))):
            yield _Frame(number, mask.corner[0] + int(index), mask)


def _any_overlap(found: Mapping[str, Mask]) -> bool:
    seen = np.zeros(next(iter(found.values())).shape, dtype=bool)
    for mask in found.values():
        box = tuple(slice(c, c + n) for c, n in zip(mask.corner, mask.voxels.shape, strict=True))
        if (seen[box] & mask.voxels).any():
            return True
        seen[box] |= mask.voxels
    return False


def _segment(number: int, organ: Structure, model: ModelIdentity) -> SegmentDescription:
    segment = SegmentDescription(
        segment_number=number,
        segment_label=organ.name,
        segmented_property_category=_concept(ORGAN_CATEGORY),
        segmented_property_type=_concept(organ.code),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=plain(model.name, MAX_LO),
            family=codes.cid7162.ArtificialIntelligence,
            version=plain(model.version, MAX_LO),
            source=MANUFACTURER,
            parameters={"weights sha256": model.digest},
        ),
        display_color=CIELabColor.from_rgb(*organ.colour_rgb),
    )
    segment.SegmentDescription = f"{organ.fma_code.meaning}, segmented automatically; NEEDS REVIEW"
    if organ.laterality:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [code_item(organ.laterality)]
    return segment


def _concept(code: Code) -> CodeOf:
    return CodeOf(code.value, code.scheme_designator, code.meaning)


def _copy_lossy_compression(result: Dataset, header: Dataset) -> None:
    """What was drawn on a lossy image is lossy itself."""
    result.LossyImageCompression = "01" if header.get("LossyImageCompression") == "01" else "00"
    if result.LossyImageCompression == "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if header.get(keyword):
                setattr(result, keyword, header[keyword].value)


def _add_dimensions(result: Dataset, uid: str) -> None:
    """Frames are ordered by segment, and within it by the slice's position."""
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    result.DimensionOrganizationSequence = [organization]
    result.DimensionIndexSequence = [
        _dimension(uid, "ReferencedSegmentNumber", "SegmentIdentificationSequence", "Segment Number"),
        _dimension(uid, "ImagePositionPatient", "PlanePositionSequence", "Image Position (Patient)"),
    ]


def _dimension(uid: str, keyword: str, group: str, label: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = uid
    item.DimensionIndexPointer = Tag(keyword)
    item.FunctionalGroupPointer = Tag(group)
    item.DimensionDescriptionLabel = label
    return item


def _shared_groups(grid: SliceGrid, header: Dataset) -> Dataset:
    gap_mm = grid.spacing_mm[0]
    groups = Dataset()
    groups.PixelMeasuresSequence = PixelMeasuresSequence(
        pixel_spacing=grid.pixel_spacing_mm,
        slice_thickness=_thickness_mm(header) or gap_mm or None,
        spacing_between_slices=gap_mm if _is_upright_box(grid) else None,
    )
    groups.PlaneOrientationSequence = PlaneOrientationSequence(
        "PATIENT", [*map(float, grid.row_direction), *map(float, grid.column_direction)]
    )
    return groups


def _thickness_mm(header: Dataset) -> float | None:
    thickness = header.get("SliceThickness")
    return float(thickness) if isinstance(thickness, float) and thickness > 0 else None


def _is_upright_box(grid: SliceGrid) -> bool:
    """Whether slices are evenly spaced and stand straight above each other."""
    across = grid.positions_mm - np.outer(grid.offsets_mm, grid.normal)
    return grid.is_uniform and bool((np.ptp(across, axis=0) <= POSITION_TOLERANCE_MM).all())


def _groups_of_frames(frames: Sequence[_Frame], volume: CTVolume) -> list[Dataset]:
    """Per frame: which segment, which slice, where, and the place along both dimensions."""
    slices = sorted({frame.slice_index for frame in frames})
    places = {index: place for place, index in enumerate(slices, start=1)}
    positions = {
        index: PlanePositionSequence("PATIENT", [float(mm) for mm in volume.grid.positions_mm[index]])
        for index in slices
    }
    derivations = {index: [_derivation(volume.sop_instance_uids[index])] for index in slices}
    groups = []
    for frame in frames:
        identification = Dataset()
        identification.ReferencedSegmentNumber = frame.segment_number
        content = Dataset()
        content.DimensionIndexValues = [frame.segment_number, places[frame.slice_index]]
        group = Dataset()
        group.DerivationImageSequence = derivations[frame.slice_index]
        group.FrameContentSequence = [content]
        group.PlanePositionSequence = positions[frame.slice_index]
        group.SegmentIdentificationSequence = [identification]
        groups.append(group)
    return groups


def _derivation(sop_instance_uid: str) -> Dataset:
    """From which slice a frame was made, with its pixels in the same places (C.7.6.16.2.6)."""
    source = referenced_slice(sop_instance_uid)
    source.PurposeOfReferenceCodeSequence = [
        _item(codes.cid7202.SourceImageForImageProcessingOperation),
    ]
    source.SpatialLocationsPreserved = "YES"
    derivation = Dataset()
    derivation.SourceImageSequence = [source]
    derivation.DerivationCodeSequence = [_item(codes.cid7203.SegmentationImageDerivation)]
    return derivation


def _item(concept: CodeOf) -> Dataset:
    return code_item(Code(concept.value, concept.scheme_designator, concept.meaning))


def _add_pixels(result: Dataset, frames: Sequence[_Frame], grid: SliceGrid) -> None:
    """One bit per voxel, frame after frame without padding between them (PS3.5 8.1.1)."""
    result.SamplesPerPixel = 1
    result.PhotometricInterpretation = "MONOCHROME2"
    result.Rows, result.Columns = grid.rows, grid.columns
    result.BitsAllocated, result.BitsStored, result.HighBit = 1, 1, 0
    result.PixelRepresentation = 0
    packed = bytearray()
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        batch = np.stack([frame.pixels() for frame in frames[start : start + _FRAMES_AT_ONCE]])
        packed += pack_bits(batch.astype(np.uint8), pad=False)
    packed += b"\0" * (len(packed) % 2)
    result.PixelData = bytes(packed)
    result["PixelData"].VR = "OB"
