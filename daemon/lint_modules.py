"""Rules about attributes as a whole: what a structure set must have, and the file it comes in."""

from collections.abc import Iterator

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
)

from daemon.iod_rules import absences, module_keywords
from daemon.lint_finding import Finding, error, note, warning
from daemon.lint_view import StructureSetView, items, text

ABSENT = error(
    "attribute-missing",
    "a mandatory attribute is not there",
    "Write it; one of type 2 may be empty.",
    "PS3.3 A.19, types 1 and 2",
)
EMPTY = error("attribute-empty", "an attribute of type 1 has no value", "Give it a value.", "PS3.5 7.4.1")
NO_ROIS = error("no-rois", "there is no ROI", "Do not send an empty structure set.", "PS3.3 C.8.8.5")
WRONG_CLASS = error(
    "not-a-structure-set",
    "SOP Class UID or Modality are not those of an RT Structure Set",
    "Check that this is the right file.",
    "PS3.3 A.19",
)
CODE = error(
    "code-incomplete",
    "a code sequence item lacks its value, scheme or meaning",
    "Give value, scheme designator and meaning together.",
    "PS3.3 8.8, type 1C",
)
NO_APPROVAL = note(
    "approval-missing",
    "there is no Approval Status",
    "Write UNAPPROVED, so that nobody has to guess.",
    "PS3.3 C.8.8.16",
)
APPROVAL = error(
    "approval-invalid",
    "Approval Status is none of APPROVED, UNAPPROVED, REJECTED",
    "Write one of the three.",
    "PS3.3 C.8.8.16",
)
REVIEW = warning(
    "review-incomplete",
    "approved or rejected, without date, time and name of the review",
    "Write Review Date, Review Time and Reviewer Name.",
    "PS3.3 C.8.8.16, type 2C",
)
UNDATED = warning(
    "structure-set-undated",
    "Structure Set Date or Time is empty",
    "Write when the contours were made, in local time.",
    "IHE-RO BRTO",
)
UID_TWICE = error(
    "uid-used-twice",
    "SOP Instance, series, study or frame of reference share one UID",
    "Make a new UID for each.",
    "PS3.5 9",
)

META_MISSING = error(
    "file-meta-missing",
    "an element of the file meta information is missing",
    "Write the file with its meta information.",
    "PS3.10 7.1",
)
META_DIFFERS = error(
    "file-meta-differs",
    "the file meta information names another object than the data set",
    "Write both from the same UIDs.",
    "PS3.10 7.1",
)
NO_PREAMBLE = warning(
    "preamble-missing",
    "the file does not begin with a preamble and DICM",
    "Write a Part 10 file; many readers take no other.",
    "PS3.10 7.1",
)
SYNTAX = error(
    "transfer-syntax-unfit",
    "the transfer syntax is retired or made for pixels",
    "Write Implicit or Explicit VR Little Endian.",
    "PS3.5 10",
)
DEFLATED = warning(
    "transfer-syntax-deflated",
    "the data set is deflated, which few planning systems read",
    "Write Implicit VR Little Endian.",
    "PS3.5 A.5",
)
ORDER = error(
    "attributes-out-of-order",
    "elements do not ascend, or do not belong into a data set: often bytes behind its end",
    "Write the data set alone, in the order of its tags.",
    "PS3.5 7.1; InnerEye-DICOM-RT #6",
)
BEHIND = error(
    "bytes-behind-data-set",
    "the file goes on after the last element",
    "Write the used part of the buffer only.",
    "InnerEye-DICOM-RT #6",
)

RULES = (
    ABSENT,
    EMPTY,
    NO_ROIS,
    WRONG_CLASS,
    CODE,
    NO_APPROVAL,
    APPROVAL,
    REVIEW,
    UNDATED,
    UID_TWICE,
    META_MISSING,
    META_DIFFERS,
    NO_PREAMBLE,
    SYNTAX,
    DEFLATED,
    ORDER,
    BEHIND,
)

_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_META = (
    "MediaStorageSOPClassUID",
    "MediaStorageSOPInstanceUID",
    "TransferSyntaxUID",
    "ImplementationClassUID",
)
_CODED = frozenset({"CodeValue", "LongCodeValue", "URNCodeValue"})


def check_modules(view: StructureSetView) -> Iterator[Finding]:
    """Types 1 and 2 of the mandatory modules, and of the optional ones that are there."""
    dataset = view.dataset
    optional = (
        module
        for module in ("frame-of-reference", "approval")
        if any(keyword in dataset for keyword in module_keywords(module))
    )
    for absence in absences(dataset, frozenset(optional)):
        rule = EMPTY if absence.is_empty else ABSENT
        yield rule.at(absence.where + absence.keyword, str(absence).removeprefix(absence.where))
    if not view.rois:
        yield NO_ROIS.at("StructureSetROISequence", "there is no item")
    for keyword in ("StructureSetDate", "StructureSetTime"):
        if keyword in dataset and not text(dataset, keyword):
            yield UNDATED.at(keyword, f"{keyword} is empty")


def check_identity(view: StructureSetView) -> Iterator[Finding]:
    """The object is a structure set, and its UIDs are four."""
    for keyword, expected in (("SOPClassUID", RTStructureSetStorage), ("Modality", "RTSTRUCT")):
        found = text(view.dataset, keyword)
        if found and found != expected:
            yield WRONG_CLASS.at(keyword, f"{keyword} is {UID(found).name}, needed is {UID(expected).name}")
    keywords: dict[str, str] = {}
    for keyword in _UIDS:
        uid = text(view.dataset, keyword)
        if uid in keywords:
            yield UID_TWICE.at(keyword, f"{keyword} is {uid}, as is {keywords[uid]}")
        elif uid:
            keywords[uid] = keyword


def check_codes(view: StructureSetView) -> Iterator[Finding]:
    """Items of code sequences are complete, wherever they are (the conditions of PS3.3 8.8)."""
    for roi in view.rois:
        for path, item in ((roi.path, roi.item), (roi.observation_path, roi.observation)):
            if item is not None:
                yield from _codes(item, path, roi.name)


def _codes(dataset: Dataset, path: str, roi: str) -> Iterator[Finding]:
    for keyword in [keyword for keyword in dataset.dir("Sequence") if keyword in dataset]:
        for number, item in enumerate(items(dataset, keyword), start=1):
            where = f"{path}.{keyword}[{number}]"
            if keyword.endswith("CodeSequence"):
                yield from _code(item, where, roi)
            yield from _codes(item, where, roi)


def _code(item: Dataset, where: str, roi: str) -> Iterator[Finding]:
    values = [keyword for keyword in _CODED if text(item, keyword)]
    if not values:
        yield CODE.at(where, "there is no Code Value", roi)
    elif values != ["URNCodeValue"] and not text(item, "CodingSchemeDesignator"):
        yield CODE.at(where, "there is no Coding Scheme Designator", roi)


def check_approval(view: StructureSetView) -> Iterator[Finding]:
    """Approval Status is said, and who approved or rejected is named."""
    status = text(view.dataset, "ApprovalStatus")
    if not status:
        yield NO_APPROVAL.at("ApprovalStatus", "Approval Status is absent")
    elif status not in {"APPROVED", "UNAPPROVED", "REJECTED"}:
        yield APPROVAL.at("ApprovalStatus", f"Approval Status is {status!r}")
    if status in {"APPROVED", "REJECTED"}:
        for keyword in ("ReviewDate", "ReviewTime", "ReviewerName"):
            if not text(view.dataset, keyword):
                yield REVIEW.at(keyword, f"Approval Status is {status}, and {keyword} is empty")


def check_file(view: StructureSetView) -> Iterator[Finding]:
    """File meta information and transfer syntax; nothing is said of a data set that was never a file."""
    meta: Dataset | None = getattr(view.dataset, "file_meta", None)
    if meta is None:
        return
    if getattr(view.dataset, "preamble", b"DICM") is None:
        yield NO_PREAMBLE.at("preamble", "the file begins with its first element")
    for keyword in _META:
        if not text(meta, keyword):
            yield META_MISSING.at(keyword, f"{keyword} is missing")
    for keyword, of in (
        ("MediaStorageSOPClassUID", "SOPClassUID"),
        ("MediaStorageSOPInstanceUID", "SOPInstanceUID"),
    ):
        said, is_ = text(meta, keyword), text(view.dataset, of)
        if said and is_ and said != is_:
            yield META_DIFFERS.at(keyword, f"{keyword} is {said}, {of} is {is_}")
    yield from _syntax(UID(text(meta, "TransferSyntaxUID")))


def _syntax(syntax: UID) -> Iterator[Finding]:
    if syntax == DeflatedExplicitVRLittleEndian:
        yield DEFLATED.at("TransferSyntaxUID", f"the transfer syntax is {syntax.name}")
    elif syntax and syntax not in {ImplicitVRLittleEndian, ExplicitVRLittleEndian}:
        words = f"{syntax.name}, retired" if syntax == ExplicitVRBigEndian else syntax.name
        yield SYNTAX.at("TransferSyntaxUID", f"the transfer syntax is {words}")


def check_layout(dataset: Dataset, size_bytes: int) -> Iterator[Finding]:
    """How the elements follow each other in a file; call it before anything is decoded or changed.

    Top-level elements ascend and belong into a data set, and the file ends with the last of them, as far as one
    of known length shows it.
    """
    highest = 0
    for tag in dataset.keys():  # noqa: SIM118 -- iterating a data set itself decodes every value
        if tag < highest or tag.group < 0x0008 or tag.group == 0xFFFE:
            yield ORDER.at(str(tag), f"{tag} stands behind ({highest >> 16:04X},{highest & 0xFFFF:04X})")
        highest = max(highest, int(tag))
    yield from _bytes_behind(dataset, size_bytes)


def _bytes_behind(dataset: Dataset, size_bytes: int) -> Iterator[Finding]:
    tags = list(dataset.keys())
    last = dataset.get_item(tags[-1]) if tags else None
    syntax = text(getattr(dataset, "file_meta", Dataset()), "TransferSyntaxUID")
    if not isinstance(last, RawDataElement) or syntax == DeflatedExplicitVRLittleEndian:
        return
    behind = size_bytes - last.value_tell - last.length
    if 0 < behind < size_bytes:
        yield BEHIND.at(str(last.tag), f"{behind} bytes follow the last element")


CHECKS = (check_modules, check_identity, check_codes, check_approval, check_file)
