"""Which CT series a structure set was drawn on: by the images it names, or else by its frame of reference.

Images are the strongest evidence, since the coordinates are theirs. Whatever contradicts them is refused:
another patient, another frame of reference, images of two series.
"""

from collections import Counter
from dataclasses import dataclass

from training.archive_index import ArchiveIndex, Header
from training.structure_sets import StructureSet


class NoMatchError(Exception):
    """The structure set belongs to no CT series that is here; the message says why."""


@dataclass(frozen=True)
class Match:
    """Series Instance UID of the CT, and what is odd about the references."""

    series_instance_uid: str
    remarks: tuple[str, ...]


def match(structure_set: StructureSet, header: Header, index: ArchiveIndex) -> Match:
    """Find the CT series of a structure set.

    Raises
    ------
    NoMatchError
        None fits, several do, or what fits is of another patient or frame of reference.
    """
    if structure_set.image_uids:
        found = _by_images(structure_set, index)
    else:
        found = _by_frame(structure_set, header, index)
    series = index.series[found.series_instance_uid]
    if any(header.patient.differs(ct.patient) for ct in series):
        raise NoMatchError("it refers to the CT of another patient (Patient ID or Birth Date differ)")
    frames = {ct.frame_of_reference_uid for ct in series}
    if structure_set.frames and not frames <= structure_set.frames:
        raise NoMatchError(
            "its Frame of Reference is not that of the CT it refers to: its coordinates may not be either"
        )
    other_study = {ct.study_instance_uid for ct in series} != {header.study_instance_uid}
    more = ("it lies in another study than its CT",) if other_study else ()
    return Match(found.series_instance_uid, (*found.remarks, *more))


def _by_images(structure_set: StructureSet, index: ArchiveIndex) -> Match:
    wanted = structure_set.image_uids
    here = Counter(uid for image in wanted for uid in index.series_of_image.get(image, ()))
    if not here:
        named = structure_set.series_uids & set(index.series)
        though = ", though the series it names is" if named else ""
        raise NoMatchError(f"none of the {len(wanted)} images it refers to is here{though}")
    if len(here) > 1:
        raise NoMatchError(f"it refers to images of {len(here)} CT series")
    ((uid, count),) = here.items()
    remarks = []
    if count < len(wanted):
        remarks.append(f"{len(wanted) - count} of the {len(wanted)} images it refers to are not here")
    if structure_set.series_uids and uid not in structure_set.series_uids:
        remarks.append("it names another series than that of its images; the images count")
    return Match(uid, tuple(remarks))


def _by_frame(structure_set: StructureSet, header: Header, index: ArchiveIndex) -> Match:
    """The one series that it names, or the patient's one series in its frame of reference."""
    named = list(structure_set.series_uids & set(index.series))
    if len(named) == 1:
        return Match(named[0], ("it refers to a series but to no images",))
    fitting = {
        uid
        for uid, series in index.series.items()
        if not header.patient.differs(series[0].patient)
        and series[0].frame_of_reference_uid in structure_set.frames - {""}
    }
    if len(fitting) != 1:
        raise NoMatchError(
            f"it refers to no images, and {len(fitting)} CT series of the patient have its Frame of Reference"
        )
    return Match(fitting.pop(), ("it refers to no images; found by its Frame of Reference",))
