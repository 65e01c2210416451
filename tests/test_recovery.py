"""A lost or damaged job table costs no image: it is refused as it is, and rebuilt from the spool."""

import json
import os
import sqlite3
import stat
from contextlib import closing

import pytest
from pydicom import dcmread

from daemon import result_building
from daemon.errors import CannotStart, OutputRejected
from daemon.job_queue import JobQueue, migrate, open_queue
from daemon.jobs import JobState
from daemon.recovery import recover
from daemon.spool import Spool
from tests.command import Oarlock, write_config
from tests.job_rows import Clock, url_in
from tests.nodes import a_config, receiving_node
from tests.peers import ReceivingPeer
from tests.phantom import write_series
from tests.senders import send
from tests.workplace import Workplace

ROUTE = {
    "routes": [{"destinations": ["tps"]}],
    "destinations": [{"name": "tps", "ae_title": "RECEIVER", "host": "127.0.0.1", "port": 11112}],
}


def lose_job_table(folder):
    for path in folder.glob("oarlock.db*"):
        path.unlink()


def recovered_in(folder, **sections):
    """Rebuild the table; returns it with what was found."""
    queue = open_queue(url_in(folder), Clock())
    return queue, recover(queue, Spool(folder, 0), a_config(folder, **sections))


def test_every_acknowledged_image_has_its_row_again(tmp_path):
    paths = write_series(tmp_path / "ct")
    with receiving_node(tmp_path, series={"quiet_seconds": 3600}) as node:
        assert set(send(paths, port=node.port, calling="CT1", called="OARLOCK")) == {0}
        (before,) = node.queue.jobs()
        rows = {each.sop_instance_uid: each.sha256 for each in node.queue.instances(before.id)}
    lose_job_table(tmp_path)

    queue, found = recovered_in(tmp_path)

    with closing(queue):
        (job,) = queue.jobs()
        assert {each.sop_instance_uid: each.sha256 for each in queue.instances(job.id)} == rows
    same = ("id", "calling_ae_title", "called_ae_title", "patient_id", "series_instance_uid", "byte_count")
    assert [getattr(job, name) for name in same] == [getattr(before, name) for name in same]
    assert job.state is JobState.RECEIVING
    assert found.left_out == ()


def test_a_rebuilt_table_and_what_belongs_to_nobody_are_their_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        (tmp_path / "root").mkdir()
        workplace = Workplace(tmp_path / "root")
        workplace.queue_phantom()
        workplace.queue.close()
        lose_job_table(workplace.root)
        queue, _ = recovered_in(workplace.root)
        spool = Spool(workplace.root, 0)
        spool.reconcile(lambda _job: None)
        found = {path.name: path for path in workplace.root.rglob("*") if "sent-" not in str(path)}
        modes = {name: stat.S_IMODE(path.stat().st_mode) & 0o077 for name, path in found.items()}
        queue.close()
    finally:
        os.umask(before)

    assert {"oarlock.db", "oarlock.db-wal", "unclaimed"} <= set(modes)
    assert {name for name, others in modes.items() if others} == set()


def test_results_are_held_and_a_release_sends_the_same_object(tmp_path):
    with ReceivingPeer() as tps:
        workplace = Workplace(tmp_path, ports={"tps": tps.port})
        job = workplace.segmented()
        sent = workplace.result_bytes(job)
        workplace.queue.close()
        lose_job_table(tmp_path)
        # The workplace stores images without the titles that reception writes.
        routes = [{"destinations": ["tps"]}]
        destinations = [{"name": "tps", "ae_title": "RECEIVER", "host": "127.0.0.1", "port": tps.port}]
        workplace.queue, _ = recovered_in(tmp_path, routes=routes, destinations=destinations)

        assert workplace.job(job).state is JobState.HELD
        assert "not known" in str(workplace.job(job).reason)
        assert workplace.deliver_all_due() == 0
        workplace.queue.release(job, "released by an operator")
        assert workplace.deliver_all_due() == 1
        workplace.queue.close()

    assert sent.endswith(tps.received[0].dataset_bytes)


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(bytes(5000)), lambda path: path.unlink()])
def test_a_damaged_result_is_named_and_its_job_contoured_again_if_somebody_says_so(tmp_path, harm):
    workplace = Workplace(tmp_path, ports={"tps": 11112})
    job = workplace.segmented()
    result = workplace.spool.result_path(job)
    harm(result)
    workplace.queue.close()
    lose_job_table(tmp_path)

    queue, found = recovered_in(tmp_path, **ROUTE)

    with closing(queue):
        assert queue.job(job).state is JobState.REJECTED
        assert "whether they were delivered is not known" in str(queue.job(job).reason)
        assert queue.retry(job) is JobState.QUEUED
    assert [path for path, _ in found.left_out] == [result]


def test_a_job_whose_results_nobody_wants_today_is_not_sent_again_unasked(tmp_path):
    workplace = Workplace(tmp_path, ports={"tps": 11112})
    job = workplace.segmented()
    workplace.queue.close()
    lose_job_table(tmp_path)
    (tps,) = ROUTE["destinations"]

    queue, found = recovered_in(tmp_path, routes=ROUTE["routes"], destinations=[tps | {"profile": "eclipse"}])

    with closing(queue):
        assert queue.job(job).state is JobState.REJECTED
    assert found.left_out == ()


def test_a_result_that_failed_its_check_is_never_offered_again(tmp_path, monkeypatch):
    """It stays on disk for whoever looks into it."""
    workplace = Workplace(tmp_path, ports={"tps": 11112})
    job = workplace.queue_phantom()
    monkeypatch.setattr(result_building, "check_structure_set", rejecting)
    workplace.runner().run_next()
    assert workplace.job(job).reason_code == "output-rejected"
    assert workplace.spool.result_path(job).exists()
    workplace.queue.close()
    lose_job_table(tmp_path)

    queue, found = recovered_in(tmp_path, **ROUTE)

    with closing(queue):
        assert queue.job(job).state is JobState.REJECTED
        assert not queue.results(job)
    assert found.left_out == ()


def rejecting(*_):
    raise OutputRejected(["Eye_L and Eye_R are on the wrong sides"])


def test_a_rebuilding_that_is_cut_off_is_begun_anew(tmp_path, capsys, monkeypatch):
    """Half a table never has the name by which roles know it: they would take what it lacks away."""
    write_config(tmp_path, '[[peers]]\nae_title = "*"\n')
    oarlock = Oarlock(tmp_path / "oarlock.toml", capsys, monkeypatch)
    workplace = Workplace(tmp_path)
    jobs = [workplace.queue_phantom(seed) for seed in range(2)]
    workplace.queue.close()
    lose_job_table(tmp_path)
    entered = JobQueue.recover

    def dies_at_the_second(queue, job):
        if job.job_id == jobs[1]:
            raise RuntimeError("the machine stops")
        return entered(queue, job)

    with monkeypatch.context() as patched:
        patched.setattr(JobQueue, "recover", dies_at_the_second)
        with pytest.raises(RuntimeError, match="the machine stops"):
            oarlock("recover")
    assert not (tmp_path / "oarlock.db").exists()

    assert "2 jobs recovered" in oarlock("recover").out
    assert not list(tmp_path.glob("oarlock.db.unfinished*"))


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_recovered(tmp_path):
    workplace = Workplace(tmp_path)
    job = workplace.queue_phantom()
    broken, *_ = workplace.spool.instance_paths(job)
    broken.write_bytes(broken.read_bytes()[:1000])
    images = workplace.job(job).instance_count
    workplace.queue.close()
    lose_job_table(tmp_path)

    queue, found = recovered_in(tmp_path)

    with closing(queue):
        assert queue.job(job).instance_count == images - 1
        assert (queue.job(job).state, queue.job(job).reason_code) == (JobState.REJECTED, "recovered")
        assert "1 images cannot be read" in str(queue.job(job).reason)
    assert [path for path, _ in found.left_out] == [broken]
    assert broken.exists()


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: b"no database at all" + content[18:],
        lambda content: content[:4096] + bytes(8192) + content[12288:],
        lambda content: content[: len(content) // 2],
    ],
    ids=["header", "pages", "cut"],
)
def test_a_damaged_job_table_is_refused_untouched_with_what_to_do(tmp_path, harm):
    workplace = Workplace(tmp_path)
    workplace.queue_phantom()
    workplace.queue.close()
    file = tmp_path / "oarlock.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for companion in tmp_path.glob("oarlock.db-*"):
        companion.unlink()
    harmed = harm(file.read_bytes())
    file.write_bytes(harmed)

    with pytest.raises(CannotStart, match="oarlock recover"):
        migrate(url_in(tmp_path))

    assert file.read_bytes() == harmed


def test_the_command_rebuilds_a_missing_table_and_nothing_else(tmp_path, capsys, monkeypatch):
    write_config(tmp_path, '[[peers]]\nae_title = "*"\n')
    oarlock = Oarlock(tmp_path / "oarlock.toml", capsys, monkeypatch)
    workplace = Workplace(tmp_path)
    job = workplace.queue_phantom()
    workplace.queue.close()

    refused = oarlock("recover")
    assert refused.code == 1
    assert "move it aside" in refused.err

    lose_job_table(tmp_path)
    assert "1 jobs recovered, 0 of them held and 0 rejected" in oarlock("recover").out
    (row,) = json.loads(oarlock("jobs", "--json").out)
    assert (row["id"], row["state"]) == (job, "receiving")
    assert oarlock("complete", job).out == f"job {job} is queued\n"


def test_the_command_counts_what_it_has_rejected_for_a_later_revision(tmp_path, capsys, monkeypatch):
    write_config(tmp_path, '[[peers]]\nae_title = "*"\n')
    oarlock = Oarlock(tmp_path / "oarlock.toml", capsys, monkeypatch)
    workplace = Workplace(tmp_path)
    first = workplace.queue_phantom()
    paths = workplace.spool.instance_paths(first)
    second = workplace.root / "jobs" / f"{first + 1:08d}" / "images"
    second.mkdir(parents=True)
    paths[0].rename(second / paths[0].name)
    workplace.queue.close()
    lose_job_table(tmp_path)

    answer = oarlock("recover")

    assert "2 jobs recovered, 0 of them held and 1 rejected" in answer.out
    assert sorted(row["state"] for row in json.loads(oarlock("jobs", "--json").out)) == [
        "receiving",
        "rejected",
    ]


def test_the_command_fails_where_images_were_left_out(tmp_path, capsys, monkeypatch):
    write_config(tmp_path, '[[peers]]\nae_title = "*"\n')
    oarlock = Oarlock(tmp_path / "oarlock.toml", capsys, monkeypatch)
    workplace = Workplace(tmp_path)
    broken, *_ = workplace.spool.instance_paths(workplace.queue_phantom())
    broken.write_bytes(b"")
    workplace.queue.close()
    lose_job_table(tmp_path)

    answer = oarlock("recover")

    assert answer.code == 1
    assert str(broken) in answer.err
    assert "1 jobs recovered, 0 of them held and 1 rejected" in answer.out


@pytest.mark.parametrize("content", [b"", None])
def test_a_table_without_anything_in_it_is_none(tmp_path, capsys, monkeypatch, content):
    """As sqlite3 leaves it where somebody looked for one: to begin it would take every job away."""
    write_config(tmp_path, '[[peers]]\nae_title = "*"\n')
    oarlock = Oarlock(tmp_path / "oarlock.toml", capsys, monkeypatch)
    workplace = Workplace(tmp_path)
    job = workplace.queue_phantom()
    workplace.queue.close()
    lose_job_table(tmp_path)
    table = tmp_path / "oarlock.db"
    if content is None:
        with closing(sqlite3.connect(table)) as connection:
            connection.execute("CREATE TABLE x (y)")
    else:
        table.write_bytes(content)

    assert "move it aside, then run `oarlock recover`" in oarlock("jobs").err
    for role in ("listen", "work"):
        answer = oarlock(role)
        assert answer.code == 1
        assert "is empty, but 1 jobs lie in" in answer.err
    assert Spool(tmp_path, 0).job_numbers() == [job]


def test_a_second_series_keeps_its_number(tmp_path):
    """Folders carry the job's number; a purged or lost one leaves a gap that must stay."""
    workplace = Workplace(tmp_path)
    first, second = workplace.queue_phantom(0), workplace.queue_phantom(1)
    workplace.spool.purge(first)
    workplace.queue.close()
    lose_job_table(tmp_path)

    queue, _ = recovered_in(tmp_path)

    with closing(queue):
        assert [job.id for job in queue.jobs()] == [second]
        assert queue.job(second).series_instance_uid


def test_of_two_revisions_without_results_the_later_is_contoured_with_the_images_of_both(tmp_path):
    with receiving_node(tmp_path, series={"quiet_seconds": 3600}) as node:
        first, *others = write_series(tmp_path / "ct")
        assert set(send([first], port=node.port, calling="CT1", called="OARLOCK")) == {0}
        (rejected,) = node.queue.receiving_jobs()
        node.queue.images_missing(rejected.id, "1 of 21 images")
        assert set(send(others, port=node.port, calling="CT1", called="OARLOCK")) == {0}
        (later,) = node.queue.receiving_jobs()
    lose_job_table(tmp_path)

    queue, found = recovered_in(tmp_path)

    with closing(queue):
        assert [job.job_id for job in found.jobs] == [rejected.id, later.id]
        assert queue.job(rejected.id).state is JobState.REJECTED
        assert str(later.id) in str(queue.job(rejected.id).reason)
        assert [job.id for job in queue.receiving_jobs()] == [later.id]
        assert len(queue.images(later.id)) == 1 + len(others)


def test_results_take_the_route_of_the_title_that_was_called(tmp_path):
    workplace = Workplace(tmp_path, ports={"tps": 11112})
    job = workplace.segmented()
    for path in workplace.spool.instance_paths(job):
        image = dcmread(path)
        image.file_meta.ReceivingApplicationEntityTitle = "SECOND"
        image.save_as(path)
    workplace.queue.close()
    lose_job_table(tmp_path)
    tps = {"ae_title": "RECEIVER", "host": "127.0.0.1", "port": 11112}
    routes = [{"called_ae_title": "SECOND", "destinations": ["tps"]}, {"destinations": ["other"]}]
    destinations = [{"name": "tps", **tps}, {"name": "other", **tps, "port": 11113}]

    queue, _ = recovered_in(tmp_path, routes=routes, destinations=destinations)

    with closing(queue):
        assert queue.job(job).state is JobState.HELD
        assert [each.destination for each in queue.deliveries(job)] == ["tps"]


def test_a_later_revision_that_is_rejected_ends_no_earlier_one(tmp_path):
    with receiving_node(tmp_path, series={"quiet_seconds": 3600}) as node:
        *others, last = write_series(tmp_path / "ct")
        send(others, port=node.port, calling="CT1", called="OARLOCK")
        (first,) = node.queue.receiving_jobs()
        node.queue.images_missing(first.id, "20 of 21 images")
        send([last], port=node.port, calling="CT1", called="OARLOCK")
        (later,) = node.queue.receiving_jobs()
        spool = node.spool
        spool.store_result(later.id, b"of which nobody knows what became", "structure_set.dcm")
    lose_job_table(tmp_path)

    queue, _ = recovered_in(tmp_path)

    with closing(queue):
        assert queue.job(later.id).state is JobState.REJECTED
        assert queue.job(first.id).state is JobState.RECEIVING
