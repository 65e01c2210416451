"""The two readers of other people's structure sets: that of the training, and `oarlock lint`."""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from daemon.destination_profile import PROFILES, Profile
from daemon.lint import NotReadable, lint_file
from daemon.lint_images import CTImages, images_of
from daemon.lint_report import FileReport, as_json, findings_table, summary
from daemon.result_header import encode
from daemon.structure_set import build_structure_set
from tests.fuzz.elements import mutated_file
from tests.fuzz.oracle import Broken, require_typed
from tests.fuzz.target import Change, FuzzOne, Target
from tests.phantom import make_grid
from tests.structure_set_samples import IDENTITY, MODEL, ct_header, ct_volume, organ_masks, rois_of
from training.structure_sets import StructureSetUnreadableError, read_structure_set

_ORGANS = ("Parotid_L",)
_PROFILES = [None, *PROFILES.values()]
_VOLUME = ct_volume(
    make_grid(pixel_spacing_mm=(6.0, 6.0), size=(32, 32), offsets_mm=np.arange(3) * 10.0 - 20),
    ct_header(PatientID="P1", PatientName="Doe^Jane", StudyID="4"),
)


def seeds() -> list[bytes]:
    """A small structure set of ours in each transfer syntax, its sequences open-ended so that they can grow."""
    masks = {name: mask for name, mask in organ_masks(_VOLUME.grid).items() if name in _ORGANS}
    content = encode(build_structure_set(_VOLUME, rois_of(masks, _VOLUME.grid), IDENTITY, MODEL))
    return [
        _encoded(content, syntax)
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
    ]


def _encoded(content: bytes, syntax: str) -> bytes:
    dataset = dcmread(BytesIO(content))
    dataset.walk(_open_ended)
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _open_ended(_dataset: Dataset, element: object) -> None:
    if getattr(element, "VR", "") == "SQ":
        element.is_undefined_length = True
        for item in element.value:
            item.is_undefined_length_sequence_item = True


def mutate(data: bytes, rng: Random, change: Change) -> bytes:
    return mutated_file(data, rng, change)


@contextmanager
def opened(folder: Path) -> Iterator[FuzzOne]:
    """Read each input by one of the two readers."""
    path = folder / "fuzzed.dcm"
    images = images_of(_VOLUME)

    def fuzz_one(data: bytes) -> None:
        path.write_bytes(data)
        if zlib.crc32(data) % 2:
            _read(path)
        else:
            profile = _PROFILES[len(data) % len(_PROFILES)]
            _lint(path, images if len(data) % 3 else None, profile)

    yield fuzz_one


def _read(path: Path) -> None:
    try:
        read = read_structure_set(path)
    except StructureSetUnreadableError as error:
        require_typed(error)
        return
    for roi in read.rois:
        if any(contour.points_mm.shape[1:] != (3,) for contour in roi.contours):
            raise Broken("points that are none")


def _lint(path: Path, images: CTImages | None, profile: Profile | None) -> None:
    try:
        report = FileReport(path, tuple(lint_file(path, images, profile)))
    except NotReadable as error:
        require_typed(error)
        return
    json.dumps(as_json([report])).encode()
    summary(report).encode()
    findings_table(report)


TARGET = Target(
    (
        "training.structure_sets",
        "daemon.lint",
        "daemon.lint_view",
        "daemon.lint_coordinates",
        "daemon.lint_values",
    ),
    seeds,
    mutate,
    opened,
)
