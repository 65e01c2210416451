"""A lease is renewed while its holder is busy and its loss is told."""

from threading import Event, active_count

import pytest

from daemon.errors import StaleJob, StorageFull
from daemon.lease import kept
from tests.conditions import LIMIT_SECONDS, wait_until


def test_lease_is_renewed_until_the_block_ends():
    renewals = []
    threads = active_count()

    with kept(lambda: renewals.append(1), every_seconds=0.01) as lost:
        wait_until(lambda: len(renewals) >= 3, "three renewals")
        assert not lost.is_set()
    count = len(renewals)
    assert threads == active_count()
    assert count == len(renewals)


def test_lost_lease_is_told_and_not_asked_for_again():
    asked = []

    def renew():
        asked.append(1)
        raise StaleJob("gone")

    with kept(renew, every_seconds=0.01) as lost:
        assert lost.wait(LIMIT_SECONDS)
    assert asked == [1]


def test_job_table_that_cannot_be_written_for_a_moment_loses_nothing():
    troubles = [StorageFull("locked")]
    renewed = Event()

    def renew():
        if troubles:
            raise troubles.pop()
        renewed.set()

    with kept(renew, every_seconds=0.01) as lost:
        assert renewed.wait(LIMIT_SECONDS)
        assert not lost.is_set()


def test_thread_ends_also_when_the_block_fails():
    threads = active_count()

    with pytest.raises(KeyError), kept(lambda: None, every_seconds=60):
        raise KeyError
    assert threads == active_count()
