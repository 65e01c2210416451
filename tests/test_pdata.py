"""The path of messages: strict about every length, indifferent to how they are cut, and small in memory."""

import select
import socket
import struct
import threading
import tracemalloc

import pytest
from pydicom.uid import CTImageStorage
from structlog.testing import capture_logs

from benchmarks.bulk_sender import CONTEXT_ID, Association, Image, associate_request, store_request
from daemon.association import VERIFICATION
from daemon.dicom_port import NetworkLimits
from daemon.pdata import Released, Wire
from tests.conditions import wait_until
from tests.instances import ct_instance, ct_series
from tests.nodes import receiving_node
from tests.peers import Sender

LONGEST = 131072
IMPATIENT = NetworkLimits(request_seconds=2, idle_seconds=2, drain_seconds=1)


@pytest.fixture
def node(tmp_path):
    with receiving_node(tmp_path, limits=IMPATIENT) as node:
        yield node


def an_image(number=1, **elements):
    instance = ct_instance("1.2.3", number, **elements)
    return Image(instance.sop_instance_uid, instance.dataset_bytes)


def request(number=1, longest=LONGEST):
    return store_request(an_image(number), number, longest)


def pdu(kind, body):
    return struct.pack(">BxL", kind, len(body)) + body


def fragment(value, control, context=CONTEXT_ID):
    return struct.pack(">LBB", len(value) + 2, context, control) + value


def command(*elements):
    return b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in elements)


def us(number):
    return struct.pack("<H", number)


def the_command():
    """The command set of a C-STORE request."""
    whole = request()
    return whole[12 : 6 + int.from_bytes(whole[2:6], "big")]


class Peer:
    """A TCP connection with an association on it that says whatever it is told."""

    def __init__(self, node):
        self.connection = socket.create_connection(("127.0.0.1", node.port), 30)
        self.connection.sendall(associate_request("CT1", "OARLOCK"))
        assert self.answer()[0] == 0x02

    def say(self, words):
        """Send bytes."""
        self.connection.sendall(words)

    def answer(self):
        """Type and body of the next PDU; None where there is none."""
        header = self.exactly(6)
        return header and (header[0], self.exactly(int.from_bytes(header[2:], "big")))

    def exactly(self, count):
        """So many bytes; none where the connection ends."""
        received = b""
        while len(received) < count:
            part = self.connection.recv(count - len(received))
            if not part:
                return b""
            received += part
        return received

    def status(self):
        """Status of the response that comes next."""
        kind, body = self.answer()
        assert kind == 0x04
        elements, place = {}, 6
        while place < len(body):
            _, element, length = struct.unpack_from("<HHL", body, place)
            elements[element] = body[place + 8 : place + 8 + length]
            place += 8 + length
        return int.from_bytes(elements[0x0900], "little")


@pytest.fixture
def peer(node):
    peer = Peer(node)
    yield peer
    peer.connection.close()


VIOLATIONS = {
    "a fragment longer than its PDU": (pdu(4, struct.pack(">LBB", 500, 1, 3) + bytes(10)), 6),
    "a fragment of 1 byte": (pdu(4, struct.pack(">LBB", 1, 1, 3) + bytes(10)), 6),
    "a fragment of 4 GB": (pdu(4, struct.pack(">LBB", 2**32 - 1, 1, 3) + bytes(10)), 6),
    "an empty P-DATA-TF": (pdu(4, b""), 6),
    "bytes left over behind a fragment": (pdu(4, fragment(bytes(10), 1) + b"\0\0\0"), 6),
    "a PDU of 4 GB": (struct.pack(">BxL", 4, 2**32 - 1) + bytes(10), 6),
    "a PDU longer than agreed": (struct.pack(">BxL", 4, LONGEST + 1) + bytes(10), 6),
    "a context that was not accepted": (pdu(4, fragment(the_command(), 3, context=99)), 6),
    "data before a command": (pdu(4, fragment(bytes(10), 2)), 5),
    "a command within a data set": (
        pdu(4, fragment(the_command(), 3)) + pdu(4, fragment(the_command(), 3)),
        5,
    ),
    "data within a command": (pdu(4, fragment(the_command()[:20], 1) + fragment(bytes(10), 2)), 5),
    "a command without end": (b"".join(pdu(4, fragment(bytes(4096), 1)) for _ in range(5)), 6),
    "an element beyond the command": (pdu(4, fragment(struct.pack("<HHL", 0, 0x100, 99) + us(1), 3)), 6),
    "an element of another group": (pdu(4, fragment(struct.pack("<HHL", 8, 0x100, 2) + us(1), 3)), 6),
    "elements out of order": (pdu(4, fragment(command((0x110, us(1)), (0x100, us(1))), 3)), 6),
    "an element twice": (pdu(4, fragment(command((0x100, us(1)), (0x100, us(1))), 3)), 6),
    "a number of 4 bytes": (
        pdu(4, fragment(command((0x100, bytes(4)), (0x110, us(1)), (0x800, us(1))), 3)),
        6,
    ),
    "no Message ID": (pdu(4, fragment(command((0x100, us(1)), (0x800, us(1))), 3)), 6),
    "no Command Field": (pdu(4, fragment(command((0x110, us(1)), (0x800, us(1))), 3)), 6),
    "an empty command": (pdu(4, fragment(b"", 3)), 6),
    "a response to nothing": (
        pdu(4, fragment(command((0x100, us(0x8001)), (0x120, us(1)), (0x800, us(0x101)), (0x900, us(0))), 3)),
        5,
    ),
    "another A-ASSOCIATE-RQ": (associate_request("CT1", "OARLOCK"), 2),
    "an A-RELEASE-RP": (pdu(6, bytes(4)), 2),
    "a release of 5 bytes": (pdu(5, bytes(5)), 6),
    "a PDU that does not exist": (pdu(0x42, bytes(4)), 1),
}


@pytest.mark.parametrize(("words", "reason"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_what_breaks_the_protocol_is_aborted_with_the_reason_and_stores_nothing(node, peer, words, reason):
    with capture_logs() as logged:
        peer.say(words)
        assert peer.answer() == (0x07, bytes((0, 0, 2, reason)))
        assert peer.answer() == b""
        wait_until(lambda: not node.listener.open_associations, "the association to end")
    (line,) = [line for line in logged if line["event"] == "association_aborted"]
    assert line["reason"]
    assert node.queue.jobs() == []
    assert list(node.spool._root.glob("arriving/*")) == []


@pytest.mark.parametrize("size", [1, 2, 7, 131])
def test_a_message_may_be_cut_anywhere(node, peer, size):
    """Command and data set in fragments, and TCP segments, of a few bytes."""
    image, whole = an_image(), the_command()
    fragments = [
        fragment(content[start : start + size], control | (2 if start + size >= len(content) else 0))
        for content, control in ((whole, 1), (image.dataset_bytes, 0))
        for start in range(0, len(content), size)
    ]
    words = b"".join(pdu(4, b"".join(fragments[start : start + 5])) for start in range(0, len(fragments), 5))
    for start in range(0, len(words), 1000):
        peer.say(words[start : start + 1000])

    assert peer.status() == 0x0000
    (path,) = node.spool.instance_paths(1)
    assert path.read_bytes().endswith(image.dataset_bytes)


@pytest.mark.parametrize("size", [1, 7, 100, LONGEST])
def test_fragments_that_have_come_together_are_handed_on_together_and_whole(size):
    """Also where some are empty, and several stand in one PDU."""
    dataset = an_image().dataset_bytes
    values = [dataset[start : start + size] for start in range(0, len(dataset), size)]
    fragments = [fragment(value, 0) + fragment(b"", 0) for value in values] + [fragment(b"", 2)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(pdu(4, fragment(the_command(), 3)))
        for start in range(0, len(fragments), 3):
            theirs.sendall(pdu(4, b"".join(fragments[start : start + 3])))
        theirs.sendall(pdu(5, bytes(4)))
        wire = Wire(ours)
        wire.establish({CONTEXT_ID}, LONGEST, LONGEST, idle_seconds=5)
        wire.receive()
        pieces = [bytes(piece) for piece in wire.data_set()]
        with pytest.raises(Released):
            wire.receive()

    assert b"".join(pieces) == dataset
    assert len(pieces) <= 2


def test_requests_that_come_in_one_breath_are_answered_in_their_order(node, peer):
    peer.say(request(1) + request(2) + request(3) + pdu(5, bytes(4)))

    assert [peer.status() for _ in range(3)] == [0x0000] * 3
    assert peer.answer() == (0x06, bytes(4))
    assert [row.sop_instance_uid for row in node.queue.instances(1)] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]


@pytest.mark.parametrize(
    ("end", "answer"),
    [(pdu(5, bytes(4)), (0x06, bytes(4))), (pdu(7, bytes(4)), b"")],
    ids=["release", "abort"],
)
def test_an_image_that_is_broken_off_is_forgotten(node, peer, end, answer):
    peer.say(pdu(4, fragment(the_command(), 3) + fragment(bytes(100), 0)) + end)

    assert peer.answer() == answer
    wait_until(lambda: not node.listener.open_associations, "the association to end")
    assert node.queue.jobs() == []
    wait_until(lambda: not list(node.spool._root.glob("arriving/*")), "the half image to be forgotten")


def test_an_operation_that_does_not_exist_here_is_answered_so_and_the_association_goes_on(peer):
    find = command((0x002, b"1.2"), (0x100, us(0x20)), (0x110, us(7)), (0x800, us(1)))
    peer.say(pdu(4, fragment(find, 3)) + pdu(4, fragment(bytes(100), 2)) + request())

    assert peer.status() == 0x0211
    assert peer.status() == 0x0000


def test_an_image_on_the_context_of_a_verification_is_refused(node):
    with Sender(node.port, contexts=[(VERIFICATION, "1.2.840.10008.1.2.1")]) as sender:
        sender.association.accepted_contexts[0].abstract_syntax = CTImageStorage
        instance = ct_instance("1.2.3")
        answer = sender.store(
            CTImageStorage, instance.sop_instance_uid, "1.2.840.10008.1.2.1", instance.dataset_bytes
        )
    assert answer.status == 0x0122


def test_an_image_over_the_limit_is_refused_with_the_number_and_the_next_one_is_taken(tmp_path):
    limit = 2**20
    storage = {"root": tmp_path, "min_free_bytes": 0, "max_image_bytes": limit}
    huge = an_image(2, Rows=1024, Columns=1024, PixelData=bytes(2 * 2**20))
    with receiving_node(tmp_path, storage=storage) as node, capture_logs() as logged:
        with Sender(node.port) as sender:
            answer = sender.store(
                CTImageStorage, huge.sop_instance_uid, "1.2.840.10008.1.2.1", huge.dataset_bytes
            )
            assert (answer.status, answer.comment) == (
                0xC000,
                f"more than {limit} bytes, which is the limit here",
            )
            small = an_image(1)
            assert (
                sender.store(
                    CTImageStorage, small.sop_instance_uid, "1.2.840.10008.1.2.1", small.dataset_bytes
                ).status
                == 0x0000
            )
        assert [row.sop_instance_uid for row in node.queue.instances(1)] == [small.sop_instance_uid]
        assert list(tmp_path.glob("arriving/*")) == []
    (line,) = [line for line in logged if line["event"] == "instance_refused"]
    assert line["byte_count"] == len(huge.dataset_bytes)


def test_an_image_takes_no_more_memory_than_a_piece_of_it(node):
    """64 MB in one image, less than 2 MB in the process."""
    pixels = bytes(64 * 2**20)
    image = an_image(Rows=4096, Columns=8192, PixelData=pixels)
    association = Association(node.port, "CT1", "OARLOCK")
    encoded = store_request(image, 1, association.longest_pdu)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        assert association.store(encoded) == 0x0000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    association.release()
    assert peak - before < 2 * 2**20


def test_two_hundred_associations_at_once_send_two_hundred_series(tmp_path):
    series = [ct_series(2, f"1.2.50.{number}") for number in range(200)]
    everybody = threading.Barrier(len(series))
    failures = []

    def send(calling, instances):
        try:
            association = Association(node.port, calling, "OARLOCK")
            everybody.wait(60)
            for number, each in enumerate(instances, 1):
                image = Image(each.sop_instance_uid, each.dataset_bytes)
                assert association.store(store_request(image, number, association.longest_pdu)) == 0x0000
            association.release()
        except Exception as error:  # noqa: BLE001 -- told by the thread that waits
            failures.append(error)
            everybody.abort()

    with receiving_node(tmp_path, node={"max_associations": 200}) as node:
        threads = [
            threading.Thread(target=send, args=(f"CT{number}", own)) for number, own in enumerate(series)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        wait_until(lambda: not node.listener.open_associations, "associations to end")
        wait_until(lambda: not node.listener._bound[0].connections, "connections to end")
        assert [job.instance_count for job in node.queue.jobs(limit=1000)] == [2] * 200


def test_a_request_for_an_association_that_never_ends_is_bounded(node):
    with socket.create_connection(("127.0.0.1", node.port), 30) as connection:
        connection.sendall(struct.pack(">BxL", 1, 2**32 - 1) + bytes(1000))
        answer = connection.recv(100)
    assert answer == pdu(7, bytes((0, 0, 2, 6)))


def test_a_request_that_comes_byte_by_byte_must_still_come_in_time(node):
    """A byte now and then, and nobody waits longer for the rest."""
    words = associate_request("CT1", "OARLOCK")
    with socket.create_connection(("127.0.0.1", node.port), 30) as connection:
        for place in range(len(words)):
            connection.send(words[place : place + 1])
            if select.select([connection], [], [], 0.1)[0]:
                assert connection.recv(100) == b""
                return
    pytest.fail("the whole request was waited for")
