"""Cases for training, packed into compact files: image, organ bits, and what is known of which organ where."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.blur import blurred
from model.network_input import Preprocessing, smoothing_variance
from model.structures import OTHER_PROTOCOLS, unqualified
from training.config import ORGANS

NETWORK_RESOLUTION_MM = 4.0
"""In-plane resolution of the images that the network learns from, `resolution_mm` of its configuration."""

OPENKBP = frozenset({"openkbp", "openkbp-csv"})
"""Groups of cases with the contours of OpenKBP's clinics."""

CLINICAL_NAMES = {unqualified(each.name): each.name for each in OTHER_PROTOCOLS}
"""What those clinics drew otherwise than the protocol of the 21, and the organ that is learned from it."""

PSEUDO = "-pseudo"
"""How the group of cases ends that hold a bundle's contours of a group's images, `training.pseudo_labels`."""


class PackUnreadableError(ValueError):
    """A pack cannot be used; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Frame:
    """Where an array lies: (slices, rows, columns) ascending to the patient's head, back and left, in mm."""

    origin_mm: tuple[float, float, float]  # centre of voxel (0, 0, 0): head, back, left
    spacing_mm: tuple[float, float, float]

    def extent(self, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres of the first and the last voxel, each (3,) in mm."""
        first = np.array(self.origin_mm)
        return first, first + (np.array(shape) - 1) * np.array(self.spacing_mm)


@dataclass(frozen=True, eq=False)
class Case:
    """One scan with its organs.

    Bit i of `labels` is organ i of `ORGANS`.
    Image and labels may lie on different grids of one patient space.
    `known` maps each organ that was contoured, or is truly absent, to the range of millimetres along the
    body axis (feet to head) within which that holds; any other organ says nothing and is left out of the loss.
    `smoothed_to_mm` is the in-plane resolution to which the image was smoothed when it was packed; 0: it was not.
    `patient` is the `patient_mark` of whose scan it is; empty where nothing is known but the scan.
    """

    name: str
    group: str
    image: NDArray[np.int16]
    image_frame: Frame
    labels: NDArray[np.uint32]
    label_frame: Frame
    known: Mapping[str, tuple[float, float]]
    smoothed_to_mm: float = 0.0
    patient: str = ""

    def organ(self, name: str) -> NDArray[np.bool_]:
        """One organ's mask on the grid of the labels."""
        return (self.labels >> np.uint32(ORGANS.index(name))) & np.uint32(1) > 0

    @property
    def absent(self) -> frozenset[str]:
        """Known organs of which there is no voxel."""
        found = int(np.bitwise_or.reduce(self.labels, axis=None))
        return frozenset(organ for organ in self.known if not found >> ORGANS.index(organ) & 1)


class Known(NamedTuple):
    """What a case can teach: its organs whose truth is known, and those of them that are known not to be there.

    Packs did not always say what is absent, which is among the organs then, nor whose scan it is.
    """

    name: str
    group: str
    organs: frozenset[str]
    absent: frozenset[str] = frozenset()
    patient: str = ""

    @property
    def mark(self) -> str:
        """By which the case is known again, without its name; whoever drew the contours, it is the same image."""
        return hashlib.sha256(f"{self.group.removesuffix(PSEUDO)}/{self.name}".encode()).hexdigest()[:16]

    @property
    def marks(self) -> frozenset[str]:
        """Marks of the image and, where it is known, of the patient: who shares one is the same patient."""
        return frozenset({self.mark, self.patient} - {""})


@cache
def patient_mark(patient_id: str) -> str:
    """By which a patient is known again in another preparation and from the bundle, without the Patient ID.

    Patient IDs are few enough to try them all: the hash is a slow one.
    """
    return hashlib.scrypt(patient_id.encode(), salt=b"oarlock Patient ID", n=2**14, r=8, p=1, dklen=8).hex()


def openkbp_mark(patient: str) -> str:
    """The mark of a patient of OpenKBP, `pt_1`, in whichever layout and by whomever contoured."""
    return patient_mark(f"OpenKBP/{patient}")


def counted(case: Case, organ: str) -> NDArray[np.bool_]:
    """(slices, 1, 1) the slices of the labels in which there is an image and the organ's truth is known."""
    heights, (first, last) = _heights_mm(case)
    low, high = case.known[organ]
    slices: NDArray[np.bool_] = (heights >= max(first, low) - 1e-3) & (heights <= min(last, high) + 1e-3)
    return slices[:, None, None]


def is_cut(case: Case, mask: NDArray[np.bool_]) -> bool:
    """Whether a mask on the grid of the labels reaches the first or the last slice of the image."""
    heights, (first, last) = _heights_mm(case)
    filled, step = heights[mask.any(axis=(1, 2))], case.label_frame.spacing_mm[0]
    return bool(len(filled)) and bool(filled[0] - step < first or filled[-1] + step > last)


def _heights_mm(case: Case) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Of each slice of the labels, and of the image's first and last slice."""
    frame = case.label_frame
    heights = np.asarray(frame.origin_mm[0] + np.arange(len(case.labels)) * frame.spacing_mm[0], np.float64)
    first, last = case.image_frame.extent(case.image.shape)
    return heights, (float(first[0]), float(last[0]))


def bits(organs: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.uint32]:
    """Join masks into one array of bits."""
    labels = np.zeros(next(iter(organs.values())).shape, np.uint32)
    for name, mask in organs.items():
        labels |= mask.astype(np.uint32) << np.uint32(ORGANS.index(name))
    return labels


PACK_LIMIT_BYTES = 60_000_000


def image_bytes(case: Case) -> int:
    """About what an image takes: CT noise compresses to about half."""
    return case.image.nbytes * 6 // 10


def packed_bytes(case: Case) -> int:
    """About what a case takes; its organ bits compress to almost nothing."""
    return image_bytes(case) + case.labels.nbytes // 40


class PackWriter:
    """Writes cases as `stem`-00.npz, `stem`-01.npz, …, each under 60 MB; leaves no older pack of the same stem.

    Packs appear under their names when all of them are whole: what an earlier run left stands until then.
    """

    def __init__(self, stem: Path) -> None:
        self.stem = stem
        self.paths: list[Path] = []
        self._arrays: dict[str, NDArray[np.generic]] = {}
        self._about: list[dict[str, object]] = []
        self._bytes = 0

    def add(self, case: Case) -> None:
        """Append a case; writes the pack before it, under another name, if there is no room in it."""
        self._bytes += packed_bytes(case)
        if self._about and self._bytes > PACK_LIMIT_BYTES:
            self._write()
            self._bytes = image_bytes(case)
        index = len(self._about)
        self._arrays[f"image{index}"], self._arrays[f"labels{index}"] = case.image, case.labels
        self._about.append(
            {
                "name": case.name,
                "group": case.group,
                "image_frame": asdict(case.image_frame),
                "label_frame": asdict(case.label_frame),
                "known": {name: list(span) for name, span in case.known.items()},
                "absent": sorted(case.absent),
                "smoothed_to_mm": case.smoothed_to_mm,
                "patient": case.patient,
            }
        )

    def finish(self) -> None:
        """Write what is left; all is on the disk then."""
        if self._about:
            self._write()

    def close(self) -> list[Path]:
        """Give the packs their names, and remove those of an earlier run that this one did not replace."""
        self.finish()
        for path in self.paths:
            _part(path).replace(path)
        for old in set(self.stem.parent.glob(f"{self.stem.name}-[0-9][0-9]*.npz")) - set(self.paths):
            if old.stem.removeprefix(f"{self.stem.name}-").isdigit():
                old.unlink()
        return self.paths

    def _write(self) -> None:
        self.stem.parent.mkdir(parents=True, exist_ok=True)
        path = self.stem.with_name(f"{self.stem.name}-{len(self.paths):02d}.npz")
        text = np.frombuffer(json.dumps(self._about).encode(), np.uint8)
        with _part(path).open("wb") as file:
            np.savez_compressed(file, about=text, organs=np.array(ORGANS), **self._arrays)  # type: ignore[arg-type]
        self.paths.append(path)
        self._arrays.clear()
        self._about.clear()
        self._bytes = 0


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def write_packs(cases: Iterable[Case], stem: Path) -> list[Path]:
    """Write cases as `stem`-00.npz, `stem`-01.npz, …, each under 60 MB."""
    writer = PackWriter(stem)
    for case in cases:
        writer.add(case)
    return writer.close()


def read_packs(paths: Iterable[Path], preprocessing: Preprocessing | None = None) -> Iterator[Case]:
    """Every case of the packs, in order.

    Parameters
    ----------
    preprocessing
        Images that are sharper than this are smoothed, as `model.preprocess` does before the network sees them;
        without it they are left as they are.

    Raises
    ------
    PackUnreadableError
        A file is not there, damaged or no pack, or was made for other organs, or for these in another order.
    """
    for path in paths:
        with _opened(path) as (pack, cases):
            for index, about in enumerate(cases):
                case = Case(
                    name=about["name"],
                    group=about["group"],
                    image=pack[f"image{index}"],
                    image_frame=_frame(about["image_frame"]),
                    labels=pack[f"labels{index}"],
                    label_frame=_frame(about["label_frame"]),
                    known={name: (low, high) for name, (low, high) in about["known"].items()},
                    # Before the packs said so, every one held images as coarse as the network's, or made so.
                    smoothed_to_mm=about.get("smoothed_to_mm", NETWORK_RESOLUTION_MM),
                    patient=about.get("patient", ""),
                )
                yield smoothed(case, preprocessing) if preprocessing else case


def described(paths: Iterable[Path]) -> Iterator[Known]:
    """What every case of the packs can teach, without their images; raises as `read_packs`."""
    for path in paths:
        with _opened(path) as (_, cases):
            for about in cases:
                yield Known(
                    about["name"],
                    about["group"],
                    frozenset(about["known"]),
                    frozenset(about.get("absent", ())),
                    about.get("patient", ""),
                )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Mapping[str, NDArray[Any]], list[dict[str, Any]]]]:
    """A pack that was made for our organs and what it says of each case, closed again at the end."""
    try:
        with np.load(path, allow_pickle=False) as pack:
            cases = json.loads(pack["about"].tobytes())
            _require_our_organs(path, tuple(pack["organs"]), cases)
            yield pack, cases
    except PackUnreadableError:
        raise
    except (OSError, EOFError, LookupError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise PackUnreadableError(
            f"{path} cannot be read as a pack ({error}); training.prepare writes them"
        ) from error


def _require_our_organs(path: Path, packed: tuple[str, ...], cases: list[dict[str, Any]]) -> None:
    if packed != ORGANS[: len(packed)]:  # packs of fewer organs stay good: theirs have the same bits
        raise PackUnreadableError(f"{path} was packed for other organs: prepare it again")
    drawn = {organ for case in cases if case["group"] in OPENKBP for organ in case["known"]}
    if taken := sorted(drawn & CLINICAL_NAMES.keys()):
        raise PackUnreadableError(
            f"{path} names {', '.join(taken)} of OpenKBP's clinics as if drawn by the protocol of the 21 organs: "
            "prepare it again"
        )


def smoothed(case: Case, preprocessing: Preprocessing) -> Case:
    """The case with an image no sharper than the network is to see it, within the slices and across them."""
    variance = smoothing_variance(case.image_frame.spacing_mm[::-1], preprocessing, case.smoothed_to_mm)
    if not any(variance):
        return case
    image = np.rint(blurred(case.image, variance)).astype(np.int16)
    return replace(case, image=image, smoothed_to_mm=preprocessing.resolution_mm)


def _frame(table: dict[str, list[float]]) -> Frame:
    origin, spacing = table["origin_mm"], table["spacing_mm"]
    return Frame((origin[0], origin[1], origin[2]), (spacing[0], spacing[1], spacing[2]))
