"""Files of the spool: durable or absent, private, without a peer's words in a path."""

import errno
import hashlib
import os
import resource
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import psutil
import pytest

from daemon import spool_files
from daemon.errors import InstanceConflict, StorageFull
from daemon.spool import Spool
from tests.job_rows import queue_in
from tests.stored import set_aside, store_image

UID = "1.2.3.4"


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool", 0)
    spool.prepare()
    return spool


def files_under(spool):
    return sorted(path for path in spool._root.rglob("*") if path.is_file())


def test_an_image_is_stored_as_received_under_a_name_of_our_own(spool):
    path = store_image(spool, 17, UID, b"image")

    assert path.read_bytes() == b"image"
    assert path == spool.instance_path(17, UID) == spool.instance_paths(17)[0]
    assert path.relative_to(spool._root) == Path(
        "jobs/00000017/images", hashlib.sha256(UID.encode()).hexdigest()[:32] + ".dcm"
    )
    assert files_under(spool) == [path]


def test_an_image_may_come_in_chunks(spool):
    assert (
        store_image(spool, 1, UID, iter([b"preamble", b"meta", b"data"])).read_bytes() == b"preamblemetadata"
    )


@pytest.mark.parametrize("uid", ["../../../etc/passwd", "/etc/passwd", "", "1.2\x00.3", "é" * 200])
def test_no_uid_leads_out_of_the_folder_of_its_job(spool, uid):
    path = store_image(spool, 1, uid, b"image")

    assert path.parent == spool._root / "jobs/00000001/images"


@pytest.mark.parametrize("umask", [0o000, 0o777], ids=oct)
def test_files_are_private_whatever_the_umask(tmp_path, umask):
    """The umask of a process is shared by its threads, so another process sets it."""
    program = (
        f"import os; os.umask({umask}); from pathlib import Path; from daemon.spool import Spool;"
        "from tests.stored import set_aside, store_image;"
        f"spool = Spool(Path({str(tmp_path)!r}), 0); spool.prepare(); store_image(spool, 1, '1.2', b'i');"
        "set_aside(spool, 1, b'other'); spool.store_result(1, b'result')"
    )
    # root would pass through folders that its own umask had closed; the modes are what counts
    subprocess.run([sys.executable, "-c", program], check=True)

    paths = list((tmp_path / "jobs").rglob("*"))
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()}
    folders = [tmp_path / "jobs", *(path for path in paths if path.is_dir())]
    assert {0o700} == {stat.S_IMODE(path.stat().st_mode) for path in folders}


def test_bytes_are_synced_before_they_get_their_name_and_the_folder_after(spool, monkeypatch):
    store_image(spool, 1, "1.1", b"the folders are there now")
    done = []
    sync, link = os.fsync, Path.hardlink_to
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append(Path(f"/proc/self/fd/{fd}").readlink().suffix), sync(fd))
    )
    monkeypatch.setattr(Path, "hardlink_to", lambda path, part: (done.append("link"), link(path, part)))

    store_image(spool, 1, UID, b"image")

    assert done == [".part", "link", ""]


def test_the_disk_begins_with_every_byte_of_an_image_once_before_it_is_synced(spool, monkeypatch):
    store_image(spool, 1, "1.1", b"the folders are there now")
    begun, begin, sync = [], spool_files.begin_writing, os.fsync
    monkeypatch.setattr(
        spool_files,
        "begin_writing",
        lambda fd, start, count: (begun.append((start, start + count)), begin(fd, start, count)),
    )
    monkeypatch.setattr(os, "fsync", lambda fd: (begun.append("sync"), sync(fd)))
    arrival = spool.arrive()
    for _ in range(10):
        arrival.write(bytes(300_000))
    arrival.begin_sync()
    arrival.begin_sync()

    spool.store_arrival(1, UID, arrival)

    million = spool_files.WRITEBACK_BYTES
    assert begun == [(0, million), (million, 2 * million), (2 * million, 3_000_000), "sync", "sync"]


def test_new_folders_are_synced_into_their_parents(spool, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").readlink().name), sync(fd))
    )

    store_image(spool, 1, UID, b"image")

    assert synced[:2] == ["jobs", "00000001"]
    assert synced[-1] == "images"


@pytest.mark.parametrize("failing", ["00000007", "images"])
def test_a_name_whose_folder_could_not_be_synced_is_synced_when_the_image_comes_again(
    spool, monkeypatch, failing
):
    """Sent again it is there already, but a power cut would still take it away."""
    failures, synced, sync = [failing], [], os.fsync

    def fsync(descriptor):
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if name in failures:
            failures.remove(name)
            raise OSError(errno.EIO, "as a failing disk does")
        synced.append(name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageFull, match="as a failing disk does"):
        store_image(spool, 7, UID, b"content")
    assert failing not in synced

    store_image(spool, 7, UID, b"content")

    assert failing in synced


def test_the_same_image_again_changes_nothing_and_other_bytes_are_refused(spool):
    path = store_image(spool, 1, UID, b"image")

    assert store_image(spool, 1, UID, b"image") == path
    with pytest.raises(InstanceConflict, match=r"job 1 .*1\.2\.3\.4"):
        store_image(spool, 1, UID, b"other")
    assert files_under(spool) == [path]
    assert path.read_bytes() == b"image"


def test_of_two_contents_that_come_at_once_one_stays_whole(spool):
    def store(letter):
        try:
            store_image(spool, 1, UID, letter * 100_000)
        except InstanceConflict:
            return None
        return letter

    with ThreadPoolExecutor(8) as associations:
        stored = {letter for letter in associations.map(store, [b"a", b"b", b"c", b"d"] * 4) if letter}

    assert len(stored) == 1
    assert spool.instance_path(1, UID).read_bytes() == stored.pop() * 100_000


def test_a_full_disk_is_told_as_storage_full_and_leaves_nothing(spool):
    """A limit on file size gives a true failure in the middle of writing."""
    before = files_under(spool)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StorageFull, match="File too large"):
            store_image(spool, 1, UID, b"x" * 200_000)
        with pytest.raises(StorageFull):
            spool.store_result(1, b"x" * 200_000)
        with pytest.raises(StorageFull):
            set_aside(spool, 1, b"x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_under(spool) == before


def test_what_a_crash_cut_off_goes_before_results_are_written_anew(spool):
    path, digest = spool.store_result(1, b"whole", "structure_set.dcm")
    spool.mark_checked(1, {"structure_set.dcm": digest})
    path.with_name("segmentation-0123.part").write_bytes(b"half")

    spool.begin_results(1)

    assert [each.name for each in path.parent.iterdir()] == ["structure_set.dcm"]
    assert spool.checked(1) == {}


def test_a_result_replaces_an_earlier_one_and_survives_a_failed_write(spool):
    spool.store_result(1, b"first")
    path, digest = spool.store_result(1, b"second")

    def chunks():
        yield b"third"
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(StorageFull):
        spool.store_result(1, chunks())
    assert (path, hashlib.sha256(b"second").hexdigest()) == (spool.result_path(1), digest)
    assert path.read_bytes() == b"second"
    assert files_under(spool) == [path]


def test_bytes_set_aside_get_one_file_per_content(spool):
    names = [set_aside(spool, 1, content) for content in (b"one", b"two", b"one")]

    assert names[0] == names[2] != names[1]
    assert [path.read_bytes() for path in files_under(spool)] == [
        content for _name, content in sorted(zip(names, [b"one", b"two"], strict=False))
    ]


def test_an_image_moves_to_another_job_and_moving_is_repeatable(spool):
    source = store_image(spool, 1, UID, b"image")

    target = spool.move_instance(UID, 1, 2)

    assert target == spool.move_instance(UID, 1, 2) == spool.instance_path(2, UID)
    assert target.read_bytes() == b"image"
    assert not source.exists()


def test_preparing_proves_that_the_folder_can_be_written_and_leaves_no_trace(tmp_path):
    (tmp_path / "file").write_text("in the way")
    spool = Spool(tmp_path / "new", 0)
    spool.prepare()
    spool.prepare()

    assert files_under(spool) == []
    with pytest.raises(StorageFull, match="file"):
        Spool(tmp_path / "file", 0).prepare()


def test_the_watermark_tells_whether_there_is_room(tmp_path):
    free = Spool(tmp_path, 0).free_bytes()

    assert Spool(tmp_path, 0).has_room()
    assert not Spool(tmp_path, 2 * free).has_room()


def test_purging_removes_one_job_and_is_repeatable(spool):
    store_image(spool, 1, UID, b"image")
    spool.store_result(1, b"result")
    other = store_image(spool, 2, UID, b"image")

    spool.purge(1)
    spool.purge(1)

    assert files_under(spool) == [other]


def test_a_job_that_was_purged_gets_its_folders_again_and_synced(spool, monkeypatch):
    """By another process, so that nobody here was told."""
    store_image(spool, 1, UID, b"image")
    Spool(spool._root, 0).purge(1)
    synced, sync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").readlink().name), sync(fd))
    )

    assert store_image(spool, 1, UID, b"image").read_bytes() == b"image"
    assert synced[:2] == ["jobs", "00000001"]


def test_tidying_removes_what_is_half_written_and_keeps_whatever_else_no_row_knows(spool):
    acknowledged = store_image(spool, 1, "1.1", b"image")
    unacknowledged = store_image(spool, 1, "1.2", b"no row")
    half = acknowledged.with_suffix(".part")
    half.write_bytes(b"half")
    result, _ = spool.store_result(1, b"result")
    being_written = result.with_suffix(".part")
    being_written.write_bytes(b"a worker is at it")
    aside = result.parent / "set_aside" / set_aside(spool, 1, b"other")
    foreign = spool._root / "jobs" / "README"
    foreign.write_text("an administrator's note")

    tidied = spool.reconcile({1: {"1.1"}}.get)

    assert sorted(tidied) == sorted([unacknowledged, half])
    (kept,) = (spool._root / "unclaimed").iterdir()
    assert kept.read_bytes() == b"no row"
    assert files_under(spool) == sorted([acknowledged, result, being_written, aside, foreign, kept])


def test_a_folder_that_is_purged_while_it_is_tidied_is_left_to_that(spool):
    gone, there = store_image(spool, 1, "1.1", b"image"), store_image(spool, 2, "1.2", b"no row")

    def known(job):
        if job == 1:
            spool.purge(1)
        return {"1.1"}

    assert spool.reconcile(known) == [there]
    assert not gone.exists()


def test_folders_of_another_database_are_taken_away_before_their_number_is_used_again(spool):
    path = store_image(spool, 7, UID, b"somebody else's patient")

    assert spool.reconcile(lambda _job: None) == [path.parent.parent]
    assert not path.exists()
    kept = files_under(spool)
    assert [file.read_bytes() for file in kept] == [b"somebody else's patient"]
    assert kept[0].is_relative_to(spool._root / "unclaimed")


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    """Killed ten times in the middle of storing, no acknowledged image lacks its file or row."""
    acknowledged, start = {}, 0
    for run in range(10):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.storing_process", str(tmp_path), str(start)],
            stdout=subprocess.PIPE,
            text=True,
        ) as listener:
            assert listener.stdout is not None
            lines = list(islice(listener.stdout, 15 + 7 * run))
            listener.kill()
            lines += [line for line in listener.stdout if line.endswith("\n")]
        for line in lines:
            job, uid, sha256 = line.split()
            acknowledged[uid] = (int(job), sha256)
        start += len(lines) + 5

        queue, spool = queue_in(tmp_path), Spool(tmp_path, 0)
        spool.reconcile(queue.instance_uids)
        rows = {row.sop_instance_uid: row for job in queue.jobs() for row in queue.instances(job.id)}
        for uid, (job, sha256) in acknowledged.items():
            content = spool.instance_path(job, uid).read_bytes()
            assert (job, sha256) == (rows[uid].job_id, rows[uid].sha256)
            assert sha256 == hashlib.sha256(content).hexdigest()
        assert len(rows) == len(list(tmp_path.glob("jobs/*/images/*.dcm")))
        assert not list(tmp_path.rglob("*.part"))
        assert all(job.instance_count == len(queue.instances(job.id)) for job in queue.jobs())
        queue.close()


@pytest.fixture
def done(spool, monkeypatch):
    """Every sync by the name of its file or folder, and every change of a name, in their order."""
    store_image(spool, 1, "1.1", b"the folders are there now")
    store_image(spool, 2, "1.1", b"the folders are there now")
    set_aside(spool, 1, b"likewise")
    told, sync, link, replace = [], os.fsync, Path.hardlink_to, Path.replace

    def name(fd):
        path = Path(f"/proc/self/fd/{fd}").readlink()
        return path.suffix or path.name

    monkeypatch.setattr(os, "fsync", lambda fd: (told.append(name(fd)), sync(fd)))
    monkeypatch.setattr(Path, "hardlink_to", lambda path, part: (told.append("link"), link(path, part)))
    monkeypatch.setattr(Path, "replace", lambda path, to: (told.append("replace"), replace(path, to))[1])
    return told


def arrived(spool, content):
    arrival = spool.arrive()
    arrival.write(content)
    return arrival


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda s: s.restore(1, "1.1", arrived(s, b"image")), [".part", "replace", "images"]),
        (lambda s: set_aside(s, 1, b"other"), [".part", "link", "set_aside"]),
        (lambda s: s.store_result(1, b"result"), [".part", "replace", "00000001"]),
        (lambda s: s.move_instance("1.9", 1, 2), ["link", "images", "images"]),
        (lambda s: s.purge(2), ["jobs"]),
    ],
    ids=["restore", "set_aside", "store_result", "move", "purge"],
)
def test_every_change_is_synced_in_its_order(spool, done, act, expected):
    store_image(spool, 1, "1.9", b"to be moved")
    spool.store_result(1, b"first")
    done.clear()
    act(spool)
    assert done[-len(expected) :] == expected


def test_an_image_is_not_moved_over_other_bytes(spool):
    source, target = store_image(spool, 1, UID, b"image"), store_image(spool, 2, UID, b"other")
    with pytest.raises(InstanceConflict):
        spool.move_instance(UID, 1, 2)
    assert (source.read_bytes(), target.read_bytes()) == (b"image", b"other")


def test_what_was_half_set_aside_goes(spool):
    set_aside(spool, 1, b"other")
    half = spool._root / "jobs/00000001/set_aside/half.part"
    half.write_bytes(b"half")
    assert spool.reconcile({1: set()}.get) == [half]


def test_what_a_damaged_list_of_results_says_is_nothing(spool):
    spool.mark_checked(1, {"a": "b"})
    spool.result_path(1, "results.sha256").write_bytes(b"\xff\xfe")
    assert spool.checked(1) == {}


def test_a_short_write_is_continued(spool, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, chunk: write(fd, bytes(chunk[:7])))
    assert store_image(spool, 1, UID, b"0123456789" * 10).read_bytes() == b"0123456789" * 10


def test_an_arrival_leaves_no_descriptor(spool):
    before = psutil.Process().num_fds()
    for n in range(5):
        store_image(spool, 1, f"1.{n}", b"x")
    assert psutil.Process().num_fds() == before
