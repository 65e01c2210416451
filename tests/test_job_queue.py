"""The job table: images arrive, a series is complete, a worker holds a job under a lease."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import update

from daemon.errors import StaleJob, StorageFull
from daemon.job_queue_rows import Job
from daemon.job_queue_series import open_for
from daemon.job_queue_values import SegmentedResult
from daemon.jobs import MAX_ATTEMPTS, JobState
from tests.job_rows import (
    NOON,
    claimed,
    image,
    queued,
    received,
    result,
)


def path_of(queue, job):
    """States a job went through."""
    events = queue.events(job)
    assert all(one.to_state == other.from_state for one, other in pairwise(events))
    return [event.to_state for event in events if event.from_state != event.to_state]


def test_images_of_one_series_and_sender_share_a_job(queue):
    job = received(queue, images=3)

    found = queue.job(job)
    assert (found.state, found.instance_count, found.byte_count) == (JobState.RECEIVING, 3, 3 * 526_000)
    assert [row.sop_instance_uid for row in queue.instances(job)] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]


@pytest.mark.parametrize(
    "other", [{"series": "1.2.4"}, {"calling_ae_title": "CT2"}, {"called_ae_title": "URGENT"}]
)
def test_another_series_sender_or_called_title_opens_another_job(queue, other):
    assert received(queue) != queue.job_for_instance(image(**other))


def test_an_image_is_known_to_its_own_sender_only(queue):
    job = received(queue)

    known = queue.place("1.2.3", "1.2.3.2", "CT1", "OARLOCK").known
    assert (job, image(2).sha256) == (known.job_id, known.sha256)
    assert queue.place("1.2.3", "1.2.3.2", "PACS", "OARLOCK").known is None
    assert queue.place("1.2.3", "1.2.3.9", "CT1", "OARLOCK").known is None


@pytest.mark.parametrize("discarding", [False, True])
@pytest.mark.parametrize("state", JobState)
def test_what_every_image_asks_and_what_opens_jobs_agree_which_job_takes_it(queue, state, discarding):
    """One rule in two languages: the quick one names a job, or the other opens one or takes a queued one back."""
    job = received(queue)
    held = {"lease_owner": "worker", "lease_expires_at": NOON} if state is JobState.SEGMENTING else {}
    with queue._writing() as session:
        session.execute(update(Job).values(state=state, discarding=discarding, reason="made up", **held))

    for number in (2, 9):  # one that it has, one that is new
        receiving = queue.place("1.2.3", f"1.2.3.{number}", "CT1", "OARLOCK").receiving
        with queue._writing() as session:
            assert open_for(session, image(number)) == receiving
    takes_new = queue.place("1.2.3", "1.2.3.9", "CT1", "OARLOCK").receiving
    assert takes_new == (job if discarding or state is JobState.RECEIVING else None)


def test_the_same_image_twice_counts_once(queue):
    job = received(queue, images=2)

    assert queue.add_instance(job, image(2))
    assert queue.job(job).instance_count == 2


def test_a_late_image_before_the_claim_takes_the_job_back_to_receiving(queue, clock):
    job = queued(queue)
    later = clock.forward(minutes=5)

    assert job == queue.job_for_instance(image(3))
    assert queue.job(job).last_instance_at == later
    assert path_of(queue, job) == ["receiving", "queued", "receiving"]


def test_a_late_image_after_the_claim_opens_a_revision_that_stands_on_the_earlier_images(queue):
    first = claimed(queue)

    second = queue.job_for_instance(image(3))
    assert queue.add_instance(second, image(3))

    assert (queue.job(first).revision, queue.job(second).revision) == (1, 2)
    assert [row.sop_instance_uid for row in queue.instances(second)] == ["1.2.3.3"]
    images = [(row.job_id, row.sop_instance_uid) for row in queue.images(second)]
    assert images == [(first, "1.2.3.1"), (first, "1.2.3.2"), (second, "1.2.3.3")]
    assert queue.job(first).result_sop_instance_uid != queue.job(second).result_sop_instance_uid


@pytest.mark.parametrize("how", ["a failure that passes", "a retry"])
def test_no_late_image_goes_into_a_revision_that_has_a_later_one(queue, clock, how):
    """Else neither of two structure sets would be of all images, and nothing would say so."""
    first = received(queue, images=2)
    if how == "a retry":
        queue.images_missing(first, "2 of 4 images and no other for 3600 s")
    else:
        queue.complete(first, "quiet")
        queue.claim("worker-1", 60)
    second = queue.job_for_instance(image(3))
    assert queue.add_instance(second, image(3))
    queue.complete(second, "quiet")
    if how == "a failure that passes":
        queue.requeue(first, "worker-1", clock.now + timedelta(seconds=30), "out of memory")
    claimed = queue.claim("worker-1", 60)
    assert claimed.id == second
    if how == "a retry":
        queue.retry(first)
    assert queue.job(first).state is JobState.QUEUED

    third = queue.job_for_instance(image(4))
    assert queue.add_instance(third, image(4))
    queue.sent_again(image(1))

    assert queue.job(third).revision == 3
    assert [row.sop_instance_uid for row in queue.images(third)] == [f"1.2.3.{n}" for n in (1, 2, 3, 4)]
    assert [row.sop_instance_uid for row in queue.images(second)] == [f"1.2.3.{n}" for n in (1, 2, 3)]
    assert queue.job(first).state is JobState.QUEUED


def test_a_late_image_goes_into_a_queued_revision_whose_later_one_is_cancelled(queue, clock):
    first = claimed(queue)
    second = queue.job_for_instance(image(3))
    assert queue.add_instance(second, image(3))
    queue.complete(second, "quiet")
    queue.requeue(first, "worker-1", clock.now, "out of memory")
    queue.cancel(second, "not wanted")

    assert queue.job_for_instance(image(4)) == first


def test_the_first_claim_gives_uids_of_its_own_that_every_later_one_keeps(queue, clock):
    """A copy of the table that was made before and is put back must not send another object under the UID sent."""
    job = queued(queue)
    opened = queue.job(job)
    first = queue.claim("worker-1", 60)
    clock.forward(minutes=2)
    assert len(queue.release_expired()) == 1
    again = queue.claim("worker-2", 60)

    uids = [
        (each.result_sop_instance_uid, each.result_series_instance_uid) for each in (opened, first, again)
    ]
    assert not set(uids[0]) & set(uids[1])
    assert uids[1] == uids[2] == (first.result_sop_instance_uid, first.result_series_instance_uid)


def test_an_image_that_comes_between_completion_and_claim_is_not_lost(queue):
    job = claimed(queue)

    assert not queue.add_instance(job, image(3))
    again = queue.job_for_instance(image(3))
    assert again != job
    assert queue.add_instance(again, image(3))


def test_images_of_a_cancelled_job_count_as_never_received(queue):
    cancelled = received(queue)
    queue.cancel(cancelled, "wrong protocol")

    assert queue.place("1.2.3", "1.2.3.1", "CT1", "OARLOCK").known is None
    again = received(queue, images=1)
    assert [again] == [row.job_id for row in queue.images(again)]


def test_contradicting_bytes_are_written_down_once_per_content(queue):
    job = received(queue)
    other = image(1, content=b"other bytes")

    queue.set_aside(job, other, "abc.dcm")
    queue.set_aside(job, other, "abc.dcm")

    assert [("1.2.3.1", other.sha256)] == [
        (row.sop_instance_uid, row.sha256) for row in queue.set_asides(job)
    ]
    assert "set aside" in queue.events(job)[-1].detail


def test_associations_that_bring_one_series_at_once_open_one_job(queue):
    def bring(number):
        job = queue.job_for_instance(image(number))
        return job, queue.add_instance(job, image(number))

    with ThreadPoolExecutor(8) as associations:
        answers = set(associations.map(bring, range(1, 81)))

    assert answers == {(1, True)}
    assert queue.job(1).instance_count == 80


def test_work_that_fails_takes_nobody_with_it_who_commits_with_it(queue):
    """Many threads, each third of which fails: the others' rows are there, and theirs are not."""
    job = received(queue)
    before = queue.job(job).instance_count
    everybody = threading.Barrier(12)

    def bring(number):
        def fail(database):
            database.execute("UPDATE jobs SET instance_count = 999")
            raise ValueError(number)

        everybody.wait()
        if number % 3:
            return queue.add_instance(job, image(100 + number))
        try:
            return queue._shared.write(fail)
        except ValueError as error:
            return error.args == (number,)

    with ThreadPoolExecutor(12) as associations:
        assert all(associations.map(bring, range(12)))

    assert queue.job(job).instance_count == before + 8 == len(queue.instances(job))


def test_a_full_disk_is_told_as_storage_full_and_leaves_no_half_row(queue):
    job = received(queue)

    queue._shared.write(lambda database: database.execute("PRAGMA max_page_count = 1").fetchall())
    with pytest.raises(StorageFull, match="full"):
        deque(queue.add_instance(job, image(number)) for number in range(3, 3000))
    assert queue.job(job).instance_count == len(queue.instances(job))


def test_receiving_jobs_are_listed_oldest_first(queue):
    jobs = [received(queue, "1.1"), received(queue, "1.2"), received(queue, "1.3")]
    queue.complete(jobs[1], "quiet")

    assert [jobs[0], jobs[2]] == [job.id for job in queue.receiving_jobs()]


def test_completing_twice_is_refused(queue):
    job = queued(queue)

    with pytest.raises(StaleJob):
        queue.complete(job, "quiet")


def test_a_job_of_which_no_image_could_be_stored_is_cancelled(queue):
    job = queue.job_for_instance(image())

    assert queue.complete(job, "quiet") is JobState.CANCELLED
    assert queue.job(job).reason_code == "no-images"


def test_the_oldest_due_job_is_claimed_under_a_lease_and_counted_as_an_attempt(queue):
    first, _second = queued(queue, "1.1"), queued(queue, "1.2")

    job = queue.claim("worker-1", 60)

    assert (first, JobState.SEGMENTING, 1) == (job.id, job.state, job.attempts)
    assert ("worker-1", NOON + timedelta(seconds=60)) == (job.lease_owner, job.lease_expires_at)


def test_nothing_is_claimed_where_nothing_is_due(queue):
    received(queue)

    assert queue.claim("worker-1", 60) is None


def test_a_job_put_off_is_claimed_when_its_time_has_come(queue, clock):
    job = claimed(queue)
    queue.requeue(job, "worker-1", clock.now + timedelta(seconds=30), "out of GPU memory")

    assert queue.claim("worker-1", 60) is None
    assert queue.job(job).reason == "out of GPU memory"
    clock.forward(seconds=30)
    assert queue.claim("worker-1", 60).attempts == 2


def test_renewing_prolongs_the_lease_and_shows_the_progress(queue, clock):
    job = claimed(queue)
    clock.forward(seconds=50)

    queue.renew(job, "worker-1", 60, "predict", 0.4)

    found = queue.job(job)
    assert clock.now + timedelta(seconds=60) == found.lease_expires_at
    assert (found.progress_stage, found.progress_fraction) == ("predict", 0.4)
    clock.forward(seconds=59)
    assert queue.release_expired() == []


def test_an_expired_lease_returns_the_job_and_its_old_owner_is_stale(queue, clock):
    job = claimed(queue)
    clock.forward(seconds=61)

    assert len(queue.release_expired()) == 1
    assert queue.claim("worker-2", 60).attempts == 2
    with pytest.raises(StaleJob, match="worker-2"):
        queue.renew(job, "worker-1", 60, "predict", 0.5)
    with pytest.raises(StaleJob):
        queue.segmented(job, "worker-1", result())
    assert queue.deliveries(job) == []


def test_a_job_that_kills_its_worker_fails_when_its_attempts_are_used_up(queue, clock):
    job = queued(queue)
    for _ in range(MAX_ATTEMPTS):
        assert queue.claim("worker-1", 60).id == job
        clock.forward(seconds=61)
        queue.release_expired()

    found = queue.job(job)
    assert (found.state, found.reason_code) == (JobState.FAILED, "attempts-used-up")
    assert "fell silent" in found.reason
    assert queue.claim("worker-1", 60) is None


def test_a_passing_failure_fails_the_job_when_its_attempts_are_used_up(queue):
    job = queued(queue)
    states = []
    for _ in range(MAX_ATTEMPTS):
        queue.claim("worker-1", 60)
        states.append(queue.requeue(job, "worker-1", None, "out of GPU memory"))

    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]


@pytest.mark.parametrize("finish", ["reject", "fail"])
def test_a_finished_job_carries_its_reason_in_row_and_history(queue, finish):
    job = claimed(queue)

    getattr(queue, finish)(job, "worker-1", "missing-slice", "gap of 5.0 mm after slice 17")

    found, last = queue.job(job), queue.events(job)[-1]
    assert {"reject": JobState.REJECTED, "fail": JobState.FAILED}[finish] == found.state
    assert (found.reason_code, found.reason) == ("missing-slice", "gap of 5.0 mm after slice 17")
    assert (last.reason_code, last.detail) == ("missing-slice", "gap of 5.0 mm after slice 17")
    assert found.lease_owner is None


@pytest.mark.parametrize(
    "finish",
    [
        lambda queue, job: queue.segmented(job, "worker-1", result()),
        lambda queue, job: queue.reject(job, "worker-1", "not-ct", "MR"),
        lambda queue, job: queue.fail(job, "worker-1", "output", "Dice 0.4"),
        lambda queue, job: queue.requeue(job, "worker-1", None, "again"),
        lambda queue, job: queue.renew(job, "worker-1", 60, "predict", 0.1),
    ],
    ids=["segmented", "reject", "fail", "requeue", "renew"],
)
def test_a_worker_whose_job_was_cancelled_learns_that_it_is_stale(queue, finish):
    job = claimed(queue)
    queue.cancel(job, "wrong patient")

    with pytest.raises(StaleJob, match="cancelled"):
        finish(queue, job)
    assert queue.job(job).state is JobState.CANCELLED


def test_a_structure_set_brings_its_organs_times_remarks_and_deliveries(queue):
    job = claimed(queue)
    outcome = result("TPS", "PACS")

    queue.segmented(job, "worker-1", SegmentedResult(**vars(outcome) | {"remarks": ("tilt 14.0°",)}))

    assert (queue.job(job).state, queue.job(job).model_version) == (JobState.SEGMENTED, "1.0")
    assert [(each.kind, each.sha256) for each in queue.results(job)] == [("rtstruct", "5" * 64)]
    assert [(o.name, o.found) for o in queue.structures(job)] == [("Brain", True), ("Cochlea_L", False)]
    assert [(t.stage, t.seconds) for t in queue.stage_times(job)] == [("read", 2.5), ("predict", 30.0)]
    assert [delivery.destination for delivery in queue.deliveries(job)] == ["TPS", "PACS"]
    assert (
        (last := queue.events(job)[-1]).detail,
        last.from_state,
        last.to_state,
    ) == ("tilt 14.0°", "segmented", "segmented")


def test_a_structure_set_without_destination_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="destination"):
        SegmentedResult(model_name="", model_version="", model_digest="", destinations=(), objects=())


def test_a_late_image_goes_to_the_job_that_receives_and_not_to_an_older_one_that_is_discarded(queue):
    first = received(queue)
    queue.cancel(first, "not wanted")
    again = queue.job_for_instance(image(1))
    assert again != first
    assert queue.add_instance(again, image(1))

    assert queue.place("1.2.3", "1.2.3.9", "CT1", "OARLOCK").receiving == again
    assert queue.job_for_instance(image(9)) == again


def test_other_bytes_under_a_uid_are_not_counted_as_stored(queue):
    job = received(queue)
    assert queue.add_instance(job, image(1))
    assert not queue.add_instance(job, image(1, content=b"other"))


def test_what_a_job_waited_for_ends_with_its_wait(queue):
    job = received(queue)
    queue.awaits(job, "2 of 40 images")
    queue.complete(job, "no image for 60 s")
    assert queue.job(job).awaits is None


def test_no_wait_of_before_holds_a_job_up_that_received_again(queue, clock):
    job = claimed(queue)
    queue.requeue(job, "worker-1", clock.now + timedelta(minutes=15), "passing")
    assert queue.job_for_instance(image(9)) == job
    assert queue.add_instance(job, image(9))
    queue.complete(job, "no image for 60 s")
    assert queue.claim("worker-1", 60) is not None
