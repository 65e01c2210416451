"""CT instances as a sender would encode them, small enough to make by the hundred."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


@dataclass(frozen=True)
class StoredInstance:
    """An instance: its identity, and its data set encoded in one transfer syntax."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    dataset_bytes: bytes
    file_bytes: bytes

    def write(self, folder: Path) -> Path:
        """Write the instance as a DICOM file and return where."""
        path = folder / f"{self.sop_instance_uid}.dcm"
        path.write_bytes(self.file_bytes)
        return path


def ct_dataset(series_instance_uid: str, number: int = 1, **elements: object) -> Dataset:
    """One axial CT slice of 8 × 8 pixels; `elements` replace or add, None removes."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{series_instance_uid}.{number}"
    dataset.StudyDate = "20240229"
    dataset.AccessionNumber = "A-17"
    dataset.Modality = "CT"
    dataset.StudyDescription = "Neck"
    dataset.SeriesDescription = "2.5 mm"
    dataset.PatientName = "Müller^Jörg"
    dataset.PatientID = "P-4711"
    dataset.StudyInstanceUID = f"{series_instance_uid.rpartition('.')[0]}.0"
    dataset.SeriesInstanceUID = series_instance_uid
    dataset.InstanceNumber = number
    dataset.FrameOfReferenceUID = f"{series_instance_uid}.0"
    dataset.ImagePositionPatient = [-100.0, -90.0, 2.5 * number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [1.25, 1.0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope = 1
    dataset.RescaleIntercept = -1024
    dataset.PixelData = np.full((8, 8), number, np.int16).tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> StoredInstance:
    """Encode a data set; what is missing in it is taken as an empty identity."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = transfer_syntax_uid
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    dataset.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    file_bytes = buffer.getvalue()
    # Group length (0002,0000) counts what follows it: preamble, "DICM" and itself take 144 bytes.
    header_length = 144 + int.from_bytes(file_bytes[140:144], "little")
    return StoredInstance(
        sop_class_uid=str(dataset.get("SOPClassUID", CTImageStorage)),
        sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
        study_instance_uid=str(dataset.get("StudyInstanceUID", "")),
        series_instance_uid=str(dataset.get("SeriesInstanceUID", "")),
        transfer_syntax_uid=transfer_syntax_uid,
        dataset_bytes=file_bytes[header_length:],
        file_bytes=file_bytes,
    )


def ct_instance(series_instance_uid: str, number: int = 1, **elements: object) -> StoredInstance:
    """One slice of a series, explicit VR little endian."""
    return encoded(ct_dataset(series_instance_uid, number, **elements))


def ct_series(count: int, series_instance_uid: str | None = None) -> list[StoredInstance]:
    """Return a series of `count` slices; a new series unless its UID is given."""
    series_instance_uid = series_instance_uid or generate_uid(prefix="1.2.826.0.1.3680043.8.498.")[:50] + ".1"
    return [ct_instance(series_instance_uid, number) for number in range(1, count + 1)]
