"""Inputs that lie: refused with a clear word by reception, by the worker's reader and from disk."""

import struct
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from daemon.cli import main
from daemon.lint import NotReadable, lint_file
from model.ct import find_series, read_series
from model.dicom_file import MAX_INFLATED_BYTES
from model.errors import ReasonCode, SeriesUnsuitable
from tests.instances import ct_dataset, ct_instance, encoded
from tests.memory_of_series import peak_bytes
from tests.nodes import receiving_node
from tests.peers import Sender
from tests.phantom import make_grid, write_series

SERIES = "1.2.826.0.1.7"
LITTLE = struct.Struct("<HH")


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element in explicit VR little endian whose length may lie."""
    length = len(value) if length is None else length
    head = LITTLE.pack(tag >> 16, tag & 0xFFFF) + vr
    long = vr in {b"OB", b"OW", b"SQ", b"UN", b"UT"}
    return head + (struct.pack("<HI", 0, length) if long else struct.pack("<H", length)) + value


def nested(depth: int) -> bytes:
    """Sequences within sequences, without lengths; a thousand of them take twelve thousand bytes."""
    opened = element(0x00081140, b"SQ", b"", 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closed = b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)
    return opened * depth + closed * depth


def spliced(dataset_bytes: bytes, piece: bytes, before: int = 0x00200000) -> bytes:
    """Bytes of a data set with a piece in it, before the first element of a group."""
    place = dataset_bytes.index(LITTLE.pack(before >> 16, 0x000D))
    return dataset_bytes[:place] + piece + dataset_bytes[place:]


def bomb(megabytes: int) -> bytes:
    """Zeros, deflated a thousandfold."""
    deflater, zeros = zlib.compressobj(9, wbits=-zlib.MAX_WBITS), bytes(2**20)
    return b"".join(deflater.compress(zeros) for _ in range(megabytes)) + deflater.flush()


ORIGINAL = ct_instance(SERIES).dataset_bytes
BOMB = bomb(MAX_INFLATED_BYTES // 2**20 + 1)
HUGE = 0xFFFFFFF0
LIES = {
    "a thousand sequences within each other": spliced(ORIGINAL, nested(1000)),
    "a thousand sequences that never end": spliced(ORIGINAL, nested(1000)[: 20 * 1000]),
    "4 GB of a value": spliced(ORIGINAL, element(0x00091010, b"UN", b"x", HUGE)),
    "4 GB of pixels": ORIGINAL[:-140] + element(0x7FE00010, b"OW", bytes(128), HUGE),
    "a length beyond the end": spliced(ORIGINAL, element(0x00104000, b"LT", b"x", 60_000)),
    "an odd length": spliced(ORIGINAL, element(0x00104000, b"LT", b"xyz")),
    "pixels cut off": ORIGINAL[:-10],
    "an element alone": element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
}


def file_of(dataset_bytes: bytes, syntax: str = ExplicitVRLittleEndian, number: int = 1) -> bytes:
    """A Part 10 file around the bytes of a data set."""
    head = encoded(ct_dataset(SERIES, number), syntax)
    return head.file_bytes[: len(head.file_bytes) - len(head.dataset_bytes)] + dataset_bytes


# Reception


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom remarks on what these tests do on purpose
def test_the_listener_answers_each_lie_and_the_same_association_goes_on(tmp_path):
    contexts = [
        ("1.2.840.10008.5.1.4.1.1.2", ExplicitVRLittleEndian),
        ("1.2.840.10008.5.1.4.1.1.2", DeflatedExplicitVRLittleEndian),
    ]
    answers = {}
    with receiving_node(tmp_path) as node, Sender(node.port, contexts=contexts) as sender:
        for name, dataset_bytes in LIES.items():
            uid = f"{SERIES}.1"
            answer = sender.store(contexts[0][0], uid, ExplicitVRLittleEndian, dataset_bytes)
            answers[name] = answer.status
            assert answer.status == 0x0000 or answer.comment, name
            if answer.status == 0x0000:  # what can be read is kept as it came
                (path,) = node.spool.instance_paths(1)
                assert path.read_bytes().endswith(dataset_bytes)
                node.queue.cancel(node.queue.jobs()[0].id, "for the next")
                node.spool.purge(1)
        deflated = sender.store(contexts[0][0], f"{SERIES}.1", DeflatedExplicitVRLittleEndian, BOMB)
        good = ct_instance(SERIES, 2)
        last = sender.store(contexts[0][0], good.sop_instance_uid, ExplicitVRLittleEndian, good.dataset_bytes)

    assert (deflated.status, deflated.comment) == (0xC000, "inflates to more than 128 MB")
    assert last.status == 0x0000
    assert {name for name, status in answers.items() if status == 0x0000} <= {
        "a thousand sequences within each other",
        "an odd length",
    }
    assert set(answers.values()) <= {0x0000, 0xC000}


# Every UID and character set that lies is told with the status of a field: see test_reception.


@pytest.mark.parametrize(
    "uid", ["1.2/../../../etc", "1.2\x00.3", "1." + "2" * 63, "..", "/etc/passwd", "1..2"]
)
def test_a_uid_that_is_none_opens_no_job_and_no_folder(tmp_path, uid):
    instance = ct_instance(SERIES, SeriesInstanceUID="1.2.3")
    lie = instance.dataset_bytes.replace(
        element(0x0020000E, b"UI", b"1.2.3\0"),
        element(0x0020000E, b"UI", uid.encode() + b"\0" * (len(uid) % 2)),
    )
    with receiving_node(tmp_path) as node, Sender(node.port) as sender:
        answer = sender.store(instance.sop_class_uid, instance.sop_instance_uid, ExplicitVRLittleEndian, lie)
        assert answer.status == 0xC000
        assert "UID" in answer.comment
        assert node.queue.jobs() == []
    assert list((tmp_path / "jobs").iterdir()) == []


@pytest.mark.parametrize("charset", ["ISO_IR 192", "ISO 2022 IR 87", "NO SUCH SET", "\\" * 20, "ISO_IR 13"])
def test_a_character_set_that_lies_costs_letters_and_no_image(tmp_path, charset):
    """The name is Latin-1 whatever the header says; who may be whom stands in the identifiers."""
    honest = ct_instance(SERIES)
    lie = honest.dataset_bytes.replace(
        element(0x00080005, b"CS", b"ISO_IR 100"),
        element(0x00080005, b"CS", charset.encode() + b" " * (len(charset) % 2)),
    )
    assert lie != honest.dataset_bytes or charset == "ISO_IR 100"
    with receiving_node(tmp_path) as node, Sender(node.port) as sender:
        answer = sender.store(honest.sop_class_uid, honest.sop_instance_uid, ExplicitVRLittleEndian, lie)
        assert answer.status in {0x0000, 0xC000}
        for job in node.queue.jobs():
            assert job.patient_id == "P-4711"


# The worker's reader


def small(folder: Path, **options) -> list[Path]:
    grid = make_grid(pixel_spacing_mm=(4.0, 3.0), size=(60, 65), offsets_mm=range(-100, 101, 10))
    return write_series(folder, grid=grid, **options)


def refusal(paths: list[Path]) -> SeriesUnsuitable:
    with pytest.raises(SeriesUnsuitable) as refused:
        read_series(paths)
    return refused.value


@pytest.mark.parametrize("name", LIES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_series_with_a_lie_in_one_file_is_refused_with_its_name(tmp_path, name):
    paths = small(tmp_path)
    paths[4].write_bytes(file_of(LIES[name]))

    error = refusal(paths)

    # The lie stands in an image of another patient; only where it cannot be read at all does it count first.
    assert error.code in {ReasonCode.UNDECODABLE, ReasonCode.MIXED_PATIENT}
    assert error.code is ReasonCode.MIXED_PATIENT or paths[4].name in str(error)


def altered(path: Path, **elements) -> None:
    """Write a file again with other elements, as they are."""
    dataset = dcmread(path)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


@pytest.mark.parametrize("surplus", [-2, -60 * 2, 60 * 2, 60 * 65 * 2])
def test_pixels_that_are_fewer_or_more_than_rows_and_columns_are_refused_with_the_numbers(tmp_path, surplus):
    paths = small(tmp_path)
    pixels = dcmread(paths[4]).PixelData
    altered(paths[4], PixelData=pixels[:surplus] if surplus < 0 else pixels + bytes(surplus))

    error = refusal(paths)

    assert error.code is ReasonCode.UNDECODABLE
    assert f"{60 * 65 * 2 + surplus} bytes" in str(error)
    assert f"need {60 * 65 * 2}" in str(error)


@pytest.mark.filterwarnings("ignore:The pixel data is:UserWarning")  # pydicom's remark on the padding
def test_a_few_bytes_behind_the_pixels_are_padding(tmp_path):
    paths = small(tmp_path)
    altered(paths[4], PixelData=dcmread(paths[4]).PixelData + bytes(10))

    assert read_series(paths).hu.shape == (21, 60, 65)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_a_compressed_image_that_claims_another_size_is_refused_before_it_is_decoded(tmp_path, syntax):
    """Sixty thousand rows would be asked for from memory; nothing of it is touched."""
    paths = small(tmp_path, transfer_syntax=syntax)
    content = paths[4].read_bytes()
    honest, lie = struct.pack(">HH", 60, 65), struct.pack(">HH", 60_000, 60_000)
    if syntax == JPEG2000Lossless:  # width before height, four bytes each
        honest, lie = struct.pack(">II", 65, 60), struct.pack(">II", 60_000, 60_000)
    frame = content.index(b"\xff\x4f\xff\x51" if syntax == JPEG2000Lossless else b"\xff\xd8\xff")
    at = content.index(honest, frame)
    paths[4].write_bytes(content[:at] + lie + content[at + len(lie) :])
    before = peak_bytes()

    error = refusal(paths)

    assert error.code is ReasonCode.UNDECODABLE
    assert "60000" in str(error)
    assert peak_bytes() < before + 200_000_000


def test_a_run_length_bomb_is_refused_before_it_is_decoded(tmp_path):
    paths = small(tmp_path, transfer_syntax=RLELossless)
    header = struct.pack("<16I", 2, 64, 64 + 5_000_000, *[0] * 13)
    altered(paths[4], PixelData=encapsulate([header + b"\x81\0" * 5_000_000]))

    error = refusal(paths)

    assert error.code is ReasonCode.UNDECODABLE
    assert "of RLE" in str(error)


# Files from disk


def exit_code() -> object:
    """Of the command line as it stands in sys.argv."""
    try:
        return main()
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("name", LIES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_segment_and_lint_say_what_is_wrong_with_a_file_that_lies(tmp_path, name, capsys, monkeypatch):
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "lie.dcm").write_bytes(file_of(LIES[name]))

    found = find_series(tmp_path / "ct")
    assert set(found) <= {SERIES}
    with suppress(NotReadable):
        assert lint_file(tmp_path / "ct" / "lie.dcm")
    monkeypatch.setattr(
        "sys.argv", ["oarlock", "segment", str(tmp_path / "ct"), "--output", str(tmp_path / "rs.dcm")]
    )
    assert exit_code() in {1, 2}
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "rs.dcm").exists()


def test_a_deflated_bomb_among_files_is_passed_over_and_refused_by_its_name(tmp_path):
    path = tmp_path / "bomb.dcm"
    path.write_bytes(file_of(BOMB, DeflatedExplicitVRLittleEndian))

    assert find_series(tmp_path) == {}
    assert "inflates to more than 128 MB" in str(refusal([path] * 12))
    with pytest.raises(NotReadable, match="inflates to more than 128 MB"):
        lint_file(path)
