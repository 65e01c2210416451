"""The QA sheet as DICOM objects: exact content, in the study of its CT, the same bytes each time."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imsave
from pydicom import Dataset, dcmread
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from daemon.encapsulated_pdf import build_encapsulated_pdf
from daemon.result_header import encode
from daemon.secondary_capture import build_secondary_capture, rgb_of_png
from tests.phantom import make_grid
from tests.structure_set_samples import IDENTITY, MODEL, ct_header, ct_volume

RGB = np.random.default_rng(1).integers(0, 256, (31, 41, 3), dtype=np.uint8)
PDF = b"%PDF-1.4\nnot much of one"  # an odd number of bytes
HEADER = ct_header(
    PatientID="P1", PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100", StudyDate="20240228"
)
VOLUME = ct_volume(make_grid(size=(40, 42), pixel_spacing_mm=(5, 5)), HEADER)


def capture(*, identifies: bool = True) -> Dataset:
    return build_secondary_capture(RGB, VOLUME, IDENTITY, MODEL, identifies=identifies)


def document(*, identifies: bool = True) -> Dataset:
    return build_encapsulated_pdf(PDF, VOLUME, IDENTITY, MODEL, identifies=identifies)


def reread(dataset: Dataset) -> Dataset:
    return dcmread(BytesIO(encode(dataset)))


def test_the_picture_is_stored_pixel_for_pixel():
    assert len(RGB.tobytes()) % 2
    np.testing.assert_array_equal(reread(capture()).pixel_array, RGB)


def test_the_document_is_stored_byte_for_byte():
    """The value is padded to an even length; its true length is told."""
    dataset = reread(document())
    assert dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength] == PDF
    assert dataset.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert dataset.VerificationFlag == "UNVERIFIED"


@pytest.mark.parametrize(
    ("build", "sop_class", "modality"),
    [(capture, SecondaryCaptureImageStorage, "OT"), (document, EncapsulatedPDFStorage, "DOC")],
)
def test_study_and_patient_are_the_ct_s_and_identifiers_the_caller_s(build, sop_class, modality):
    dataset = reread(build())
    assert (dataset.SOPClassUID, dataset.Modality) == (sop_class, modality)
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID == IDENTITY.sop_instance_uid
    assert dataset.SeriesInstanceUID == IDENTITY.series_instance_uid
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate"):
        assert dataset[keyword].value == HEADER[keyword].value
    assert (dataset.ContentDate, dataset.ContentTime) == ("20240229", "235907")
    assert "NEEDS REVIEW" in dataset.SeriesDescription
    sources = dataset.get("SourceImageSequence") or dataset.SourceInstanceSequence
    assert [item.ReferencedSOPInstanceUID for item in sources] == list(VOLUME.sop_instance_uids)


def test_each_kind_has_a_series_number_and_a_description_of_its_own():
    one, other = capture(), document()
    assert one.SeriesNumber != other.SeriesNumber
    assert one.SeriesDescription != other.SeriesDescription


@pytest.mark.parametrize("build", [capture, document])
def test_it_says_whether_the_patient_is_named_in_it(build):
    assert build(identifies=True).BurnedInAnnotation == "YES"
    assert build(identifies=False).BurnedInAnnotation == "NO"


@pytest.mark.parametrize("build", [capture, document])
def test_the_same_arguments_make_the_same_bytes(build):
    assert encode(build()) == encode(build())


def test_a_png_is_read_back_exactly():
    buffer = BytesIO()
    imsave(buffer, RGB, format="png")
    np.testing.assert_array_equal(rgb_of_png(buffer.getvalue()), RGB)


@pytest.mark.parametrize("wrong", [RGB.astype(np.float32), RGB[..., 0], np.dstack([RGB, RGB[..., :1]])])
def test_what_is_no_rgb_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="is no picture"):
        build_secondary_capture(wrong, VOLUME, IDENTITY, MODEL, identifies=False)


def test_what_is_no_pdf_is_refused():
    with pytest.raises(ValueError, match="is no PDF"):
        build_encapsulated_pdf(b"\x89PNG\r\n", VOLUME, IDENTITY, MODEL, identifies=False)
