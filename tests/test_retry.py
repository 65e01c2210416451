"""Retry decisions are tables of numbers."""

from datetime import UTC, datetime, timedelta

import pytest

from daemon.retry import Backoff, next_delivery, next_run

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attempts", "jitter", "seconds"),
    [
        (1, 0.0, 5),
        (1, 1.0, 10),
        (2, 1.0, 20),
        (3, 0.0, 20),
        (3, 0.5, 30),
        (7, 1.0, 640),
        (8, 1.0, 900),
        (8, 0.0, 450),
        (5000, 1.0, 900),
    ],
)
def test_wait_doubles_from_the_first_to_the_longest_and_half_of_it_is_chance(attempts, jitter, seconds):
    backoff = Backoff(first_seconds=10, longest_seconds=900)

    assert seconds == backoff.wait_seconds(attempts, jitter)


@pytest.mark.parametrize(
    ("age_hours", "attempts", "wait_seconds"),
    [
        (0, 1, 10),
        (0, 2, 20),
        (1, 20, 900),
        (47, 200, 900),
        (47.9, 200, 360),
        (48, 200, None),
        (60, 1, None),
    ],
)
def test_delivery_is_tried_until_its_age_limit_with_a_last_try_exactly_then(
    age_hours, attempts, wait_seconds
):
    again = next_delivery(NOON, NOON - timedelta(hours=age_hours), timedelta(hours=48), attempts, jitter=1.0)

    assert again == (None if wait_seconds is None else NOON + timedelta(seconds=wait_seconds))


def test_no_retry_time_means_one_try():
    assert next_delivery(NOON, NOON, timedelta(0), attempts=1, jitter=0.3) is None


@pytest.mark.parametrize(("attempts", "wait_seconds"), [(1, 15), (2, 30), (3, 60)])
def test_job_runs_again_after_a_growing_wait(attempts, wait_seconds):
    assert NOON + timedelta(seconds=wait_seconds) == next_run(NOON, attempts, jitter=0.0)
