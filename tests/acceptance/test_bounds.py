"""What grows in other programs stays as it is here: memory over jobs, jobs over associations."""

from itertools import pairwise

import pytest

from tests.acceptance.processes import install
from tests.instances import ct_series
from tests.load import Load, Phase, Sample, load
from tests.memory_of_jobs import run_jobs
from tests.one_by_one import images_of_the_only_job, send_one_by_one
from tests.peers import ReceivingPeer
from tests.phantom import make_grid, write_series

pytestmark = pytest.mark.timeout(900)

LEAST_LEAK_BYTES = 8_000_000
"""Of one job's volume: what would stay behind each time if anything held on to it."""


def test_a_hundred_images_with_an_association_each_are_one_job(tmp_path):
    installation = install(tmp_path, {"tps": 1})
    text = installation.config.read_text().replace("quiet_seconds = 0.5", "quiet_seconds = 10")
    installation.config.write_text(text)
    with installation.running("listen"):
        assert send_one_by_one(installation, ct_series(100)) == [0] * 100
        assert images_of_the_only_job(installation) == 100


def test_memory_of_a_worker_does_not_grow_with_its_jobs(tmp_path):
    """A real worker process; the network tells the phantom's parts by their HU."""
    with ReceivingPeer() as tps:
        installation = install(tmp_path / "node", {"tps": tps.port})
        grid = make_grid(pixel_spacing_mm=(1.0, 1.0), size=(200, 200), offsets_mm=range(-100, 101, 2))
        write_series(tmp_path / "ct", grid=grid)
        assert LEAST_LEAK_BYTES <= 2 * 101 * 200 * 200
        course = run_jobs(installation, [tmp_path / "ct"], 9, 200)

    assert len(tps.received) == 9
    peaks = [course.peak_of(slice(job, job + 1)) for job in range(2, 9)]
    # What is held on to comes with every job; tiles of two threads that need most at once come with some.
    growth = sorted(after - before for before, after in pairwise(peaks))
    assert growth[1] < LEAST_LEAK_BYTES / 2


def test_memory_threads_and_files_of_a_listener_do_not_grow_with_its_images_and_associations(tmp_path):
    """Images of 128 KB: to hold on to each of them, or to as much for each association, would be noticed."""
    result = load(tmp_path / "node", instances=300, associations=300, at_once=20, side=256)

    assert result.violations() == []
    assert len(result.queued) == 300
    assert len(result.visiting.samples) == 15


def test_what_a_listener_loses_or_holds_on_to_is_named():
    before, after = Sample(0, 100_000_000, 2, 7, 3), Sample(9, 100_000_000, 3, 8, 99)
    growing = [Sample(second, 100_000_000 + 4_000_000 * second, 2, 7, 3) for second in range(10)]
    level = [before] * 10

    assert (
        Load(
            Phase("images", 1, level), Phase("associations", 1, level), before, before, {"1"}, {"1"}
        ).violations()
        == []
    )
    assert Load(
        Phase("images", 3, growing), Phase("associations", 1, growing), before, after, {"1", "2"}, {"1"}
    ).violations() == [
        "2 of 3 images were answered 0x0000",
        "1 images differ between senders and job table",
        "3 threads, 2 before",
        "8 open files, 7 before",
        "99 open files of the job table",
        "images: memory grew by 24.0 MB",
        "associations: memory grew by 24.0 MB",
    ]
