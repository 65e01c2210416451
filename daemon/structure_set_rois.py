"""What a structure set says of one ROI: name, codes, type and contours (PS3.3 C.8.8.5, C.8.8.6, C.8.8.8)."""

from collections.abc import Sequence
from functools import lru_cache

from pydicom import Dataset

from daemon.contour_data import count_points, encode_contours
from daemon.destination_profile import CodeScheme, Profile
from daemon.raw_sequence import element, encoded, put, referenced_slice
from daemon.raw_sequence import item as raw_item
from daemon.result_header import MAX_LO, MAX_ST, code_item, plain
from daemon.structure_template import ROI, Codes
from model.ct import CTVolume
from model.structures import ORGAN_CATEGORY


def roi_item(roi: ROI, frame_of_reference_uid: str, made_by: str, algorithm: Sequence[bytes]) -> Dataset:
    """Item of Structure Set ROI Sequence.

    Parameters
    ----------
    made_by
        The model in a few words.
    algorithm
        Encoded items of ROI Derivation Algorithm Identification Sequence.
    """
    item = Dataset()
    item.ROINumber = roi.number
    item.ReferencedFrameOfReferenceUID = frame_of_reference_uid
    item.ROIName = roi.name
    if said := _sentences(roi.generation, roi.remark):
        item.ROIDescription = plain(said, MAX_ST)
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    description = filter(None, (made_by, "not reviewed", roi.generation))
    item.ROIGenerationDescription = plain(", ".join(description), MAX_LO)
    put(item, "ROIDerivationAlgorithmIdentificationSequence", algorithm)
    return item


def _sentences(generation: str, remark: str) -> str:
    return ". ".join(filter(None, (f"Made from {generation}" if generation else "", remark)))


def observation_item(roi: ROI, scheme: CodeScheme) -> Dataset:
    """Item of RT ROI Observations Sequence."""
    item = Dataset()
    item.ObservationNumber = roi.number
    item.ReferencedROINumber = roi.number
    for keyword, code in _identification(roi.codes, scheme):
        put(item, keyword, [code])
    item.RTROIInterpretedType = roi.interpreted_type.value
    item.ROIInterpreter = None
    return item


@lru_cache(maxsize=1024)
def _identification(own: Codes, scheme: CodeScheme) -> tuple[tuple[str, bytes], ...]:
    """An organ's codes, as keywords of sequences each with its encoded item.

    One code identifies, and the others stand beside it (PS3.3 C.8.8.8, 10.5).
    The SNOMED CT concept has its side as a modifier, the FMA's includes it; so the FMA's may be equivalent to
    SNOMED CT's with its modifier, but never the other way round.
    """
    identifying = own.site or (own.fma if scheme is CodeScheme.FMA else own.snomed)
    if identifying is None:
        return ()
    identification = code_item(identifying)
    items = {"RTROIIdentificationCodeSequence": identification}
    if own.snomed:
        items["SegmentedPropertyCategoryCodeSequence"] = code_item(ORGAN_CATEGORY)
        if identifying is own.snomed:
            if own.laterality:
                identification.SegmentedPropertyTypeModifierCodeSequence = [code_item(own.laterality)]
        else:
            anatomy = code_item(own.snomed)
            if own.laterality:
                anatomy.PrimaryAnatomicStructureModifierSequence = [code_item(own.laterality)]
            items["PrimaryAnatomicStructureSequence"] = anatomy
    if own.fma and identifying is not own.fma:
        identification.EquivalentCodeSequence = [code_item(own.fma)]
    return tuple((keyword, encoded(item)) for keyword, item in items.items())


def roi_contour_item(roi: ROI, volume: CTVolume, profile: Profile) -> Dataset:
    """Item of ROI Contour Sequence; without Contour Sequence where there are no contours."""
    item = Dataset()
    item.ReferencedROINumber = roi.number
    item.ROIDisplayColor = list(roi.colour_rgb)
    if roi.contours:
        values = encode_contours(roi.contours, volume.grid, profile.decimals, profile.max_points)
        images = [volume.sop_instance_uids[each.slice_index] for each in roi.contours]
        put(item, "ContourSequence", map(_contour, images, values))
    return item


def _contour(sop_instance_uid: str, contour_data: bytes) -> bytes:
    """Elements of an item of Contour Sequence, by their tags."""
    return b"".join(
        (
            element(0x3006, 0x0016, raw_item(referenced_slice(sop_instance_uid))),  # Contour Image Sequence
            element(0x3006, 0x0042, b"CLOSED_PLANAR"),  # Contour Geometric Type
            element(0x3006, 0x0046, b"%d" % count_points(contour_data)),  # Number of Contour Points
            element(0x3006, 0x0050, contour_data),  # Contour Data
        )
    )
