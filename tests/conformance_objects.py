"""What the objects of the node are made of: modules and attributes of one of each kind, as it is written."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_description

from daemon.encapsulated_pdf import build_encapsulated_pdf
from daemon.result_header import encode
from daemon.secondary_capture import build_secondary_capture
from daemon.segmentation_object import build_segmentation
from daemon.structure_set import build_structure_set
from tests.phantom import make_grid
from tests.structure_set_samples import IDENTITY, MODEL, ct_volume, organ_masks, rois_of

IODS = {
    "rtstruct": "rt-structure-set",
    "seg": "segmentation",
    "secondary-capture": "secondary-capture-image",
    "pdf": "encapsulated-pdf",
}
"""Kind of object to IOD (PS3.3), as highdicom's tables name it."""

_FIXED = (
    "Modality",
    "Manufacturer",
    "SeriesNumber",
    "SeriesDescription",
    "StructureSetLabel",
    "ContentLabel",
    "ApprovalStatus",
    "SegmentationType",
    "ImageType",
    "ConversionType",
    "VerificationFlag",
    "MIMETypeOfEncapsulatedDocument",
)


def samples() -> Mapping[str, Dataset]:
    """One object of each kind, of a phantom, read again from its encoding."""
    grid = make_grid(pixel_spacing_mm=(4.0, 3.0), size=(60, 65), offsets_mm=range(-100, 101, 10))
    volume, masks = ct_volume(grid), organ_masks(grid)
    rgb = np.zeros((8, 8, 3), np.uint8)
    made = {
        "rtstruct": build_structure_set(volume, rois_of(masks, grid), IDENTITY, MODEL),
        "seg": build_segmentation(volume, masks, IDENTITY, MODEL),
        "secondary-capture": build_secondary_capture(rgb, volume, IDENTITY, MODEL, identifies=True),
        "pdf": build_encapsulated_pdf(b"%PDF-1.4\n", volume, IDENTITY, MODEL, identifies=True),
    }
    return {kind: dcmread(BytesIO(encode(each))) for kind, each in made.items()}


def written(folder: Path, objects: Mapping[str, Dataset]) -> list[Path]:
    """The objects as files, in their order."""
    paths = []
    for kind, each in objects.items():
        paths.append(folder / f"{kind}.dcm")
        each.save_as(paths[-1])
    return paths


def modules(kind: str, sample: Dataset) -> list[tuple[str, str, str]]:
    """Module, usage and the attributes written, of an object; what no module of its IOD has comes last."""
    present = {element.keyword for element in sample if element.keyword}
    rows, named = [], set()
    for module in get_iod_module_map()[IODS[kind]]:
        top = [each["keyword"] for each in get_module_attribute_map()[module["key"]] if not each["path"]]
        here = [keyword for keyword in dict.fromkeys(top) if keyword in present]
        if set(here) - named:
            rows.append((_title(module["key"]), module["usage"], ", ".join(map(_name, here))))
        named |= set(here)
    if rest := sorted(present - named):
        rows.append(("none of the IOD's", "", ", ".join(map(_name, rest))))
    return rows


def fixed_values(sample: Dataset) -> list[tuple[str, str]]:
    """Attributes that have the same value in every object of the kind, or but for a warning."""
    return [(_name(keyword), _shown(sample[keyword].value)) for keyword in _FIXED if keyword in sample]


def _shown(value: object) -> str:
    return (
        str(value) if isinstance(value, str) or not hasattr(value, "__iter__") else "\\".join(map(str, value))
    )


def _title(key: str) -> str:
    return key.replace("-", " ").title().replace("Rt ", "RT ").replace("Roi", "ROI").replace("Sop", "SOP")


def _name(keyword: str) -> str:
    return dictionary_description(keyword)
