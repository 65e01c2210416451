"""The Encapsulated PDF IOD (PS3.3 A.45.1): the QA sheet as a document in the CT's study."""

from collections.abc import Sequence

from highdicom.base import SOPClass
from pydicom.uid import EncapsulatedPDFStorage

from daemon.result_header import (
    MAX_LO,
    ModelIdentity,
    ResultIdentity,
    new_result,
    plain,
    referenced_slices,
    series_description,
)
from model.ct import CTVolume

SERIES_NUMBER = 903
SERIES_DESCRIPTION = "Automatic contours, QA sheet (PDF) - NEEDS REVIEW"


def build_encapsulated_pdf(
    pdf: bytes,
    volume: CTVolume,
    identity: ResultIdentity,
    model: ModelIdentity,
    *,
    identifies: bool,
    doubts: Sequence[str] = (),
    title: str = "QA sheet of automatic contours",
) -> SOPClass:
    """Wrap a PDF in a DICOM object of the CT's study; the same arguments make the same bytes.

    Parameters
    ----------
    volume
        The CT; its header gives patient and study, and its slices are named as the source.
    identifies
        Whether the document names the patient (Burned In Annotation).
    doubts
        What is doubtful, for the series' description, as in the structure set.
    title
        What archives list it as; written as ASCII.

    Raises
    ------
    ValueError
        The bytes are no PDF.
    """
    if not pdf.startswith(b"%PDF-"):
        raise ValueError(f"a document that begins with {pdf[:8]!r} is no PDF")
    result = new_result(
        EncapsulatedPDFStorage,
        volume,
        identity,
        model,
        modality="DOC",
        series_number=SERIES_NUMBER,
        series_description=series_description(SERIES_DESCRIPTION, doubts),
    )
    # SC Equipment (C.8.6.1)
    result.ConversionType = "SYN"
    # Encapsulated Document (C.24.2)
    result.AcquisitionDateTime = None
    result.BurnedInAnnotation = "YES" if identifies else "NO"
    result.SourceInstanceSequence = referenced_slices(volume.sop_instance_uids)
    result.DocumentTitle = plain(title, MAX_LO)
    result.ConceptNameCodeSequence = []
    result.VerificationFlag = "UNVERIFIED"
    result.MIMETypeOfEncapsulatedDocument = "application/pdf"
    result.EncapsulatedDocumentLength = len(pdf)
    result.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return result
