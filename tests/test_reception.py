"""The answer to every C-STORE request, without a network: what is stored, refused, set aside."""

import errno
import os
import sqlite3
import struct
import threading
import zlib
from contextlib import suppress
from io import BytesIO
from unittest.mock import Mock

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.filereader import data_element_generator
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)
from structlog.testing import capture_logs

from daemon import spool_files
from daemon.completeness import Completeness
from daemon.config import Series
from daemon.dimse import StorageStatus
from daemon.errors import StorageFull
from daemon.instance_header import MAX_INFLATED_BYTES, HeaderUnreadable, read_header
from daemon.jobs import JobState
from daemon.reception import BEGINNING_BYTES, MAX_COMMENT, Reception, StoreRequest
from daemon.spool import Spool
from tests.instances import ct_dataset, ct_instance, encoded
from tests.job_rows import Clock, queue_in, result

SERIES = "1.2.826.0.1.7"


class Bench:
    """Everything below the network."""

    def __init__(self, folder):
        self.folder = folder
        self.clock = Clock()
        self.queue = queue_in(folder, self.clock)
        self.spool = Spool(folder, 0)
        self.spool.prepare()
        self.completeness = Completeness(self.queue, Series(quiet_seconds=0), self.clock)
        self.reception = Reception(self.queue, self.spool, self.completeness)

    def store(self, instance, **changes):
        """Answer a request for an instance, with what is changed in it."""
        values = {
            "association_id": 1,
            "calling": "CT1",
            "called": "OARLOCK",
            "sop_class_uid": instance.sop_class_uid,
            "sop_instance_uid": instance.sop_instance_uid,
            "transfer_syntax_uid": instance.transfer_syntax_uid,
        }
        dataset_bytes = changes.pop("dataset_bytes", instance.dataset_bytes)
        return self.reception.store(StoreRequest(**values | changes), in_chunks(dataset_bytes))

    def images(self, job):
        """SOP Instance UIDs of a job's own images."""
        return sorted(row.sop_instance_uid for row in self.queue.instances(job))

    def deliver(self, job):
        """Take a job from receiving to its end."""
        self.completeness.tick()
        claimed = self.queue.claim("w", 60)
        assert claimed is not None
        assert claimed.id == job
        self.queue.segmented(job, "w", result("tps"))
        (delivery,) = self.queue.deliveries(job)
        self.queue.claim_delivery("w", 60)
        self.queue.delivery_sent(delivery.id, 0)


def in_chunks(dataset_bytes):
    """As the network brings it: pieces of any length, in a buffer that is used again."""
    buffer = bytearray(100)
    for start in range(0, len(dataset_bytes), 100):
        piece = dataset_bytes[start : start + 100]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


def changed(instance):
    """Return the same instance with other pixels."""
    number = int(instance.sop_instance_uid.rpartition(".")[2])
    pixels = np.full((8, 8), 99, np.int16).tobytes()
    return ct_instance(instance.series_instance_uid, number, PixelData=pixels)


# Stored


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_the_file_holds_the_bytes_as_received_behind_a_header_that_says_how_to_read_them(bench, syntax):
    instance = encoded(ct_dataset(SERIES), syntax)

    answer = bench.store(instance)

    assert answer.status is StorageStatus.SUCCESS
    (path,) = bench.spool.instance_paths(1)
    assert path.read_bytes().endswith(instance.dataset_bytes)
    stored = dcmread(path)
    assert stored.file_meta.TransferSyntaxUID == syntax
    assert stored.file_meta.MediaStorageSOPInstanceUID == instance.sop_instance_uid
    assert stored.file_meta.SourceApplicationEntityTitle == "CT1"
    assert (stored.PatientName, stored.PixelData) == ("Müller^Jörg", ct_dataset(SERIES).PixelData)
    assert len(path.read_bytes()) == len(instance.dataset_bytes) + 144 + stored.file_meta[0x00020000].value


def test_a_success_is_said_only_when_the_row_is_written(bench):
    bench.store(ct_instance(SERIES))

    (row,) = bench.queue.instances(1)
    job = bench.queue.job(1)
    assert row.transfer_syntax_uid == ExplicitVRLittleEndian
    assert (job.calling_ae_title, job.called_ae_title, job.instance_count) == ("CT1", "OARLOCK", 1)
    assert (job.patient_name, job.patient_id, job.accession_number) == ("Müller^Jörg", "P-4711", "A-17")
    assert (job.study_date, job.study_description, job.series_description) == ("20240229", "Neck", "2.5 mm")


def test_two_interleaved_series_and_two_senders_of_one_series_end_as_four_whole_jobs(bench):
    for number in (1, 2, 3):
        for series in (SERIES, SERIES + "7"):
            for sender in ("CT1", "PACS"):
                assert (
                    bench.store(ct_instance(series, number), calling=sender).status is StorageStatus.SUCCESS
                )

    assert [job.instance_count for job in bench.queue.jobs()] == [3, 3, 3, 3]


# Known already


def test_the_same_image_again_is_a_success_without_work_even_after_delivery(bench):
    instance = ct_instance(SERIES)
    bench.store(instance)
    assert bench.store(instance).status is StorageStatus.SUCCESS
    bench.deliver(1)

    assert bench.store(instance).status is StorageStatus.SUCCESS

    (job,) = bench.queue.jobs()
    assert (job.state, job.instance_count) == (JobState.DELIVERED, 1)
    assert len(bench.spool.instance_paths(1)) == 1


def test_other_bytes_under_a_known_uid_are_set_aside_and_visible_and_the_first_stay(bench):
    instance = ct_instance(SERIES)
    bench.store(instance)

    for _ in range(2):
        answer = bench.store(changed(instance))
        assert answer.status is StorageStatus.DUPLICATE_SOP_INSTANCE
        assert "set aside" in answer.comment

    (row,) = bench.queue.set_asides(1)
    assert (row.sop_instance_uid, row.calling_ae_title) == (instance.sop_instance_uid, "CT1")
    (aside,) = bench.folder.rglob("set_aside/*")
    assert aside.name == row.file_name
    assert aside.read_bytes().endswith(changed(instance).dataset_bytes)
    (kept,) = bench.spool.instance_paths(1)
    assert kept.read_bytes().endswith(instance.dataset_bytes)


def test_a_success_is_true_again_where_somebody_removed_the_file(bench):
    """The sender keeps no copy of what is answered 0x0000."""
    instance = ct_instance(SERIES)
    bench.store(instance)
    (file,) = bench.spool.instance_paths(1)
    stored = file.read_bytes()
    file.unlink()

    assert bench.store(instance).status is StorageStatus.SUCCESS

    assert file.read_bytes() == stored
    assert bench.images(1) == [instance.sop_instance_uid]


@pytest.mark.parametrize("damage", [lambda _: b"", lambda stored: stored[:-1] + bytes([stored[-1] ^ 1])])
def test_a_damaged_image_that_is_sent_again_is_mended(bench, damage):
    """Its sender was told by a storage commitment that it is not safe, and asks nothing better than to send it."""
    instance = ct_instance(SERIES)
    bench.store(instance)
    (file,) = bench.spool.instance_paths(1)
    stored = file.read_bytes()
    file.write_bytes(damage(stored))

    assert bench.store(instance).status is StorageStatus.SUCCESS

    assert file.read_bytes() == stored
    assert list(bench.folder.rglob("*.part")) == []


def test_an_image_sent_again_while_it_is_erased_leaves_nothing_of_the_patient(bench, monkeypatch):
    instance = ct_instance(SERIES)
    bench.store(instance)
    bench.deliver(1)
    erased = bench.queue.job(1)

    def erase_meanwhile(*_):
        bench.queue.purged(erased, "erased")
        bench.spool.purge(1)
        return ""

    monkeypatch.setattr(bench.spool, "digest", erase_meanwhile)

    assert bench.store(instance).status is StorageStatus.OUT_OF_RESOURCES
    assert bench.spool.instance_paths(1) == []
    assert bench.store(instance).status is StorageStatus.SUCCESS
    assert bench.images(2) == [instance.sop_instance_uid]


def test_a_series_sent_anew_from_its_start_waits_for_its_end(bench):
    """A router that begins again sends what is known first: no silence, whatever its associations are."""
    bench.completeness = Completeness(bench.queue, Series(quiet_seconds=60), bench.clock)
    first, second = ct_instance(SERIES, 1), ct_instance(SERIES, 2)
    for instance in (first, second):
        bench.store(instance)
    bench.clock.forward(seconds=59)
    bench.store(first)
    bench.clock.forward(seconds=59)
    assert bench.completeness.tick() == 0
    bench.clock.forward(seconds=1)
    assert bench.completeness.tick() == 1

    bench.store(second)

    job = bench.queue.job(1)
    assert (job.state, job.instance_count) == (JobState.RECEIVING, 2)
    assert bench.queue.events(1)[-1].detail == "an image was sent again"
    bench.clock.forward(seconds=60)
    assert bench.completeness.tick() == 1


def test_an_image_that_was_never_acknowledged_blocks_no_other_content(bench, monkeypatch):
    instance = ct_instance(SERIES)
    with monkeypatch.context() as trouble:
        trouble.setattr(bench.queue, "add_instance", Mock(side_effect=StorageFull("locked")))
        assert bench.store(instance).status is StorageStatus.OUT_OF_RESOURCES

    assert bench.store(changed(instance)).status is StorageStatus.SUCCESS

    (file,) = bench.spool.instance_paths(1)
    assert file.read_bytes().endswith(changed(instance).dataset_bytes)
    assert bench.queue.set_asides(1) == []


def test_a_late_image_joins_before_the_claim_and_opens_a_revision_after_it(bench):
    bench.store(ct_instance(SERIES, 1))
    bench.completeness.tick()
    bench.store(ct_instance(SERIES, 2))
    assert bench.images(1) == [f"{SERIES}.1", f"{SERIES}.2"]

    bench.completeness.tick()
    bench.queue.claim("w", 60)
    bench.store(ct_instance(SERIES, 3))

    assert bench.images(2) == [f"{SERIES}.3"]
    assert bench.queue.job(2).revision == 2
    assert len(bench.queue.images(2)) == 3


def test_a_cancelled_series_sent_again_is_wanted_again(bench):
    bench.store(ct_instance(SERIES))
    bench.queue.cancel(1, "by an operator")

    bench.store(ct_instance(SERIES))

    assert bench.images(2) == [f"{SERIES}.1"]


def test_the_same_image_over_many_associations_at_the_same_instant_is_one_image(bench):
    instance = ct_instance(SERIES)
    answers = _at_once([lambda: bench.store(instance).status] * 8)

    assert {StorageStatus.SUCCESS} == set(answers)
    assert bench.queue.job(1).instance_count == 1
    assert len(bench.queue.jobs()) == 1


def test_of_two_contents_under_one_uid_at_the_same_instant_exactly_one_is_stored(bench):
    instance = ct_instance(SERIES)
    first, second = instance, changed(instance)
    answers = _at_once([lambda: bench.store(first).status, lambda: bench.store(second).status])

    assert sorted(answers) == [StorageStatus.SUCCESS, StorageStatus.DUPLICATE_SOP_INSTANCE]
    assert len(bench.queue.set_asides(1)) == 1


def _at_once(tasks):
    barrier, answers = threading.Barrier(len(tasks)), []

    def run(task):
        barrier.wait()
        answers.append(task())

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_an_image_whose_job_is_discarded_while_its_file_is_written_is_discarded_with_it(bench, monkeypatch):
    store_arrival = bench.spool.store_arrival

    def cancelled_meanwhile(job, *rest):
        bench.queue.cancel(job, "by an operator")
        return store_arrival(job, *rest)

    monkeypatch.setattr(bench.spool, "store_arrival", cancelled_meanwhile)

    assert bench.store(ct_instance(SERIES)).status is StorageStatus.SUCCESS

    assert bench.images(1) == [f"{SERIES}.1"]
    assert [job.state for job in bench.queue.jobs()] == [JobState.CANCELLED]


# Refused

UNREADABLE = StorageStatus.CANNOT_UNDERSTAND
MISMATCH = StorageStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS
CONTRADICTIONS = {
    "no SOP Instance UID": ({"SOPInstanceUID": None}, {}, UNREADABLE),
    "no SOP Class UID": ({"SOPClassUID": None}, {}, UNREADABLE),
    "no Study Instance UID": ({"StudyInstanceUID": None}, {}, UNREADABLE),
    "no Series Instance UID": ({"SeriesInstanceUID": ""}, {}, UNREADABLE),
    "no pixels": ({"PixelData": None}, {}, UNREADABLE),
    "empty pixels": ({"PixelData": b""}, {}, UNREADABLE),
    "SOP Instance UID is text": (
        {"SOPInstanceUID": "1.2.abc"},
        {"sop_instance_uid": "1.2.abc"},
        StorageStatus.INVALID_SOP_INSTANCE,
    ),
    "SOP Instance UID is a path": (
        {"SOPInstanceUID": "../../etc/passwd"},
        {"sop_instance_uid": "../../etc/passwd"},
        StorageStatus.INVALID_SOP_INSTANCE,
    ),
    "SOP Instance UID is too long": (
        {"SOPInstanceUID": "1." + "2" * 63},
        {"sop_instance_uid": "1." + "2" * 63},
        StorageStatus.INVALID_SOP_INSTANCE,
    ),
    "Series Instance UID is text": ({"SeriesInstanceUID": "series one"}, {}, UNREADABLE),
    "another instance in the request": ({}, {"sop_instance_uid": "1.2.3.4"}, MISMATCH),
    "another class in the data set": ({"SOPClassUID": MRImageStorage}, {}, MISMATCH),
    "another class in both": (
        {"SOPClassUID": MRImageStorage},
        {"sop_class_uid": MRImageStorage},
        StorageStatus.SOP_CLASS_NOT_SUPPORTED,
    ),
    "another modality": ({"Modality": "MR"}, {}, MISMATCH),
}


@pytest.mark.parametrize(("elements", "request_", "status"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom remarks on what these tests do on purpose
def test_what_contradicts_itself_is_refused_with_the_right_status_and_leaves_nothing(
    bench, elements, request_, status
):
    instance = ct_instance(SERIES, **elements)
    request_ = {"sop_class_uid": CTImageStorage, "sop_instance_uid": f"{SERIES}.1"} | request_

    answer = bench.store(instance, **request_)

    assert answer.status == status
    assert 0 < len(answer.comment) <= MAX_COMMENT
    assert answer.comment.isascii()
    assert bench.queue.jobs() == []
    assert list(bench.folder.glob("jobs/*")) == []


def test_a_data_set_that_ends_within_its_pixel_data_is_refused(bench):
    instance = ct_instance(SERIES)

    answer = bench.store(instance, dataset_bytes=instance.dataset_bytes[:-10])

    assert answer.status is StorageStatus.CANNOT_UNDERSTAND
    assert "Pixel Data ends after 118 of 128 bytes" in answer.comment


@pytest.mark.parametrize("garbage", [b"", b"\0" * 500, b"GET / HTTP/1.1\r\n\r\n" * 20, b"\xff" * 1000])
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_what_is_no_data_set_is_refused_as_not_understood(bench, garbage, syntax):
    answer = bench.store(ct_instance(SERIES), dataset_bytes=garbage, transfer_syntax_uid=syntax)

    assert answer.status is StorageStatus.CANNOT_UNDERSTAND


@pytest.mark.filterwarnings("ignore::UserWarning")  # damaged character sets
def test_no_damage_to_a_data_set_is_answered_by_an_exception():
    """Two thousand damaged headers are read or refused, by nothing but HeaderUnreadable."""
    random = np.random.default_rng(4)
    original = ct_instance(SERIES).dataset_bytes
    for _ in range(2000):
        damaged = bytearray(original)
        for place in random.integers(0, len(damaged), 4):
            damaged[place] = random.integers(0, 256)
        try:
            read_header(bytes(damaged), ExplicitVRLittleEndian)
        except HeaderUnreadable:
            continue


def read_by_pydicom(dataset_bytes, syntax):
    """Raw values by tag, up to the pixels."""
    return {
        int(each.tag): each.value
        for each in data_element_generator(
            BytesIO(dataset_bytes),
            syntax == ImplicitVRLittleEndian,
            is_little_endian=True,
            stop_when=lambda tag, *_: tag >= 0x7FE00010,
        )
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_our_reader_says_of_a_damaged_header_what_pydicom_says_or_nothing(syntax):
    """Where both read one, both read the same; sequences of defined and undefined length are walked over."""
    random = np.random.default_rng(5)
    dataset = ct_dataset(SERIES)
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "T-A0100", "Brain"
    inner = Dataset()
    inner.AnatomicRegionSequence = [item]
    dataset.AnatomicRegionSequence = [item, item]
    dataset.ReferencedImageSequence = [inner, inner]
    for sequence in (dataset["ReferencedImageSequence"], inner["AnatomicRegionSequence"]):
        sequence.is_undefined_length = True
    inner.is_undefined_length_sequence_item = True
    original = encoded(dataset, syntax).dataset_bytes
    assert read_header(original, syntax).patient_name == "Müller^Jörg"
    agreed = 0
    for _ in range(1000):
        damaged = bytearray(original)
        damaged[random.integers(0, len(damaged))] = random.integers(0, 256)
        try:
            ours = read_header(bytes(damaged), syntax)
        except HeaderUnreadable:
            continue
        try:
            theirs = read_by_pydicom(bytes(damaged), syntax)
        except Exception:  # noqa: BLE001, S112 -- where it reads nothing, there is nothing to compare
            continue
        for tag, value in ((0x0020000D, ours.study_instance_uid), (0x00080018, ours.sop_instance_uid)):
            assert (theirs.get(tag) or b"").decode("ascii", "replace").strip(" \0") == value
            agreed += 1
    assert agreed > 1000


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_a_header_longer_than_what_is_kept_of_it_is_read_all_the_same(bench, syntax):
    noise = np.random.default_rng(3).integers(0, 256, 3 * BEGINNING_BYTES, np.uint8).tobytes()
    instance = encoded(ct_dataset(SERIES, ICCProfile=noise), syntax)

    assert bench.store(instance).status is StorageStatus.SUCCESS
    assert bench.images(1) == [f"{SERIES}.1"]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_beginning_of_a_data_set_says_the_same_as_the_whole_or_nothing(syntax):
    whole = encoded(ct_dataset(SERIES), syntax).dataset_bytes
    header = read_header(whole, syntax)
    said = 0
    for length in range(len(whole)):
        with suppress(HeaderUnreadable):
            assert read_header(whole[:length], syntax, len(whole)) == header
            said += 1

    assert 0 < said < len(whole)


def test_sequences_nested_without_end_are_refused():
    nested = (
        struct.pack("<HH2sxxL", 8, 0x1140, b"SQ", 2**32 - 1) + struct.pack("<HHL", 0xFFFE, 0xE000, 2**32 - 1)
    ) * 5000

    with pytest.raises(HeaderUnreadable, match="nested more than"):
        read_header(nested, ExplicitVRLittleEndian)


def test_a_data_set_that_inflates_without_bound_is_refused():
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    zeros = bytes(2**20)
    bomb = b"".join(deflater.compress(zeros) for _ in range(MAX_INFLATED_BYTES // 2**20 + 1))

    with pytest.raises(HeaderUnreadable, match="inflates to more than"):
        read_header(bomb + deflater.flush(), DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 192", "Οδυσσεύς"),
        ("ISO_IR 144", "Люкceмбypг"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("", "Plain^Name"),
    ],
)
def test_names_are_read_in_their_own_character_set(charset, name):
    instance = ct_instance(SERIES, SpecificCharacterSet=charset, PatientName=name)

    assert read_header(instance.dataset_bytes, ExplicitVRLittleEndian).patient_name == name


def test_control_characters_never_reach_the_job_table():
    instance = ct_instance(SERIES, StudyDescription="red\x07 alert")

    assert read_header(instance.dataset_bytes, ExplicitVRLittleEndian).study_description == "red  alert"


# Trouble of our own


def test_a_disk_that_refuses_to_write_is_answered_as_out_of_resources_and_leaves_no_row(bench):
    (bench.folder / "jobs").rmdir()
    (bench.folder / "jobs").write_text("in the way")

    with capture_logs() as logged:
        answer = bench.store(ct_instance(SERIES))

    assert answer.status is StorageStatus.OUT_OF_RESOURCES
    assert "send again" in answer.comment
    assert bench.queue.instances(1) == []
    assert [line["event"] for line in logged] == ["instance_refused"]


def test_below_the_watermark_no_image_is_taken_on_an_association_that_is_open(bench, monkeypatch):
    bench.store(ct_instance(SERIES, 1))
    monkeypatch.setattr(bench.spool, "has_room", lambda: False)

    assert bench.store(ct_instance(SERIES, 2)).status is StorageStatus.OUT_OF_RESOURCES
    assert bench.images(1) == [f"{SERIES}.1"]
    assert list(bench.folder.rglob("*.part")) == []


def test_a_disk_that_refuses_as_it_begins_to_write_is_believed_at_once(bench, monkeypatch):
    """What it says then, a later sync need not say again."""

    def full(*_range):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spool_files, "begin_writing", full)

    with capture_logs() as logged:
        answer = bench.store(ct_instance(SERIES))

    assert answer.status is StorageStatus.OUT_OF_RESOURCES
    assert bench.queue.jobs() == []
    assert list(bench.folder.glob("arriving/*")) == []
    assert "No space left" in logged[0]["cause"]


def test_a_database_that_refuses_is_answered_as_out_of_resources_and_logged_once_without_the_patient(bench):
    with sqlite3.connect(bench.folder / "oarlock.db") as database:
        database.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    database.close()

    with capture_logs() as logged:
        answer = bench.store(ct_instance(SERIES))

    assert answer.status is StorageStatus.OUT_OF_RESOURCES
    (line,) = logged
    assert line["event"] == "instance_refused"
    assert "broken" in str(line["exc_info"])
    assert not any(secret in str(line) for secret in ("Müller", "4711", "A-17"))


def test_an_image_refused_for_our_own_trouble_is_stored_when_it_is_sent_again(bench, monkeypatch):
    def broken(*_):
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as trouble:
        trouble.setattr(bench.queue, "add_instance", broken)
        assert bench.store(ct_instance(SERIES)).status is StorageStatus.OUT_OF_RESOURCES

    assert bench.store(ct_instance(SERIES)).status is StorageStatus.SUCCESS
    assert bench.images(1) == [f"{SERIES}.1"]


def test_nothing_that_is_logged_about_an_instance_names_the_patient(bench):
    with capture_logs() as logged:
        bench.store(ct_instance(SERIES))
        bench.store(ct_instance(SERIES))
        bench.store(changed(ct_instance(SERIES)))
        bench.store(ct_instance(SERIES, 2, Modality="MR"))

    assert {"instance_stored", "instance_known", "instance_refused"} == {line["event"] for line in logged}
    assert not any(secret in str(logged) for secret in ("Müller", "P-4711", "A-17"))


def require_waits_for_its_association(bench):
    """Whatever time passes, a series is complete once its sender is gone and not before."""
    bench.clock.forward(seconds=5)
    assert bench.completeness.tick() == 0
    bench.completeness.association_closed(1)
    assert bench.completeness.tick() == 1


def test_an_image_that_changes_its_job_keeps_the_new_one_waiting(bench, monkeypatch):
    bench.completeness.association_opened(1)
    bench.store(ct_instance(SERIES, 1))
    add, moved = bench.queue.add_instance, []

    def claimed_meanwhile(job, incoming):
        if not moved:
            moved.append(job)
            bench.queue.complete(job, "by an operator")
            bench.queue.claim("w", 60)
        return add(job, incoming)

    monkeypatch.setattr(bench.queue, "add_instance", claimed_meanwhile)
    assert bench.store(ct_instance(SERIES, 2)).status == 0
    require_waits_for_its_association(bench)


def test_an_image_of_exactly_the_limit_is_taken(bench):
    one = ct_instance(SERIES, 1)
    bench.reception = Reception(bench.queue, bench.spool, bench.completeness, len(one.dataset_bytes))
    assert bench.store(one).status == 0


def test_an_image_sent_again_keeps_its_series_waiting(bench):
    bench.store(ct_instance(SERIES, 1))
    bench.completeness.association_opened(1)
    assert bench.store(ct_instance(SERIES, 1)).status == 0
    require_waits_for_its_association(bench)


def test_an_image_with_an_empty_modality_is_taken(bench):
    assert bench.store(ct_instance(SERIES, 1, Modality="")).status == 0
