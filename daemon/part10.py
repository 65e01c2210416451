"""The DICOM files (PS3.10 section 7.1) that reception wrote: meta information, and the data set's own bytes."""

from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_file_meta_info

_BEFORE_META = 128 + len("DICM") + 12  # preamble, prefix, and the element that holds the group's length


def read_part10(path: Path) -> tuple[FileMetaDataset, bytes]:
    """Return the meta information and the encoded data set behind it.

    Raises
    ------
    OSError, InvalidDicomError, AttributeError
        The file cannot be read, or was not written by us.
    """
    meta = read_file_meta_info(path)
    return meta, path.read_bytes()[_BEFORE_META + int(meta.FileMetaInformationGroupLength) :]
