"""A queued job ends as a stored structure set or with its true reason, whatever happens on the way."""

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from pydicom import dcmread

from daemon.config import Route
from daemon.errors import OutputRejected, StorageFull
from daemon.job_runner import STORAGE_SECONDS, DeviceBroken, _result
from daemon.jobs import JobState
from daemon.result_header import ResultIdentity
from daemon.result_objects import ResultKind, WantedObject
from daemon.retention import erase
from daemon.segmentation import STAGES, contour_series
from daemon.template_file import load_template
from tests.phantom import make_grid, write_series
from tests.stub_segmenter import StubSegmenter
from tests.workplace import Workplace, small_series


@pytest.fixture
def workplace(tmp_path):
    place = Workplace(tmp_path, ports={"tps": 104, "pacs": 105})
    yield place
    place.queue.close()


def raising(error):
    def before(_volume):
        raise error

    return StubSegmenter(before=before)


def test_nothing_to_do_is_said(workplace):
    assert workplace.runner().run_next() is False


def test_job_becomes_a_stored_structure_set_with_its_rows(workplace):
    job = workplace.segmented()

    row = workplace.job(job)
    assert row.state is JobState.SEGMENTED
    assert (row.model_name, row.model_version) == ("threshold", "1.0")
    dataset = dcmread(workplace.spool.result_path(job))
    assert dataset.SOPInstanceUID == row.result_sop_instance_uid
    assert dataset.SeriesInstanceUID == row.result_series_instance_uid
    assert [(each.name, each.found) for each in workplace.queue.structures(job)] == [
        ("Brain", True),
        ("Eye_L", True),
        ("Eye_R", True),
    ]
    assert [each.destination for each in workplace.queue.deliveries(job)] == ["tps", "pacs"]
    assert [each.stage for each in workplace.queue.stage_times(job)] == list(STAGES)
    assert "segmented by threshold" in [event.detail for event in workplace.queue.events(job)]


def test_route_decides_the_structures_and_none_named_means_all(workplace):
    workplace.structures = ["Eye_L"]
    one = workplace.segmented(seed=1)
    workplace.structures = []
    every = workplace.segmented(seed=2)

    assert [each.name for each in workplace.queue.structures(one)] == ["Eye_L"]
    assert len(workplace.queue.structures(every)) == 21


def test_series_without_a_route_is_rejected_with_what_to_configure(workplace):
    workplace.ports = {}
    job = workplace.queue_phantom()
    workplace.runner().run_next()

    row = workplace.job(job)
    assert (row.state, row.reason_code) == (JobState.REJECTED, "no-route")
    for words in ("CT1", "OARLOCK", "[[routes]]", f"oarlock retry {job}"):
        assert words in str(row.reason)


def test_unsuitable_series_is_rejected_with_its_code_and_numbers(workplace):
    job = workplace.queue_series(small_series(workplace.root / "sent")[:3])
    workplace.runner().run_next()

    row = workplace.job(job)
    assert (row.state, row.reason_code) == (JobState.REJECTED, "too-few-slices")
    assert "3" in str(row.reason)


def test_series_in_which_nothing_is_found_is_rejected(workplace):
    grid = make_grid(size=(60, 65))
    hu = np.where(np.indices(grid.shape).sum(axis=0) % 2, -1000, 55).astype(np.int16)
    job = workplace.queue_series(write_series(workplace.root / "sent", hu, grid))
    workplace.runner().run_next()

    row = workplace.job(job)
    assert (row.state, row.reason_code) == (JobState.REJECTED, "not-head-and-neck")


def test_a_destination_for_which_nothing_could_be_made_gets_no_delivery(tmp_path):
    site = tmp_path / "site.toml"
    site.write_text('name = "S"\n[[structures]]\nname = "Eyes"\nunion = ["Eye_L", "Eye_R"]\n')
    wanted = [
        WantedObject(ResultKind.STRUCTURE_SET, "generic", ("tps",)),
        WantedObject(ResultKind.SEGMENTATION, "", ("archive",)),
    ]

    def store(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    paths = write_series(tmp_path / "sent")
    identity = ResultIdentity("2.25.11", "2.25.12", datetime(2026, 3, 1, tzinfo=UTC))
    done = contour_series(paths, StubSegmenter(), identity, load_template(site), wanted, store)

    result = _result(done, Route(destinations=("archive", "tps")))

    assert result.destinations == ["tps"]
    assert any("no segmentation" in remark for remark in result.remarks)


def test_structure_set_that_fails_its_check_is_never_sent(workplace, monkeypatch):
    def refuse(*_arguments):
        raise OutputRejected(["Eye_L: contours return the mask with Dice 0.5 < 0.99"])

    monkeypatch.setattr("daemon.result_building.check_structure_set", refuse)
    job = workplace.segmented()

    row = workplace.job(job)
    assert (row.state, row.reason_code) == (JobState.FAILED, "output-rejected")
    assert "Dice 0.5" in str(row.reason)
    assert workplace.queue.deliveries(job) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        MemoryError("could not allocate"),
        KeyError("surprise"),
    ],
)
def test_passing_failure_is_tried_again_with_growing_waits_and_fails_in_the_end(workplace, error):
    job = workplace.queue_phantom()
    runner, waits = workplace.runner(raising(error)), []
    while runner.run_next():
        row = workplace.job(job)
        if row.state is JobState.QUEUED:
            waits.append(row.not_before - workplace.clock.now)
            workplace.clock.now = row.not_before

    assert waits == [timedelta(seconds=30), timedelta(seconds=60)]
    row = workplace.job(job)
    assert (row.state, row.reason_code, row.attempts) == (JobState.FAILED, "attempts-used-up", 3)
    assert type(error).__name__ in str(row.reason)
    assert "stub_segmenter" in str(row.reason) or "test_job_runner" in str(row.reason)


def test_a_job_whose_end_cannot_be_written_for_another_reason_fails_and_not_its_worker(
    workplace, monkeypatch
):
    job = workplace.queue_phantom()
    monkeypatch.setattr(workplace.queue, "segmented", Mock(side_effect=RuntimeError("a fault of ours")))

    assert workplace.runner().run_next()

    assert workplace.job(job).state is JobState.QUEUED
    assert "RuntimeError" in str(workplace.job(job).reason)


def test_a_disk_that_stays_full_uses_up_no_attempt_and_the_job_goes_on_when_there_is_room(workplace):
    troubles = [StorageFull("cannot write: No space left on device")] * 10

    def full(_volume):
        if troubles:
            raise troubles.pop()

    job = workplace.queue_phantom()
    runner = workplace.runner(StubSegmenter(before=full))
    while runner.run_next():
        row = workplace.job(job)
        if row.state is JobState.QUEUED:
            assert "waits for storage: cannot write" in str(row.reason)
            assert row.not_before - workplace.clock.now == timedelta(seconds=STORAGE_SECONDS)
            workplace.clock.now = row.not_before

    assert troubles == []
    assert (workplace.job(job).state, workplace.job(job).attempts) == (JobState.SEGMENTED, 1)


def broken_reading(monkeypatch, error):
    """Let every image be read by a disk with a fault."""
    read = Path.open

    def opened(path, *args, **options):
        if "images" in path.parts:
            raise error
        return read(path, *args, **options)

    monkeypatch.setattr(Path, "open", opened)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_images_that_the_disk_does_not_give_back_now_are_not_called_unsuitable(
    workplace, monkeypatch, number
):
    job = workplace.queue_phantom()
    with monkeypatch.context() as broken:
        broken_reading(broken, OSError(number, os.strerror(number), "image.dcm"))
        assert workplace.runner().run_next()
    row = workplace.job(job)
    assert row.state is JobState.QUEUED
    assert f"waits for storage: cannot read image.dcm: {os.strerror(number)}" in str(row.reason)

    workplace.clock.now = row.not_before
    assert workplace.runner().run_next()
    assert (workplace.job(job).state, workplace.job(job).attempts) == (JobState.SEGMENTED, 1)


def test_a_job_whose_image_is_gone_fails_and_says_which(workplace):
    """It is kept until somebody decides, as one that is rejected would not be."""
    job = workplace.queue_phantom()
    path = workplace.spool.instance_paths(job)[3]
    content = path.read_bytes()
    path.unlink()
    assert workplace.runner().run_next()

    row = workplace.job(job)
    assert (row.state, row.reason_code) == (JobState.FAILED, "image-missing")
    assert f"{path}: No such file" in str(row.reason)

    path.write_bytes(content)
    workplace.queue.retry(job)
    assert workplace.runner().run_next()
    assert workplace.job(job).state is JobState.SEGMENTED


def test_reason_of_an_unexpected_error_names_no_patient(workplace):
    job = workplace.queue_phantom()
    quoting = ValueError("bad value 'Phantom^Geometric' (PHANTOM0, ACC0, born 19700101) for VR PN")
    workplace.runner(raising(quoting)).run_next()

    reason = str(workplace.job(job).reason)
    assert "bad value" in reason
    for secret in ("Phantom^Geometric", "Geometric", "PHANTOM0", "ACC0", "19700101"):
        assert secret not in reason


def test_broken_gpu_context_returns_the_job_and_ends_the_process(workplace):
    job = workplace.queue_phantom()

    with pytest.raises(DeviceBroken, match="illegal memory access"):
        workplace.runner(raising(RuntimeError("CUDA error: an illegal memory access"))).run_next()

    assert workplace.job(job).state is JobState.QUEUED


def test_job_that_kills_its_worker_uses_up_its_attempts(workplace):
    job = workplace.queue_phantom()
    for _ in range(3):
        assert workplace.queue.claim("a worker that dies", 60)
        workplace.clock.forward(seconds=60)
        workplace.queue.release_expired()

    row = workplace.job(job)
    assert (row.state, row.reason_code) == (JobState.FAILED, "attempts-used-up")


def test_time_in_the_object_is_that_of_the_first_run_also_after_a_crash(workplace):
    job = workplace.queue_phantom()
    crashing = workplace.runner(raising(KeyboardInterrupt()), owner="worker-that-dies")
    with pytest.raises(KeyboardInterrupt):
        crashing.run_next()
    began_at = workplace.clock.now
    workplace.clock.forward(hours=3)
    workplace.queue.release_expired()

    assert workplace.runner(owner="worker-2").run_next()
    dataset = dcmread(workplace.spool.result_path(job))
    assert dataset.StructureSetTime.startswith(began_at.astimezone().strftime("%H%M%S"))


def test_crash_between_file_and_row_leaves_one_structure_set_with_the_same_bytes(workplace, monkeypatch):
    job = workplace.queue_phantom()

    def dies(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(workplace.queue, "segmented", dies)
        with pytest.raises(KeyboardInterrupt):
            workplace.runner(owner="worker-that-dies").run_next()
    left_behind = workplace.result_bytes(job)
    assert workplace.job(job).state is JobState.SEGMENTING
    workplace.clock.forward(minutes=5)
    workplace.queue.release_expired()

    assert workplace.runner(owner="worker-2").run_next()
    assert left_behind == workplace.result_bytes(job)
    assert workplace.job(job).state is JobState.SEGMENTED


def test_result_of_a_job_cancelled_meanwhile_is_thrown_away(workplace):
    job = workplace.queue_phantom()
    segmenter = StubSegmenter(before=lambda _volume: workplace.queue.cancel(job, "by an operator"))

    assert workplace.runner(segmenter).run_next()
    assert workplace.job(job).state is JobState.CANCELLED
    assert workplace.queue.deliveries(job) == []


def test_nothing_of_a_patient_who_is_erased_meanwhile_is_written(workplace):
    job = workplace.queue_phantom()

    def operator(_volume):
        workplace.queue.cancel(job, "cancelled by ada")
        erase(workplace.queue, workplace.spool, job, "erased by ada")

    workplace.runner(StubSegmenter(before=operator)).run_next()

    assert workplace.job(job).state is JobState.PURGED
    assert not workplace.spool.result_path(job).parent.exists()


def test_result_of_a_worker_whose_lease_ran_out_is_thrown_away(workplace):
    job = workplace.queue_phantom()

    def sleeps_too_long(_volume):
        workplace.clock.forward(minutes=10)
        workplace.queue.release_expired()
        assert workplace.queue.claim("worker-2", 60)

    assert workplace.runner(StubSegmenter(before=sleeps_too_long)).run_next()
    row = workplace.job(job)
    assert (row.state, row.lease_owner) == (JobState.SEGMENTING, "worker-2")


def test_job_broken_off_by_a_stop_goes_back_without_losing_an_attempt(workplace):
    job = workplace.queue_phantom()
    segmenter = StubSegmenter(before=lambda _volume: runner.break_off())
    runner = workplace.runner(segmenter)

    assert runner.run_next()
    row = workplace.job(job)
    assert (row.state, row.attempts, row.not_before) == (JobState.QUEUED, 0, None)
    assert runner.doing == ""


def test_progress_is_told_while_the_job_runs(workplace):
    job = workplace.queue_phantom()
    told = []
    runner = workplace.runner(StubSegmenter(before=lambda _volume: told.append(runner.doing)))

    runner.run_next()
    assert told == [f"job {job}: network 0%"]
