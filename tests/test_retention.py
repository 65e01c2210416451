"""What is purged, and when."""

from datetime import timedelta
from unittest.mock import Mock

import pytest

from daemon.errors import IllegalTransition, StorageFull
from daemon.job_queue_rows import Job
from daemon.jobs import DECIDED, JobState
from daemon.retention import erase, purge_old
from daemon.spool import Spool
from tests.job_rows import claimed, delivered, held, image, queued, received, segmented
from tests.peers import ReceivingPeer
from tests.stored import store_image
from tests.workplace import Workplace


def rejected(queue, series):
    job = claimed(queue, series)
    queue.reject(job, "worker-1", "not-ct", "MR")
    return job


def failed(queue, series):
    job = claimed(queue, series)
    queue.fail(job, "worker-1", "output", "Dice 0.4")
    return job


def cancelled(queue, series):
    job = queued(queue, series)
    queue.cancel(job, "wrong patient")
    return job


def job_row(queue, job):
    """As `purgeable` lists it."""
    seen = queue.job(job)
    return Job(id=job, state=seen.state, state_since=seen.state_since)


@pytest.mark.parametrize("make", [delivered, rejected, cancelled])
def test_a_finished_job_is_purged_after_its_days_and_not_before(queue, spool, clock, make):
    job = make(queue, "1.1")
    store_image(spool, job, "1.1.1", b"image")

    assert purge_old(queue, spool, clock.forward(days=30), 30) == 0
    assert purge_old(queue, spool, clock.forward(seconds=1), 30) == 1
    assert queue.job(job).state is JobState.PURGED
    assert spool.instance_paths(job) == []
    assert purge_old(queue, spool, clock.now, 30) == 0


@pytest.mark.parametrize("make", [received, queued, claimed, segmented])
def test_an_unfinished_job_is_never_purged(queue, spool, clock, make):
    job = make(queue, series="1.1")

    assert purge_old(queue, spool, clock.forward(days=365), 30) == 0
    with pytest.raises(IllegalTransition):
        queue.purged(job_row(queue, job), "files removed at the end of retention")


def test_the_row_of_a_purged_job_stays_without_the_name_and_with_its_history_and_reason(queue, spool, clock):
    job = rejected(queue, "1.1")
    purge_old(queue, spool, clock.forward(days=31), 30)

    row = queue.job(job)
    assert (row.patient_name, row.patient_id, row.reason_code, row.reason) == (None, "4711", "not-ct", "MR")
    assert queue.events(job)[-1].to_state is JobState.PURGED
    assert len(queue.instances(job)) == 2


def test_the_name_of_a_purged_job_is_nowhere_in_the_file(queue, spool, clock, tmp_path):
    delivered(queue)
    queue.close()
    assert b"Test^Phantom" in (tmp_path / "oarlock.db").read_bytes()

    purge_old(queue, spool, clock.forward(days=31), 30)
    queue.close()

    assert b"Test^Phantom" not in b"".join(path.read_bytes() for path in tmp_path.glob("oarlock.db*"))


def test_a_crash_between_row_and_files_is_repaired_by_the_next_run(queue, spool, clock, monkeypatch):
    job, other = delivered(queue, "1.1"), received(queue, "1.2")
    for each in (job, other):
        store_image(spool, each, "1.2.3.1", b"image")
    with monkeypatch.context() as crash:
        crash.setattr(spool, "purge", Mock(side_effect=StorageFull("pulled out")))
        with pytest.raises(StorageFull):
            purge_old(queue, spool, clock.forward(days=31), 30)
    assert queue.job(job).state is JobState.PURGED

    purge_old(queue, spool, clock.now, 30)

    assert spool.job_numbers() == [other]


def test_a_job_retried_while_its_files_are_looked_at_keeps_them_and_the_worker_goes_on(queue, spool, clock):
    job = rejected(queue, "1.1")
    store_image(spool, job, "1.1.1", b"image")
    (seen,) = queue.purgeable(clock.forward(days=31), DECIDED)
    queue.retry(job)
    queue.reject(queue.claim("worker-2", 60).id, "worker-2", "not-ct", "MR again")

    assert not queue.purged(seen, "files removed at the end of retention")
    assert queue.job(job).state is JobState.REJECTED


def test_images_that_an_unfinished_revision_stands_on_are_kept(queue, spool, clock):
    first = rejected(queue, "1.1")
    second = queue.job_for_instance(image(3, "1.1"))
    queue.add_instance(second, image(3, "1.1"))

    assert purge_old(queue, spool, clock.forward(days=31), 30) == 0
    queue.cancel(second, "done by hand")
    assert purge_old(queue, spool, clock.forward(days=29), 30) == 0
    queue.retry(second)
    assert len(queue.images(second)) == 3  # a retry finds all of them
    queue.cancel(second, "done by hand after all")
    assert purge_old(queue, spool, clock.forward(days=31), 30) == 1
    assert purge_old(queue, spool, clock.now, 30) == 1
    assert queue.job(first).state is JobState.PURGED


@pytest.mark.parametrize("remove", ["purge", "erase"])
def test_a_late_image_while_other_files_are_removed_keeps_those_it_stands_on(
    queue, spool, clock, monkeypatch, remove
):
    """What may go was listed before the image came."""
    first, second = delivered(queue, "1.1"), delivered(queue, "1.2")
    for job, series in ((first, "1.1"), (second, "1.2")):
        store_image(spool, job, f"{series}.1", b"image")
    clock.forward(days=31)
    looks = "purgeable" if remove == "purge" else "job"
    look = getattr(queue, looks)

    def then_an_image_comes(*asked):
        found = look(*asked)
        queue.add_instance(queue.job_for_instance(image(3, "1.2")), image(3, "1.2"))
        return found

    monkeypatch.setattr(queue, looks, then_an_image_comes)
    if remove == "purge":
        assert purge_old(queue, spool, clock.now, 30) == 1
    else:
        with pytest.raises(IllegalTransition, match="a later revision of its series is not delivered"):
            erase(queue, spool, second, "asked to")

    assert queue.job(second).state is JobState.DELIVERED
    assert queue.job(second).patient_id
    assert spool.instance_paths(second)


def test_files_that_cannot_be_removed_keep_no_others(queue, spool, clock, monkeypatch):
    stuck, other, aged = (delivered(queue, series) for series in ("1.1", "1.2", "1.3"))
    for job, series in ((stuck, "1.1"), (other, "1.2"), (aged, "1.3")):
        store_image(spool, job, f"{series}.1", b"image")
    for job in (stuck, other):  # a crash after their rows
        assert queue.purged(job_row(queue, job), "files removed")
    remove = spool.purge

    def refused(job):
        if job == stuck:
            raise StorageFull("permission denied")
        remove(job)

    monkeypatch.setattr(spool, "purge", refused)

    assert purge_old(queue, spool, clock.forward(days=31), 30) == 1
    assert spool.job_numbers() == [stuck]


def test_a_failed_job_stays_until_somebody_decides(queue, spool, clock):
    job = failed(queue, "1.1")
    store_image(spool, job, "1.1.1", b"image")

    assert purge_old(queue, spool, clock.forward(days=3650), 30) == 0
    assert len(spool.instance_paths(job)) == 1
    queue.cancel(job, "cancelled by an operator: contoured by hand")
    assert purge_old(queue, spool, clock.forward(days=30), 30) == 0
    assert purge_old(queue, spool, clock.forward(seconds=1), 30) == 1


def test_a_site_may_set_an_end_to_failed_jobs(queue, spool, clock):
    job = failed(queue, "1.1")

    assert purge_old(queue, spool, clock.forward(days=90), 30, failed_days=90) == 0
    assert purge_old(queue, spool, clock.forward(seconds=1), 30, failed_days=90) == 1
    assert queue.job(job).state is JobState.PURGED


def test_an_image_sent_again_after_the_purge_opens_a_new_revision(queue, spool, clock):
    delivered(queue)
    purge_old(queue, spool, clock.forward(days=31), 30)

    assert queue.place("1.2.3", "1.2.3.1", "CT1", "OARLOCK").known is None
    again = received(queue)
    assert queue.job(again).revision == 2
    assert {again} == {row.job_id for row in queue.images(again)}


def test_below_the_watermark_delivered_jobs_go_first_and_others_stay(queue, tmp_path, clock):
    kept = failed(queue, "1.0")
    old, new = delivered(queue, "1.1"), delivered(queue, "1.2")
    short_of_room = Spool(tmp_path, 2**62)
    short_of_room.prepare()

    assert purge_old(queue, short_of_room, clock.forward(minutes=1), 30) == 2
    assert [queue.job(job).state for job in (kept, old, new)] == [
        JobState.FAILED,
        JobState.PURGED,
        JobState.PURGED,
    ]


def test_of_much_that_is_due_no_more_is_purged_than_there_is_time_for(queue, spool, clock):
    jobs = [delivered(queue, f"1.{number}") for number in range(5)]
    later, time_for = clock.forward(days=31), iter([True, True, True, False])

    assert purge_old(queue, spool, later, 30, may_go_on=lambda: next(time_for)) <= 3
    left = [job for job in jobs if queue.job(job).state is JobState.DELIVERED]
    assert 0 < len(left) < 5

    assert purge_old(queue, spool, later, 30) == len(left)


def test_below_the_watermark_the_oldest_go_and_no_more_than_needed(queue, tmp_path, clock, monkeypatch):
    jobs = []
    for number in range(4):
        jobs.append(delivered(queue, f"1.{number}"))
        clock.forward(minutes=1)
    spool = Spool(tmp_path, 100)
    spool.prepare()
    for job in jobs:
        store_image(spool, job, "1.2.3", b"image")
    monkeypatch.setattr(spool, "free_bytes", lambda: 120 - 20 * len(spool.job_folders()))

    assert purge_old(queue, spool, clock.now, 30) == 3
    assert [queue.job(job).state for job in jobs] == [JobState.PURGED] * 3 + [JobState.DELIVERED]
    assert queue.events(jobs[0])[-1].detail == "files removed to make room"


@pytest.mark.parametrize("make", [received, queued, claimed, segmented, held, rejected, failed, cancelled])
def test_nothing_undelivered_is_purged_for_want_of_room(queue, tmp_path, clock, make):
    job = make(queue, series="1.1")
    short_of_room = Spool(tmp_path, 2**62)
    short_of_room.prepare()

    assert purge_old(queue, short_of_room, clock.forward(minutes=1), 30) == 0
    assert queue.job(job).state is not JobState.PURGED


def test_below_the_watermark_work_goes_on(tmp_path):
    """New associations are refused then; what is here is contoured and delivered, and makes room."""
    place = Workplace(tmp_path)
    place.spool = Spool(tmp_path, 2**62)
    with ReceivingPeer() as tps:
        place.ports = {"tps": tps.port}
        job = place.segmented()
        place.deliver_all_due()

    assert place.job(job).state is JobState.DELIVERED
    assert purge_old(place.queue, place.spool, place.clock.forward(minutes=1), 30) == 1
    place.queue.close()


def test_a_job_retried_meanwhile_keeps_its_files(queue, spool, clock, monkeypatch):
    job = rejected(queue, "1.1")
    store_image(spool, job, "1.1.1", b"image")
    listed = queue.purgeable(clock.forward(days=31) - timedelta(days=30), DECIDED)
    clock.forward(seconds=1)
    queue.retry(job)
    monkeypatch.setattr(queue, "purgeable", lambda *_: listed)

    assert purge_old(queue, spool, clock.now, 30) == 0
    assert len(spool.instance_paths(job)) == 1


def test_a_purged_job_is_erased_too(queue, spool, clock):
    job = delivered(queue)
    assert purge_old(queue, spool, clock.forward(days=31), 30) == 1
    erase(queue, spool, job, "erased by ada")
    assert queue.job(job).patient_id == ""


def test_a_patient_is_named_until_his_files_are_gone(queue, spool, monkeypatch):
    job = delivered(queue)

    def full(_job):
        raise StorageFull("cannot remove")

    monkeypatch.setattr(spool, "purge", full)
    with pytest.raises(StorageFull):
        erase(queue, spool, job, "erased by ada")
    assert [each.id for each in queue.jobs_of_patient("4711")] == [job]
