"""How often the gates are right: on images as they are, turned, rescaled and cut, and on organs made wrong.

    python -m benchmarks.gates --bundle model/weights

What is written to docs/gates.md is counted on validation cases, training cases and DICOM series,
apart. Masks of the network are kept in runs/gates, by the digest of the weights.
"""

import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model.bundle import DEFAULT_BUNDLE, Bundle
from model.ct import CTVolume, find_series, read_series
from model.errors import SeriesUnsuitable
from model.findings import Finding, Severity, gravest
from model.geometry import Mask, SliceGrid
from model.image_gate import MIRROR_BELOW_MM, examine_anatomy, examine_image
from model.plausibility import LEAST_CONFIDENCE, check_plausibility
from model.reference_ranges import ReferenceRanges
from model.section_atlas import average_sections
from model.segmenter import Segmenter
from model.structures import structure
from training.dataset import Case, read_packs
from training.evaluate import as_volume, slice_grid
from training.metrics import dice
from training.reference_ranges import whole_organs
from training.section_atlas import brainstem_end_mm

HU = NDArray[np.int16]
Masks = dict[str, Mask]
NETWORK_CASES = 12
SLAB_MM = (48, 64, 96, 128)


@dataclass(frozen=True)
class Change:
    """Something done to an image, and the findings by which it should be noticed; none for what is harmless."""

    name: str
    apply: Callable[[HU], HU]
    expected: tuple[str, ...] = ()


TURNED = ("turned-image", "not-head-and-neck")
SCALE = ("implausible-hu", "not-head-and-neck", "hu-offset", "no-body", "too-short-to-judge")
CHANGES = (
    Change("as it is", lambda hu: hu),
    Change("head and feet exchanged", lambda hu: hu[::-1], TURNED),
    Change("front and back exchanged", lambda hu: hu[:, ::-1], TURNED),
    Change("turned by 180° within the slices", lambda hu: hu[:, ::-1, ::-1], TURNED),
    Change("head and feet, left and right exchanged", lambda hu: hu[::-1, :, ::-1], TURNED),
    Change("turned by 90° within the slices", lambda hu: np.rot90(hu, 1, (1, 2)), TURNED),
    Change("turned by 270° within the slices", lambda hu: np.rot90(hu, 3, (1, 2)), TURNED),
    Change("left and right exchanged", lambda hu: hu[:, :, ::-1], ("mirrored-image",)),
    Change("HU inverted", lambda hu: _clipped(-1000.0 - hu), SCALE),
    Change("rescale intercept lost (+1024)", lambda hu: _clipped(hu + 1024.0), SCALE),
    Change("rescale slope halved", lambda hu: _clipped((hu + 1024.0) / 2 - 1024), SCALE),
    Change("rescale slope doubled", lambda hu: _clipped((hu + 1024.0) * 2 - 1024), SCALE),
    Change("100 HU too high", lambda hu: _clipped(hu + 100.0), SCALE),
    Change("50 HU too high", lambda hu: _clipped(hu + 50.0), SCALE),
    Change("50 HU too low", lambda hu: _clipped(hu - 50.0), SCALE),
)


def _clipped(hu: NDArray[np.floating]) -> HU:
    return hu.clip(-1024, 32767).astype(np.int16)


def changed(volume: CTVolume, hu: HU) -> CTVolume:
    """The volume with other content under the same header; a turned matrix gets its own size."""
    grid = volume.grid
    if hu.shape != grid.shape:
        spacing = grid.pixel_spacing_mm[::-1]
        grid = SliceGrid(
            grid.positions_mm, grid.row_direction, grid.column_direction, spacing, hu.shape[1], hu.shape[2]
        )
    return replace(volume, hu=hu, grid=grid)


# Images


def image_rows(volumes: list[CTVolume]) -> Iterator[str]:
    """One row of the table per change: how many images were noticed, held and warned about."""
    for change in track(CHANGES, "images"):
        use = volumes if "mirrored-image" not in change.expected else [v for v in volumes if shows_chest(v)]
        results = [examine_image(changed(volume, change.apply(volume.hu))) for volume in use]
        noticed = sum(any(f.code in change.expected for f in found) for found in results)
        held, warned = _held_and_warned(results)
        share = f"{noticed} of {len(use)}" if change.expected else "–"
        yield f"| {change.name} | {len(use)} | {share} | {held} | {warned} |"


def shows_chest(volume: CTVolume) -> bool:
    """Whether the image reaches so far that its side is judged."""
    sections = volume.sections
    return sections is not None and average_sections().match(sections).bottom_mm <= MIRROR_BELOW_MM


def _held_and_warned(results: Iterable[Iterable[Finding]]) -> tuple[int, int]:
    worst = [gravest(found) for found in results]
    return worst.count(Severity.HOLD), worst.count(Severity.WARNING)


def slab_rows(volumes: list[CTVolume]) -> Iterator[str]:
    """Short images from the middle of whole ones, as they are and with head and feet exchanged."""
    for length in SLAB_MM:
        slabs = [slab for volume in volumes if (slab := middle_slab(volume, length)) is not None]
        upright = [examine_image(slab) for slab in slabs]
        turned = [examine_image(changed(slab, slab.hu[::-1])) for slab in slabs]
        counts = [
            len(slabs),
            _held_and_warned(upright)[0],
            _with(upright, "orientation-unclear"),
            _with(turned, "turned-image"),
            _with(turned, "orientation-unclear"),
        ]
        yield f"| {length} | " + " | ".join(map(str, counts)) + " |"


def middle_slab(volume: CTVolume, length_mm: float) -> CTVolume | None:
    """Slices from the middle of a volume; None where it is shorter."""
    count, wanted = len(volume.hu), round(length_mm / volume.grid.spacing_mm[0]) + 1
    if count < wanted:
        return None
    first = (count - wanted) // 2
    return part(volume, slice(first, first + wanted))


def part(volume: CTVolume, kept: slice) -> CTVolume:
    """Some of a volume's slices."""
    grid = replace(volume.grid, positions_mm=volume.grid.positions_mm[kept])
    return replace(volume, hu=volume.hu[kept], grid=grid, sop_instance_uids=volume.sop_instance_uids[kept])


def _with(results: Iterable[Iterable[Finding]], code: str) -> int:
    return sum(any(f.code == code for f in found) for found in results)


def chests(cases: Iterable[Case]) -> Iterator[CTVolume]:
    """What lies 130 mm and more below the brainstem, where that is 80 mm at least."""
    for case in cases:
        zero = brainstem_end_mm(case)
        volume = as_volume(case)
        if zero is None:
            continue
        stop = int(np.searchsorted(volume.grid.positions_mm[:, 2], zero - 130))
        if stop * volume.grid.spacing_mm[0] >= 80:
            yield part(volume, slice(0, stop))


def dicom_rows(data: Path) -> Iterator[str]:
    """Each real series, read as the daemon does."""
    with tempfile.TemporaryDirectory() as unpacked:
        for archive in sorted((data / "dicom").rglob("*.tar.xz")):
            with tarfile.open(archive) as packed:
                packed.extractall(Path(unpacked) / archive.parent.name, filter="data")
        folders = [*sorted((data / "dicom").iterdir()), *sorted(Path(unpacked).iterdir())]
        for folder in folders:
            for paths in find_series(folder).values() if folder.is_dir() else ():
                yield f"| {folder.name} | {len(paths)} | {_judged(paths)} |"


def _judged(paths: list[Path]) -> str:
    try:
        found = examine_image(read_series(paths))
    except SeriesUnsuitable as refusal:
        return f"refused when read: {refusal.code}"
    return ", ".join(f"{f.code} ({f.severity})" for f in found) or "nothing found"


# Organs


@dataclass(frozen=True)
class Fault:
    """Something wrong with contours, and the findings by which it should be noticed."""

    name: str
    apply: Callable[[Masks, SliceGrid], Masks | None]
    expected: tuple[str, ...]


def _swapped(masks: Masks, _grid: SliceGrid) -> Masks | None:
    pairs = [name for name in masks if structure(name).mirror != name and structure(name).mirror in masks]
    return {**masks, **{name: masks[structure(name).mirror] for name in pairs}} if pairs else None


def _mirrored(name: str) -> Callable[[Masks, SliceGrid], Masks | None]:
    """One organ drawn on the other side: its partner's place."""

    def apply(masks: Masks, _grid: SliceGrid) -> Masks | None:
        partner = structure(name).mirror
        return {**masks, name: masks[partner]} if name in masks and partner in masks else None

    return apply


def _shrunk(name: str, share: float) -> Callable[[Masks, SliceGrid], Masks | None]:
    """Only the lowest part of an organ."""

    def apply(masks: Masks, _grid: SliceGrid) -> Masks | None:
        if name not in masks:
            return None
        full = masks[name].full()
        volume = np.cumsum(full.sum(axis=(1, 2)))
        full[int(np.searchsorted(volume, share * volume[-1])) + 1 :] = False
        return {**masks, name: Mask.from_full(full)}

    return apply


def _moved(name: str, headwards_mm: float) -> Callable[[Masks, SliceGrid], Masks | None]:
    """An organ at another level, where the image has it."""

    def apply(masks: Masks, grid: SliceGrid) -> Masks | None:
        if name not in masks:
            return None
        mask = masks[name]
        first = mask.corner[0] + round(headwards_mm / grid.spacing_mm[0])
        if first < 1 or first + len(mask.voxels) >= mask.shape[0]:
            return None
        return {**masks, name: replace(mask, corner=(first, *mask.corner[1:]))}

    return apply


def _upside_down(masks: Masks, _grid: SliceGrid) -> Masks | None:
    return {name: Mask.from_full(mask.full()[::-1]) for name, mask in masks.items()}


FAULTS = (
    Fault("as it is", lambda masks, _grid: masks, ()),
    Fault("left and right names exchanged", _swapped, ("sides-swapped", "wrong-side")),
    Fault("Parotid_L drawn on the right", _mirrored("Parotid_L"), ("sides-swapped", "wrong-side")),
    Fault(
        "all upside down",
        _upside_down,
        ("wrong-order-head-feet", "unusual-place"),
    ),
    Fault("Parotid_R 50 mm too low", _moved("Parotid_R", -50), ("unusual-place",)),
    Fault("Brainstem 50 mm too high", _moved("Brainstem", 50), ("unusual-place",)),
    Fault("a quarter of Parotid_L", _shrunk("Parotid_L", 0.25), ("organ-too-small", "unequal-sides")),
    Fault("a quarter of Brainstem", _shrunk("Brainstem", 0.25), ("organ-too-small",)),
    Fault("half of Bone_Mandible", _shrunk("Bone_Mandible", 0.5), ("organ-too-small", "unusual-place")),
)


def contours_of(case: Case) -> tuple[Masks, SliceGrid]:
    """The contours that were drawn of whole organs, by whichever protocol."""
    grid = slice_grid(case.label_frame, case.labels.shape)
    return whole_organs(case), grid


def fault_rows(drawn: list[tuple[Masks, SliceGrid]], ranges: ReferenceRanges) -> Iterator[str]:
    """One row per fault."""
    for fault in FAULTS:
        results = []
        for masks, grid in drawn:
            wrong = fault.apply(masks, grid)
            if wrong is not None:
                results.append(check_plausibility(wrong, grid, ranges))
        noticed = sum(any(f.code in fault.expected for f in found) for found in results)
        held, warned = _held_and_warned(_but_ends(found) for found in results)
        share = f"{noticed} of {len(results)}" if fault.expected else "–"
        yield f"| {fault.name} | {len(results)} | {share} | {held} | {warned} |"


def _but_ends(findings: Iterable[Finding]) -> list[Finding]:
    """Without what says that the image ends within an organ, which is so and no fault of the contours."""
    return [f for f in findings if f.code != "organ-cut-off"]


# The network


def segmented(
    segmenter: Segmenter, name: str, volume: CTVolume, cache: Path
) -> tuple[Masks, dict[str, float]]:
    """Masks and confidence of the network, kept by the digest of its weights."""
    path = cache / segmenter.bundle.digest[:12] / f"{name}.npz"
    if not path.exists():
        done = segmenter.segment(volume)
        path.parent.mkdir(parents=True, exist_ok=True)
        organs = list(done.masks)
        voxels = np.stack([done.masks[organ].full() for organ in organs])
        mean = [done.confidence[organ] for organ in organs]
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, organs=np.array(organs), voxels=voxels, confidence=mean)
        part.replace(path)
    with np.load(path, allow_pickle=False) as kept:
        organs = kept["organs"].tolist()
        masks = {organ: Mask.from_full(full) for organ, full in zip(organs, kept["voxels"], strict=True)}
        return masks, dict(zip(organs, kept["confidence"].tolist(), strict=True))


def network_section(
    segmenter: Segmenter, ranges: ReferenceRanges, cases: list[Case], cache: Path
) -> list[str]:
    """What both checks say of the network's own contours, image as it is and upside down."""
    lines = ["| image | cases | held | only warned | findings |", "|---|---|---|---|---|"]
    doubts: list[tuple[float, float]] = []
    for change in CHANGES[:2]:
        results, codes = [], dict[str, int]()
        for case in track(cases, f"network, {change.name}"):
            volume = as_volume(case)
            volume = changed(volume, change.apply(volume.hu).copy())
            masks, confidence = segmented(
                segmenter, f"{case.name}-{change.name.replace(' ', '-')}", volume, cache
            )
            found = [
                *examine_anatomy(volume, masks),
                *_but_ends(check_plausibility(masks, volume.grid, ranges, confidence)),
            ]
            results.append(found)
            for code in {f"{f.code} ({f.severity})" for f in found if f.severity != Severity.NOTE}:
                codes[code] = codes.get(code, 0) + 1
            if not change.expected:
                doubts += _confidence_and_dice(case, masks, confidence)
        held, warned = _held_and_warned(results)
        told = ", ".join(
            f"{code} {count}" for code, count in sorted(codes.items(), key=lambda item: -item[1])
        )
        lines.append(f"| {change.name} | {len(cases)} | {held} | {warned} | {told} |")
    return ["\n".join(lines), _on_confidence(doubts)]


def _confidence_and_dice(
    case: Case, masks: Mapping[str, Mask], confidence: Mapping[str, float]
) -> Iterator[tuple[float, float]]:
    for name, drawn in whole_organs(case).items():
        if name in masks and drawn.shape == masks[name].shape:
            yield confidence[name], dice(drawn.full(), masks[name].full())


def _on_confidence(pairs: list[tuple[float, float]]) -> str:
    sure, doubtful = (
        [dice for mean, dice in pairs if (mean >= LEAST_CONFIDENCE) == wanted] for wanted in (True, False)
    )
    correlation = float(np.corrcoef(np.array(pairs).T)[0, 1]) if len(pairs) > 2 else float("nan")
    return (
        f"Mean probability within an organ against its Dice coefficient, over {len(pairs)} organs: correlation "
        f"{correlation:.2f}; mean Dice {_mean(sure)} of {len(sure)} organs at {LEAST_CONFIDENCE} and more, "
        f"{_mean(doubtful)} of {len(doubtful)} below."
    )


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.2f}" if values else "–"


def main(
    packs: Path = typer.Option(Path("runs/packs"), help="Folder of packed cases."),  # noqa: B008
    data: Path = typer.Option(Path("../shared/data"), help="Folder with the DICOM series."),  # noqa: B008
    bundle: Path = typer.Option(DEFAULT_BUNDLE, help="Bundle with reference ranges."),  # noqa: B008
    cache: Path = typer.Option(Path("runs/gates"), help="Where masks are kept."),  # noqa: B008
    out: Path = typer.Option(Path("docs/gates.md"), help="File to write."),  # noqa: B008
) -> None:
    """Count and write docs/gates.md."""
    console = Console()
    loaded = Bundle.load(bundle)
    if loaded.reference_ranges is None:
        raise typer.BadParameter(f"{bundle} has no reference ranges: run python -m training.reference_ranges")
    ranges = loaded.reference_ranges
    cases = {split: list(read_packs(sorted(packs.glob(f"openkbp-{split}-*.npz")))) for split in SPLITS}
    observers = list(read_packs(sorted(packs.glob("tcia21-validation-*.npz"))))
    volumes = {split: [as_volume(case) for case in found] for split, found in cases.items()}
    validation = cases["validation"]
    drawn = [contours_of(case) for case in [*validation, *observers]]
    head = "| image | images | noticed | held | only warned |"
    text = [
        INTRODUCTION,
        "## Images",
        "### Validation cases",
        *_table(head, image_rows(volumes["validation"])),
        _reasons_sentence(volumes["validation"]),
        "### Training cases, on which limits were chosen",
        *_table(head, image_rows(volumes["train"])),
        MIRRORED,
        "### Short images",
        "Slabs from the middle of validation images.",
        *_table(
            "| mm | images | held | unclear | turned: held | turned: unclear |",
            slab_rows(volumes["validation"]),
        ),
        "### Chests",
        _chest_sentence(cases),
        "### DICOM series",
        *_table("| series | files | outcome |", dicom_rows(data)),
        "### Time",
        _time_sentence(volumes["validation"][0]),
        "## Organs as people contoured them",
        ORGANS,
        *_table("| contours | cases | noticed | held | only warned |", fault_rows(drawn, ranges)),
        "## Organs as the network contours them",
        f"Bundle {loaded.name} {loaded.version}, weights {loaded.digest[:12]}, {NETWORK_CASES} validation cases.",
        *network_section(Segmenter(loaded, "cpu", 1), ranges, validation[:NETWORK_CASES], cache),
        LIMITS,
    ]
    out.write_text(_spaced(text), encoding="utf-8")
    console.print(f"{out} written")


SPLITS = ("train", "validation")

INTRODUCTION = """# What the gates notice

Written by `python -m benchmarks.gates`. Two gates stand before a result leaves: `model/image_gate.py` judges
the image by its voxels, `model/plausibility.py` judges the organs that were found. A finding is a note, a warning
(look before use) or a hold (nothing leaves before a person has looked).

Limits of likeness, margins, Hounsfield units, sizes, shapes and places come from training cases. Others are
choices made without measuring: mean probability, metal, air within an organ, the brainstem's level, and the
factor of 3 for a hold. The row of parotids 50 mm too low counts cases by which it was decided that places are
measured from the partner and the mandible too: expect less elsewhere.

"Noticed" counts the images with the finding that the change should provoke; "held" and "only warned" count
the gravest finding of each image, whatever it is for."""

MIRRORED = """Left and right: head and neck are too symmetrical to tell. Only images that reach the aortic arch are
judged, and those rows count only such images; in all others an exchange of left and right is **not noticed**."""

ORGANS = (
    """Contours of validation cases, clinical and by the oncologist, whole organs only; then made wrong."""
)

LIMITS = """## What is not known

- No real CT of abdomen, pelvis or thigh was at hand: that they are held is expected and unmeasured. Chests come
  from the lower ends of head-and-neck scans.
- Images of the cases have pixels of 3.5 to 5.4 mm and were cut to where dose was planned, so couch, arms and
  the edge of the field of view are mostly missing: how often a body at the edge is reported wrongly is unmeasured.
- The couch is not used as evidence: a patient may lie prone.
- Streaks are not searched for; slices with metal are named instead.
- An organ left out altogether is no finding here, and half an organ passes where organs differ by more.
- Organs are told to be upside down by their order, so one or two organs that were contoured alone cannot be.
- How often parts are found apart from an organ, which are left out (`parts-left-out`), is not counted here.
- Two acquisitions in turn (`slices-alternate`) are told by the patient's movement between them, from about 4 mm on
  where slices lie 2.5 mm apart; no such image of a patient was at hand.
- Mean probability does not tell a good contour from a fair one."""


def _reasons_sentence(volumes: list[CTVolume]) -> str:
    """Which findings, other than the note of what it shows, unchanged images have."""
    counts = Counter(
        f"{found.code} ({found.severity})"
        for volume in volumes
        for found in examine_image(volume)
        if found.code != "image-coverage"
    )
    told = ", ".join(f"{code} {count}" for code, count in counts.most_common())
    return f"As they are, the images have: {told}."


def _chest_sentence(cases: Mapping[str, list[Case]]) -> str:
    parts = []
    for split, found in cases.items():
        results = [examine_image(volume) for volume in chests(found)]
        parts.append(f"{_with(results, 'not-head-and-neck')} of {len(results)} {split} images")
    return (
        f"Cut to what lies 130 mm and more below the brainstem, held as no head and neck: {', '.join(parts)}."
    )


def _time_sentence(volume: CTVolume) -> str:
    """On a volume of the usual size, made of noise about the shape of a real one."""
    shape = (200, 512, 512)
    nearest = [
        np.linspace(0, n - 1, wanted).astype(int) for n, wanted in zip(volume.hu.shape, shape, strict=True)
    ]
    hu = volume.hu[np.ix_(*nearest)]
    positions = np.outer(np.arange(200) * 2.0, [0, 0, 1])
    grid = SliceGrid(positions, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (0.98, 0.98), 512, 512)
    volume = CTVolume(hu, grid, (), volume.header)
    seconds = []
    for _ in range(3):
        started = time.process_time()
        examine_image(volume)
        seconds.append(time.process_time() - started)
    return f"512 × 512 × 200 voxels: {min(seconds):.2f} s of processor time on one core."


def _table(head: str, rows: Iterable[str]) -> list[str]:
    return ["\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows])]


def _spaced(parts: Iterable[str]) -> str:
    """Paragraphs apart, rows of a table together."""
    text = ""
    for each in parts:
        is_row = each.startswith("|") and text.rstrip("\n").rpartition("\n")[2].startswith("|")
        text += ("\n" if is_row or not text else "\n\n") * bool(text) + each
    return text + "\n"


if __name__ == "__main__":
    typer.run(main)
