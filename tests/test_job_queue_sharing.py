"""Threads and processes share the job table."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import insert

from daemon.job_queue import JobQueue
from daemon.job_queue_rows import Job
from daemon.jobs import JobState
from tests.job_rows import (
    image,
    queued,
    url_in,
)


def test_eight_threads_claim_each_of_300_jobs_once(queue):
    fill(queue, 300)

    def claim_all(owner):
        return list(iter(lambda: claimed_by(queue, owner), None))

    with ThreadPoolExecutor(8) as threads:
        claims = [job for jobs in threads.map(claim_all, map(str, range(8))) for job in jobs]

    assert list(range(1, 301)) == sorted(claims)


def test_processes_claim_each_job_once_while_images_arrive(queue, tmp_path):
    """Four processes of two threads claim 300 jobs while this one stores images in three threads."""
    fill(queue, 300)
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.claiming_process", url_in(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]

    def bring(series):
        for number in range(100):
            job = queue.job_for_instance(image(number, series))
            assert queue.add_instance(job, image(number, series))

    with ThreadPoolExecutor(3) as associations:
        list(associations.map(bring, ("9.1", "9.2", "9.3")))
    outputs = [worker.communicate(timeout=120) for worker in workers]

    assert [errors for _claims, errors in outputs] == [""] * 4
    assert list(range(1, 301)) == sorted(int(job) for claims, _ in outputs for job in claims.split())
    assert {100} == {job.instance_count for job in queue.receiving_jobs()}
    assert all(job.attempts == 1 for job in queue.jobs(JobState.SEGMENTED, limit=300))


def fill(queue: JobQueue, count: int) -> None:
    """Queue many jobs in one transaction."""
    first = vars(queue.job(queued(queue, "8.0")))
    row = {column.name: first[column.name] for column in Job.__table__.columns if column.name != "id"}
    with queue._engine.begin() as connection:
        connection.execute(insert(Job), [row | {"series_instance_uid": f"8.{n}"} for n in range(1, count)])


def claimed_by(queue: JobQueue, owner: str) -> int | None:
    job = queue.claim(owner, 60)
    return None if job is None else job.id
