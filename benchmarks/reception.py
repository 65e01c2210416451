"""Durable reception of a CT over loopback, beside DCMTK, Orthanc and pynetdicom, and beside bare loops."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import lru_cache
from importlib.metadata import version
from itertools import count
from pathlib import Path

from benchmarks import peers, record
from benchmarks.bulk_sender import SIDE, Image, images, send
from benchmarks.receivers import (
    ORTHANC,
    ORTHANC_SYNCED,
    OURS,
    PYNETDICOM,
    STORESCP,
    STORESCP_SYNCED,
    Receiver,
    all_present,
    sync_folder,
)
from benchmarks.result import Goal, Limit, Report, ResultsDifferError, Row, Sample, Unit
from benchmarks.timer import Timed, take_turns

COUNT, QUICK_COUNT, QUICK_SIDE = 200, 8, 64
ASSOCIATIONS = (1, 4)
ROUNDS = 5
LEAST_MB_PER_SECOND = 200.0
RATIOS = {ORTHANC_SYNCED: 2.5, STORESCP_SYNCED: 1.0}
TWO_SYNCS, THREE_SYNCS = "a bare loop, file and folder synced", "a bare loop in our order"
DISK = "the disk"
LOG_BYTES = 4 * 4120
"""What SQLite appends to its journal for the row of one image: four pages with their headers."""
NOTES = {
    STORESCP: "the peer promises nothing: its files are not synced",
    STORESCP_SYNCED: "its files are synced after the last response, so a response is no promise",
    ORTHANC: "the peer promises nothing: its files are not synced",
    ORTHANC_SYNCED: "each file is synced; its folder and its row in the index are not",
    PYNETDICOM: "the peer promises nothing: its files are not synced",
    TWO_SYNCS: "no network: write, fsync, fsync of the folder, in a thread for each association",
    THREE_SYNCS: "no network: write, fsync, link, fsync of the folder, append to a log, fdatasync, likewise",
}
ABOUT = (
    "The clock runs from the first C-STORE request to the last response; associations stand already.",
    "One lean sender sends the same images to each, with everything encoded before the clock starts.",
    "Ours answers 0x0000 once the file, its folder and its row in SQLite are synced to the disk.",
    "Receivers are processes that run all the time; before each turn all that is not yet on the disk is synced.",
    "DCMTK and Orthanc run with TCP_NODELAY, without which each response takes 40 ms; all take PDUs of 128 KB.",
    "Bare loops are no limits: ours begins to write while an image arrives, and images share a commit.",
    "After each turn every receiver holds every image sent, by SOP Instance UID, with equal pixels.",
)

Series = list[list[Image]]
"""What goes over each association."""


def run(*, quick: bool) -> Report:
    """With one association, then with more; bare loops take turns with the receivers."""
    installed = all_present()
    missing = sorted({STORESCP, ORTHANC} - set(installed))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        receivers = {
            name: stack.enter_context(start(root / str(number)))
            for number, (name, start) in enumerate(installed.items())
        }
        rates = {each: _rates(receivers, each, root / f"disk{each}", quick=quick) for each in ASSOCIATIONS}
    goals = _goals({each: rates[each][OURS] for each in ASSOCIATIONS})
    count = QUICK_COUNT if quick else COUNT
    return Report(
        "Reception",
        ABOUT,
        tuple(row for each in ASSOCIATIONS for row in _rows(rates[each], each, count, goals[each])),
        limits=tuple(_limit(rates[each], each) for each in ASSOCIATIONS),
        unmeasured=(
            "A network between two machines: none was at hand.",
            *(f"{name}: it is not installed." for name in missing),
        ),
        versions=(
            *(
                peers.debian_version(each)
                for each in ("dcmtk", "orthanc")
                if each not in peers.missing_programs()
            ),
            f"pynetdicom {version('pynetdicom')}",
        ),
    )


def _rates(
    receivers: Mapping[str, Receiver], associations: int, disk: Path, *, quick: bool
) -> dict[str, Sample]:
    """MB of data sets a second, by receiver and by bare loop."""

    @lru_cache(maxsize=1)
    def sent(turn: int) -> Series:
        each = (QUICK_COUNT if quick else COUNT) // associations
        root = f"1.2.826.0.1.3680043.10.1.{associations}.{turn}"
        return [
            images(f"{root}.{number}", each, QUICK_SIDE if quick else SIDE) for number in range(associations)
        ]

    programs = {
        name: _turns(sent, lambda series, to=receiver, name=name: _received(name, to, series))
        for name, receiver in receivers.items()
    }
    programs[TWO_SYNCS] = _turns(
        sent, lambda series: _written(disk / "bare", series, lambda path: sync_folder(path.parent))
    )
    programs[THREE_SYNCS] = _turns(
        sent, lambda series: _written(disk / "arriving", series, _linked_and_logged)
    )
    programs[DISK] = _turns(sent, lambda series: _appended(disk / "all", series))
    seconds = take_turns(
        programs, 1 if quick else ROUNDS, f"reception, {associations} at once", warm_up=not quick
    )
    megabytes = sum(len(image.dataset_bytes) for own in sent(0) for image in own) / 1e6
    return {name: sample.as_rate(megabytes) for name, sample in seconds.items()}


def _turns(sent: Callable[[int], Series], program: Callable[[Series], float]) -> Timed:
    """Every turn has images of its own, the same for every receiver."""
    numbers = count()

    def turn() -> float:
        series = sent(next(numbers))
        os.sync()  # what one left behind is not to slow down the next
        return program(series)

    return turn


def _received(name: str, receiver: Receiver, series: Series) -> float:
    """Seconds of one receiver; raises ResultsDifferError where it does not hold what was sent."""
    seconds = send(receiver.port, receiver.ae_title, series)
    started = time.perf_counter()
    receiver.finish()
    seconds += time.perf_counter() - started
    stored = receiver.new()
    wanted = {image.sop_instance_uid: image for own in series for image in own}
    if stored.keys() != wanted.keys():
        raise ResultsDifferError(f"{name} holds {len(stored)} images, {len(wanted)} were sent")
    for uid, pixels in stored.items():
        # Pixel Data is the last element, behind its length.
        if not wanted[uid].dataset_bytes.endswith(len(pixels).to_bytes(4, "little") + pixels):
            raise ResultsDifferError(f"{name} holds other pixels of {uid}")
    return seconds


def _written(folder: Path, series: Series, finish: Callable[[Path], None]) -> float:
    """Seconds that a bare loop for each association takes to write and sync every image, and to finish it."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(own: list[Image]) -> None:
        for image in own:
            path = folder / image.sop_instance_uid
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(descriptor, image.dataset_bytes)
            os.fsync(descriptor)
            os.close(descriptor)
            finish(path)

    with ThreadPoolExecutor(len(series)) as threads:
        started = time.perf_counter()
        list(threads.map(write, series))
        return time.perf_counter() - started


def _appended(file: Path, series: Series) -> float:
    """Seconds that all images take one behind another in one file, synced once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    started = time.perf_counter()
    for own in series:
        for image in own:
            os.write(descriptor, image.dataset_bytes)
    os.fsync(descriptor)
    seconds = time.perf_counter() - started
    os.close(descriptor)
    return seconds


def _linked_and_logged(path: Path) -> None:
    named = path.parent / "named"
    named.mkdir(exist_ok=True)
    os.link(path, named / path.name)
    sync_folder(named)
    path.unlink()
    descriptor = os.open(path.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, bytes(LOG_BYTES))
    os.fdatasync(descriptor)
    os.close(descriptor)


def _goals(ours: Mapping[int, Sample]) -> dict[int, float]:
    """MB a second by associations: more of them are not to be slower than one, nor than one should be."""
    one, more = ASSOCIATIONS
    return {one: LEAST_MB_PER_SECOND, more: max(LEAST_MB_PER_SECOND, round(ours[one].median, 1))}


def _rows(rates: Mapping[str, Sample], associations: int, count: int, least: float) -> list[Row]:
    what = "one association" if associations == 1 else f"{associations} associations at once"
    size, unit = f"{count} images", Unit.MB_PER_SECOND
    alone = Row(what, size, unit, rates[OURS], goal=Goal(at_least=least))
    return [alone] + [
        Row(
            what,
            size,
            unit,
            rates[OURS],
            name,
            rate,
            Goal(RATIOS[name]) if name in RATIOS else None,
            NOTES[name],
        )
        for name, rate in rates.items()
        if name not in {OURS, DISK}
    ]


def _limit(rates: Mapping[str, Sample], associations: int) -> Limit:
    return Limit(
        f"{associations} at once",
        Unit.MB_PER_SECOND,
        rates[OURS].median,
        rates[DISK].median,
        f"no network, no promise for one image: all bytes in one file and one fsync, {rates[DISK].rounds} rounds",
    )


if __name__ == "__main__":
    record.alone("reception", run)
