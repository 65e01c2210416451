"""The job table: a structure set goes to its destinations, operators retry and cancel."""

from datetime import timedelta
from itertools import pairwise

import pytest

from daemon.errors import IllegalTransition, NoSuchJob, StaleJob
from daemon.jobs import DeliveryState, JobState
from tests.job_rows import claimed, delivered, fail_next, image, queued, received, segmented, send_next


def path_of(queue, job):
    """States a job went through."""
    events = queue.events(job)
    assert all(one.to_state == other.from_state for one, other in pairwise(events))
    return [event.to_state for event in events if event.from_state != event.to_state]


def test_a_job_is_delivered_when_every_destination_has_stored_it(queue):
    job = segmented(queue, "TPS", "PACS")

    assert send_next(queue) == "TPS"
    assert queue.job(job).state is JobState.SEGMENTED
    assert send_next(queue) == "PACS"
    assert queue.job(job).state is JobState.DELIVERED
    assert path_of(queue, job) == ["receiving", "queued", "segmenting", "segmented", "delivered"]


def test_a_delivery_is_claimed_once_until_its_lease_ends(queue, clock):
    segmented(queue)

    first, _job = queue.claim_delivery("worker-1", 60)
    assert queue.claim_delivery("worker-2", 60) is None
    clock.forward(seconds=60)
    second, _job = queue.claim_delivery("worker-2", 60)
    assert (first.id, 1, 2) == (second.id, first.attempts, second.attempts)


def test_a_failed_try_waits_and_is_told_once_per_kind(queue, clock):
    job = segmented(queue)
    for kind in ("connection", "connection", "status"):
        delivery, _job = queue.claim_delivery("worker-1", 60)
        queue.delivery_again(delivery.id, clock.now + timedelta(minutes=1), kind, None, f"{kind} failed")
        assert queue.claim_delivery("worker-1", 60) is None
        clock.forward(minutes=1)

    told = [event.detail for event in queue.events(job) if "tried again" in event.detail]
    assert [line.split(";")[0] for line in told] == ["TPS: connection failed", "TPS: status failed"]
    delivery, _job = queue.claim_delivery("worker-1", 60)
    assert (delivery.attempts, delivery.failure_kind) == (4, "status")


def test_a_silent_destination_makes_its_other_deliveries_wait_but_not_those_elsewhere(queue, clock):
    segmented(queue, "TPS", series="1.1")
    segmented(queue, "TPS", "PACS", series="1.2")

    assert queue.postpone_destination("TPS", clock.now + timedelta(minutes=5)) == 2
    assert queue.claim_delivery("worker-1", 60)[0].destination == "PACS"
    assert queue.claim_delivery("worker-1", 60) is None


def test_a_job_fails_with_every_destination_and_reason_once_none_is_pending(queue):
    job = segmented(queue, "TPS", "PACS", "QA")

    assert fail_next(queue, "connection refused") == "TPS"
    assert queue.job(job).state is JobState.SEGMENTED
    send_next(queue)
    fail_next(queue, "status 0xA700")

    found = queue.job(job)
    assert (found.state, found.reason_code) == (JobState.FAILED, "delivery-failed")
    assert found.reason == "TPS: connection refused; QA: status 0xA700"


def test_a_retried_delivery_failure_sends_only_what_was_not_sent(queue, clock):
    job = segmented(queue, "TPS", "PACS")
    fail_next(queue)
    send_next(queue)
    clock.forward(days=3)

    assert queue.retry(job) is JobState.SEGMENTED
    rows = {row.destination: row for row in queue.deliveries(job)}
    assert (rows["TPS"].state, rows["PACS"].state) == (DeliveryState.PENDING, DeliveryState.SENT)
    assert (0, clock.now) == (rows["TPS"].attempts, rows["TPS"].created_at)
    assert send_next(queue) == "TPS"
    assert queue.job(job).state is JobState.DELIVERED


def test_an_outcome_is_written_once(queue):
    segmented(queue)
    delivery, _job = queue.claim_delivery("worker-1", 60)
    queue.delivery_sent(delivery.id, 0)

    with pytest.raises(StaleJob):
        queue.delivery_sent(delivery.id, 0)
    with pytest.raises(StaleJob):
        queue.delivery_failed(delivery.id, "status", 0xA700, "out of resources")


def test_cancelling_stops_what_is_pending(queue):
    job = segmented(queue, "TPS", "PACS")
    send_next(queue)

    queue.cancel(job, "wrong patient")

    assert [row.state for row in queue.deliveries(job)] == [DeliveryState.SENT, DeliveryState.CANCELLED]
    assert queue.claim_delivery("worker-1", 60) is None


def asked_twice(queue, clock):
    """A delivery whose only object is stored, its UID, and two requests to commit it; none is answered."""
    segmented(queue, "TPS")
    delivery, _job = queue.claim_delivery("worker-1", 60)
    ((item, result),) = queue.delivery_items(delivery.id)
    queue.item_sent(item.id)
    requests = []
    for _ in range(2):
        requests.append(queue.ask_commitment(delivery.id, 0, ""))
        queue.await_commitment(requests[-1], clock.now + timedelta(minutes=10), "waits")
        clock.forward(minutes=11)
    return delivery, result.sop_instance_uid, requests


@pytest.mark.parametrize("answered", [0, 1])
def test_a_report_of_before_commits_nothing_that_is_to_be_sent_again(queue, clock, answered):
    """Repeated, or late to an earlier question: the operator sends again because it is gone."""
    delivery, uid, requests = asked_twice(queue, clock)
    queue.commitment_reported(requests[answered], {uid}, {})
    assert queue.job(delivery.job_id).state is JobState.DELIVERED
    queue.send_again(delivery.job_id, None, "sent again")

    for request in requests:
        queue.commitment_reported(request, {uid}, {})
        queue.commitment_reported(request, set(), {uid: 0x0112})

    assert queue.job(delivery.job_id).state is JobState.SEGMENTED
    assert queue.claim_delivery("worker-1", 60)[0].id == delivery.id


def test_the_newest_word_of_a_destination_is_believed(queue, clock):
    """It does not have the object; that it had it before is no news."""
    delivery, uid, (first, second) = asked_twice(queue, clock)
    queue.commitment_reported(second, set(), {uid: 0x0112})

    queue.commitment_reported(first, {uid}, {})

    assert queue.deliveries(delivery.job_id)[0].state is DeliveryState.PENDING
    assert queue.delivery_items(delivery.id)[0][0].sent_at is None


def test_a_clock_set_back_between_sending_and_asking_loses_no_commitment(queue, clock):
    segmented(queue, "TPS")
    delivery, _job = queue.claim_delivery("worker-1", 60)
    ((item, result),) = queue.delivery_items(delivery.id)
    queue.item_sent(item.id)
    clock.forward(hours=-1)

    queue.commitment_reported(queue.ask_commitment(delivery.id, 0, ""), {result.sop_instance_uid}, {})

    assert queue.job(delivery.job_id).state is JobState.DELIVERED


def test_an_object_stored_after_the_cancellation_is_told_whatever_comes_of_the_others(queue):
    job = segmented(queue, "TPS")
    delivery, _job = queue.claim_delivery("worker-1", 60)
    ((item, _),) = queue.delivery_items(delivery.id)
    queue.cancel(job, "wrong patient")

    assert not queue.item_sent(item.id, "warning 0xB006")

    told = [event.detail for event in queue.events(job)][-2:]
    assert told == ["TPS: warning 0xB006", "cancelled too late: TPS has stored 1 of 1 objects already"]


def test_what_a_destination_said_of_an_object_is_told_once_each_time_it_is_sent(queue, clock):
    job = segmented(queue, "TPS")
    for times in (1, 2):
        delivery, _job = queue.claim_delivery("worker-1", 60)
        ((item, _),) = queue.delivery_items(delivery.id)
        assert queue.item_sent(item.id, "warning 0xB006")
        queue.delivery_sent(delivery.id, 0xB006, "warning 0xB006")

        assert [event.detail for event in queue.events(job)].count("TPS: warning 0xB006") == times
        clock.forward(minutes=1)
        queue.send_again(job, None, "sent again")


def test_a_cancellation_that_came_too_late_is_told_truly(queue):
    job = segmented(queue)
    delivery, _job = queue.claim_delivery("worker-1", 60)
    queue.cancel(job, "wrong patient")

    queue.delivery_sent(delivery.id, 0)

    assert queue.job(job).state is JobState.CANCELLED
    assert queue.deliveries(job)[0].state is DeliveryState.SENT
    assert "too late" in queue.events(job)[-1].detail


def test_a_rejected_job_is_queued_again_with_its_attempts_back(queue):
    job = claimed(queue)
    queue.reject(job, "worker-1", "not-ct", "MR")

    assert queue.retry(job) is JobState.QUEUED
    found = queue.job(job)
    assert (found.attempts, found.reason, found.reason_code) == (0, None, None)


def test_a_cancelled_job_is_retried_where_it_stopped(queue):
    early, late = claimed(queue, "1.1"), segmented(queue, series="1.2")
    queue.cancel(early, "no")
    queue.cancel(late, "no")

    assert (queue.retry(early), queue.retry(late)) == (JobState.QUEUED, JobState.SEGMENTED)


@pytest.mark.parametrize("make", [received, queued, claimed, segmented, delivered])
def test_only_a_stopped_job_can_be_retried(queue, make):
    job = make(queue)

    with pytest.raises(IllegalTransition, match=f"job {job} is"):
        queue.retry(job)


def test_a_revision_whose_images_a_later_one_waits_for_is_not_cancelled(queue):
    """It would be contoured with those that came late alone."""
    first = segmented(queue)
    fail_next(queue)
    second = queue.job_for_instance(image(9))
    assert queue.add_instance(second, image(9))
    whole = len(queue.images(second))

    with pytest.raises(
        IllegalTransition, match="a later revision of its series is contoured with its images"
    ):
        queue.cancel(first, "superseded")
    assert len(queue.images(second)) == whole

    queue.cancel(second, "not wanted either")
    queue.cancel(first, "superseded")


def test_a_finished_job_cannot_be_cancelled(queue):
    job = delivered(queue)

    with pytest.raises(IllegalTransition, match="delivered"):
        queue.cancel(job, "too late")


def test_an_unknown_number_is_told_as_such(queue):
    for ask in (queue.job, queue.retry, lambda job: queue.cancel(job, "")):
        with pytest.raises(NoSuchJob, match="17"):
            ask(17)


def test_jobs_are_listed_newest_first_and_by_state(queue):
    old, new = queued(queue, "1.1"), received(queue, "1.2")

    assert [new, old] == [job.id for job in queue.jobs()]
    assert [old] == [job.id for job in queue.jobs(JobState.QUEUED)]
    assert [new] == [job.id for job in queue.jobs(limit=1)]


def test_a_destination_gets_one_delivery_at_a_time_and_others_go_on(queue):
    first, second = segmented(queue, "TPS", series="1.1"), segmented(queue, "TPS", "PACS", series="1.2")

    under_way = [queue.claim_delivery(worker, 60) for worker in ("worker-1", "worker-2")]
    assert [(delivery.destination, job.id) for delivery, job in under_way] == [
        ("TPS", first),
        ("PACS", second),
    ]
    assert queue.claim_delivery("worker-3", 60) is None
    queue.delivery_sent(under_way[0][0].id, 0x0000)
    after, job = queue.claim_delivery("worker-3", 60)
    assert (after.destination, job.id) == ("TPS", second)


def test_a_renewed_delivery_stays_with_its_worker(queue, clock):
    segmented(queue)
    delivery, _job = queue.claim_delivery("worker-1", 60)

    clock.forward(seconds=50)
    queue.renew_delivery(delivery.id, "worker-1", 60)
    clock.forward(seconds=50)
    assert queue.claim_delivery("worker-2", 60) is None
    with pytest.raises(StaleJob):
        queue.renew_delivery(delivery.id, "worker-2", 60)
    queue.delivery_sent(delivery.id, 0x0000)
    with pytest.raises(StaleJob):
        queue.renew_delivery(delivery.id, "worker-1", 60)


def test_a_job_given_back_by_a_stopping_worker_has_lost_no_attempt(queue):
    job = claimed(queue)

    with pytest.raises(StaleJob):
        queue.give_back(job, "worker-2", "the worker stops")
    queue.give_back(job, "worker-1", "the worker stops")
    assert (queue.job(job).state, queue.job(job).attempts) == (JobState.QUEUED, 0)
    assert queue.claim("worker-2", 60).attempts == 1


def test_a_try_that_fails_after_its_delivery_was_cancelled_leaves_it_cancelled(queue, clock):
    job = segmented(queue)
    delivery, _ = queue.claim_delivery("worker-1", 60)
    queue.cancel(job, "wrong patient")
    with pytest.raises(StaleJob):
        queue.delivery_again(delivery.id, clock.now + timedelta(minutes=1), "connection", None, "refused")
    assert [each.state for each in queue.deliveries(job)] == [DeliveryState.CANCELLED]
    assert queue.retry(job) is JobState.SEGMENTED


def test_a_delivery_that_succeeds_after_a_failure_has_no_failure_kind(queue, clock):
    job = segmented(queue)
    delivery, _ = queue.claim_delivery("worker-1", 60)
    queue.delivery_again(delivery.id, clock.now, "connection", None, "refused")
    send_next(queue)
    assert queue.deliveries(job)[0].failure_kind is None


def test_a_delivery_under_way_is_not_put_off(queue, clock):
    segmented(queue, "TPS", series="1.1")
    segmented(queue, "TPS", series="1.2")
    assert queue.claim_delivery("worker-1", 60)
    assert queue.postpone_destination("TPS", clock.now + timedelta(minutes=5)) == 1
