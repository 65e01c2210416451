"""The SCP on a real port: who gets in, what is accepted, and what no peer can do to it."""

import errno
import logging
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MRImageStorage,
)
from structlog.testing import capture_logs

from daemon.dicom_port import _BREATH_SECONDS, NetworkLimits
from daemon.errors import CannotStart
from daemon.jobs import JobState
from daemon.transfer_syntaxes import COMPRESSED, decodable_transfer_syntaxes
from tests.conditions import accepts_tcp, wait_until
from tests.fuzz import pdus
from tests.instances import ct_dataset, ct_instance, ct_series, encoded
from tests.nodes import receiving_node
from tests.peers import Sender, send
from tests.senders import store

VERIFICATION = "1.2.840.10008.1.1"
IMPATIENT = NetworkLimits(request_seconds=1, idle_seconds=1, drain_seconds=1)


@pytest.fixture
def node(tmp_path):
    with receiving_node(tmp_path) as node:
        yield node


@pytest.fixture
def impatient(tmp_path):
    with receiving_node(tmp_path, limits=IMPATIENT) as node:
        yield node


def completed(node):
    """Image counts of the jobs, in the order they were opened, once all associations have ended."""
    wait_until(lambda: not node.listener.open_associations, "associations to end")
    node.listener.tick()
    jobs = sorted(node.queue.jobs(), key=lambda job: job.id)
    assert {JobState.QUEUED} == {job.state for job in jobs}
    return [job.instance_count for job in jobs]


def echoes(node):
    with Sender(node.port, contexts=[(VERIFICATION, ImplicitVRLittleEndian)]) as sender:
        return sender.accepted and sender.echo() == 0x0000


def threads_below(number):
    return lambda: threading.active_count() <= number


# Who gets in


def test_a_verification_is_answered(node):
    assert echoes(node)


@pytest.mark.parametrize(
    ("sections", "calling", "called", "rejection"),
    [
        ({"peers": [{"ae_title": "CT1"}]}, "STRANGER", "OARLOCK", (1, 1, 3)),
        ({"peers": [{"ae_title": "CT1", "hosts": ["192.0.2.7"]}]}, "CT1", "OARLOCK", (1, 1, 3)),
        ({}, "CT1", "ANOTHER", (1, 1, 7)),
        ({"storage_minimum": 2**62}, "CT1", "OARLOCK", (2, 3, 1)),
    ],
    ids=["calling", "address", "called", "disk"],
)
def test_who_may_not_send_gets_a_rejection_with_its_reason(tmp_path, sections, calling, called, rejection):
    if minimum := sections.pop("storage_minimum", None):
        sections = {"storage": {"root": tmp_path, "min_free_bytes": minimum}}
    with receiving_node(tmp_path, **sections) as node, capture_logs() as logged:
        sender = Sender(node.port, calling, called)

        assert not sender.accepted
        assert sender.rejection == rejection
        wait_until(lambda: not node.listener._bound[0].connections, "the rejected connection to end")
    (line,) = [line for line in logged if line["event"] == "association_rejected"]
    assert (line["calling"], line["address"]) == (calling, "127.0.0.1")


def test_a_policy_that_fails_lets_nobody_in(node, monkeypatch):
    def broken():
        raise OSError("the spool is gone")

    monkeypatch.setattr(node.reception, "has_room", broken)

    assert Sender(node.port).rejection == (2, 3, 1)


def test_one_association_too_many_is_asked_to_come_again_and_may_when_another_has_ended(tmp_path):
    with receiving_node(tmp_path, node={"max_associations": 2}) as node:
        first, second = Sender(node.port), Sender(node.port)
        assert first.accepted
        assert second.accepted

        assert Sender(node.port).rejection == (2, 3, 2)

        second.release()
        wait_until(lambda: node.listener.open_associations == 1, "the released association to end")
        assert echoes(node)
        first.release()


def test_a_port_that_is_taken_is_said_so(tmp_path):
    with (
        receiving_node(tmp_path / "one") as node,
        pytest.raises(CannotStart, match=str(node.port)),
        receiving_node(tmp_path / "two", node={"port": node.port}),
    ):
        pytest.fail("two listeners on one port")


# What is accepted


@pytest.mark.parametrize("syntax", decodable_transfer_syntaxes(), ids=lambda syntax: syntax.name)
def test_ct_images_are_stored_as_received_in_every_transfer_syntax_that_can_be_decoded(node, syntax):
    dataset = ct_dataset("1.2.3")
    if syntax in COMPRESSED:
        dataset.PixelData = encapsulate([b"whatever the encoder wrote"])
        dataset["PixelData"].is_undefined_length = True
    instance = encoded(dataset, syntax)
    with Sender(node.port, contexts=[(CTImageStorage, syntax)]) as sender:
        assert store(sender, instance).status == 0x0000

    (path,) = node.spool.instance_paths(1)
    assert path.read_bytes().endswith(instance.dataset_bytes)
    assert node.queue.instances(1)[0].transfer_syntax_uid == syntax


def test_all_compressed_transfer_syntaxes_are_decodable_here():
    assert len(decodable_transfer_syntaxes()) == 13


@pytest.mark.parametrize(
    ("sop_class", "syntax"),
    [
        (MRImageStorage, ExplicitVRLittleEndian),
        (EnhancedCTImageStorage, ExplicitVRLittleEndian),
        (CTImageStorage, ExplicitVRBigEndian),
        (CTImageStorage, JPEGBaseline8Bit),
    ],
)
def test_what_cannot_be_contoured_is_refused_at_its_presentation_context(node, sop_class, syntax):
    contexts = [(sop_class, syntax), (VERIFICATION, ImplicitVRLittleEndian)]
    with Sender(node.port, contexts=contexts) as sender:
        assert [context.abstract_syntax for context in sender.association.accepted_contexts] == [VERIFICATION]


def test_the_sender_reads_in_the_error_comment_why_its_image_was_refused(node):
    with Sender(node.port) as sender:
        response = store(sender, ct_instance("1.2.3", Modality="MR"))

    assert (response.status, response.comment) == (0xA900, "Modality is not CT")


def test_an_association_goes_on_after_an_image_that_cannot_be_read(node):
    with Sender(node.port) as sender:
        instance = ct_instance("1.2.3")
        zeros = sender.store(CTImageStorage, instance.sop_instance_uid, ExplicitVRLittleEndian, bytes(20))
        assert zeros.status == 0xC000
        assert store(sender, instance).status == 0x0000


def test_an_association_offers_the_configured_pdu_size(tmp_path):
    with receiving_node(tmp_path, node={"max_pdu_bytes": 65536}) as node, Sender(node.port) as sender:
        assert sender.association.acceptor.maximum_length == 65536


# Ways a series arrives


def test_one_image_per_association_ends_as_one_job(node):
    for instance in ct_series(25):
        with Sender(node.port) as sender:
            assert store(sender, instance).status == 0x0000

    assert completed(node) == [25]


def test_one_study_over_two_associations_and_interleaved_series_end_as_the_right_jobs(node):
    one, other = ct_series(6, "1.2.10.1"), ct_series(6, "1.2.10.2")
    with Sender(node.port) as first, Sender(node.port) as second:
        for index in range(6):
            senders = (first, second) if index < 3 else (second, first)
            assert store(senders[0], one[index]).status == 0x0000
            assert store(senders[1], other[index]).status == 0x0000
            node.listener.tick()
        assert {JobState.RECEIVING} == {job.state for job in node.queue.jobs()}

    assert completed(node) == [6, 6]


def test_many_senders_at_once_and_two_of_the_same_series_end_as_the_right_jobs(node):
    """Eight associations send four series of 12 images; one series comes from two AE titles as well."""
    series = [ct_series(12, f"1.2.20.{number}") for number in range(4)]

    def send_part(calling, instances):
        with Sender(node.port, calling) as sender:
            return {store(sender, instance).status for instance in instances}

    tasks = [("CT1", part) for whole in series for part in (whole[:8], whole[4:])]
    tasks += [("PACS", series[0][:6]), ("PACS", series[0][6:])]
    with ThreadPoolExecutor(len(tasks)) as pool:
        statuses = list(pool.map(lambda task: send_part(*task), tasks))

    assert statuses == [{0x0000}] * len(tasks)
    assert sorted(completed(node)) == [12] * 5
    assert len({(job.calling_ae_title, job.series_instance_uid) for job in node.queue.jobs()}) == 5


def test_what_was_acknowledged_before_an_abort_is_kept_and_the_rest_joins_it(tmp_path):
    instances = ct_series(6, "1.2.30.1")
    with receiving_node(tmp_path, series={"quiet_seconds": 3600}) as node:
        sender = Sender(node.port)
        for instance in instances[:3]:
            assert store(sender, instance).status == 0x0000
        sender.abort()
        wait_until(lambda: not node.listener.open_associations, "the abort to be noticed")
        node.listener.tick()
        assert [job.state for job in node.queue.jobs()] == [JobState.RECEIVING]

        paths = [instance.write(tmp_path) for instance in instances]
        assert send(paths, port=node.port) == [0] * 6
        assert [job.instance_count for job in node.queue.jobs()] == [6]


@pytest.mark.parametrize("end", [Sender.release, Sender.abort, Sender.vanish])
def test_an_open_association_holds_its_series_up_until_it_ends_however_it_ends(node, end):
    sender = Sender(node.port)
    assert store(sender, ct_instance("1.2.3")).status == 0x0000
    node.listener.tick()
    assert node.queue.job(1).state is JobState.RECEIVING

    end(sender)

    assert completed(node) == [1]


def test_a_series_goes_on_after_a_restart_of_the_listener(tmp_path):
    instances = ct_series(4, "1.2.40.1")
    for part in (instances[:2], instances[2:]):
        with receiving_node(tmp_path, series={"quiet_seconds": 3600}) as node, Sender(node.port) as sender:
            for instance in part:
                assert store(sender, instance).status == 0x0000

    with receiving_node(tmp_path) as node:
        assert completed(node) == [4]


# What no peer can do


def test_health_checks_leave_neither_threads_nor_sockets_and_the_port_answers(node):
    """300 TCP connections opened and closed without a word."""
    threads, files = threading.active_count(), psutil.Process().num_fds()
    for _ in range(300):
        assert accepts_tcp(node.port)

    assert echoes(node)
    # Far below the ARTIM timer: a closed connection must not keep its thread until then.
    wait_until(threads_below(threads), "the threads of closed connections to end", limit=10)
    wait_until(lambda: not node.listener._bound[0].connections, "connections to be forgotten")
    wait_until(lambda: psutil.Process().num_fds() <= files, "sockets to be closed")
    assert echoes(node)


def test_connections_that_stay_open_without_a_word_are_closed_and_keep_nobody_out(impatient):
    """50 of them, more than twice the association limit."""
    threads = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", impatient.port)) for _ in range(50)]

    assert echoes(impatient)
    for connection in silent:
        connection.settimeout(20)
        assert connection.recv(1) == b""
        connection.close()
    wait_until(threads_below(threads), "the threads of silent connections to end")
    assert echoes(impatient)


def test_associations_that_say_nothing_are_aborted_and_give_their_places_back(impatient):
    """50 ask, 20 are taken, 30 told to come again; a second of silence later all places are free."""
    threads = threading.active_count()
    senders = [Sender(impatient.port) for _ in range(50)]
    assert sum(sender.accepted for sender in senders) >= 20
    assert {None, (2, 3, 2)} >= {sender.rejection for sender in senders}

    wait_until(lambda: not impatient.listener.open_associations, "silent associations to be aborted")
    for sender in senders:
        sender.let_go()
    wait_until(threads_below(threads), "the threads of silent associations to end")
    assert echoes(impatient)


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: oarlock\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\x01\x00\x00\x00",
        b"\x01\x00\x00\x00\x10\x00" + b"half an A-ASSOCIATE-RQ",
        b"\x01\x00\x00\x00\x00\x44\x00\x01" + bytes(66),
        b"\x04\x00\x00\x00\x00\x06" + bytes(6),
        b"\x07\x00\x00\x00\x00\x04" + bytes(4),
        bytes(2000),
    ],
    ids=["http", "tls", "half a header", "half a PDU", "no items", "P-DATA first", "A-ABORT first", "zeros"],
)
def test_what_is_no_dicom_ends_without_a_trace(impatient, words):
    threads = threading.active_count()
    with socket.create_connection(("127.0.0.1", impatient.port)) as connection:
        connection.settimeout(20)
        connection.sendall(words)
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass

    wait_until(threads_below(threads), "the threads of the connection to end")
    assert echoes(impatient)


def test_the_log_knows_tls_on_the_port_without_it(node):
    with (
        capture_logs() as events,
        socket.create_connection(("127.0.0.1", node.port)) as plain,
    ):
        plain.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))
        wait_until(lambda: events, "the log")

    assert [each["reason"] for each in events if each["event"] == "no_association"] == [
        "a PDU 16H, which is how TLS begins: TLS where plain DICOM is spoken"
    ]


def test_a_sender_that_dies_within_an_image_is_aborted_and_its_image_forgotten(impatient):
    """Half a P-DATA-TF PDU, then silence on an open socket: a read without timeout would wait for ever."""
    threads = threading.active_count()
    sender = Sender(impatient.port)
    sender.association.dul.socket.socket.sendall(struct.pack(">BBL", 4, 0, 5000) + bytes(100))

    wait_until(lambda: not impatient.listener.open_associations, "the dead association to be aborted")
    sender.let_go()
    wait_until(threads_below(threads), "its threads to end")
    assert impatient.queue.jobs() == []


def test_a_peer_that_resets_after_its_release_is_no_fault(node):
    with capture_logs() as lines:
        with socket.create_connection(("127.0.0.1", node.port)) as connection:
            connection.sendall(pdus.associate_rq())
            assert connection.recv(65536)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(pdus.pdu(pdus.RELEASE_RQ, bytes(4)))
        wait_until(node.listener._is_deserted, "the connection to be forgotten")

    events = {line["event"] for line in lines}
    assert "association_released" in events
    assert "connection_failed" not in events


def test_a_release_within_an_image_has_its_reason_in_the_log(node):
    """A sender that cuts its series off must be found; who said all before is no news."""
    store = [(0x0002, pdus.CT), (0x0100, pdus.short(1)), (0x0110, pdus.short(1)), (0x0800, pdus.short(0))]
    with capture_logs() as lines, socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(pdus.associate_rq())
        assert connection.recv(65536)
        begun = pdus.p_data(3, 3, pdus.command(*store, (0x1000, b"1.2.3"))) + pdus.p_data(3, 0, bytes(1000))
        connection.sendall(begun + pdus.pdu(pdus.RELEASE_RQ, bytes(4)))
        wait_until(node.listener._is_deserted, "the end")

    (end,) = (line for line in lines if line["event"] == "association_released")
    assert (end["log_level"], end["reason"]) == ("warning", "released within a message")


def test_without_descriptors_it_pauses_before_it_tries_again(tmp_path, monkeypatch):
    pauses, failures = [], [OSError(errno.EMFILE, "Too many open files")] * 3
    accept = socket.socket.accept

    def scarce(listening):
        if failures:
            raise failures.pop()
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", scarce)
    monkeypatch.setattr("daemon.dicom_port.sleep", pauses.append)
    with receiving_node(tmp_path) as node, Sender(node.port) as sender:
        assert sender.accepted

    assert pauses == [_BREATH_SECONDS] * 3


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("from_host", ["127.0.0.1", "::1"])
def test_both_versions_of_ip_come_to_one_port_and_addresses_are_known_as_they_are_written(
    tmp_path, from_host
):
    peers = [{"ae_title": "SENDER", "hosts": [from_host]}]
    with receiving_node(tmp_path, node={"host": "::"}, peers=peers) as node:
        with Sender(node.port, host=from_host) as sender:
            assert sender.accepted
        other = {"127.0.0.1": "::1", "::1": "127.0.0.1"}[from_host]
        with Sender(node.port, host=other) as stranger:
            assert not stranger.accepted


def test_connections_beyond_all_limits_are_closed_unheard(tmp_path):
    limits = NetworkLimits(spare_connections=3)
    with receiving_node(tmp_path, limits=limits, node={"max_associations": 1}) as node:
        silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(4)]
        wait_until(lambda: len(node.listener._bound[0].connections) == 4, "four connections")

        with socket.create_connection(("127.0.0.1", node.port)) as fifth:
            fifth.settimeout(20)
            assert fifth.recv(1) == b""

        for connection in silent:
            connection.close()
        wait_until(lambda: not node.listener._bound[0].connections, "connections to end")
        assert echoes(node)


# The end


def test_a_stop_lets_a_running_association_finish_and_takes_no_new_one(tmp_path):
    threads = threading.active_count()
    instances = ct_series(3)
    with receiving_node(tmp_path) as node:
        sender = Sender(node.port)
        assert store(sender, instances[0]).status == 0x0000
        port = node.port
        stopping = threading.Thread(target=node.listener.stop)
        stopping.start()
        wait_until(lambda: not accepts_tcp(port), "the port to close")

        assert [store(sender, instance).status for instance in instances[1:]] == [0x0000, 0x0000]

        sender.release()
        stopping.join(20)
        assert not stopping.is_alive()
        assert [job.instance_count for job in node.queue.jobs()] == [3]
    wait_until(threads_below(threads), "all threads to end")


def test_a_stop_aborts_what_does_not_finish_and_hangs_up_on_who_says_nothing(tmp_path):
    threads = threading.active_count()
    with receiving_node(tmp_path, limits=NetworkLimits(drain_seconds=0.2)) as node:
        mute = socket.create_connection(("127.0.0.1", node.port))
        sender = Sender(node.port)
        wait_until(lambda: len(node.listener._bound[0].connections) == 2, "both connections")
        began = time.monotonic()

        node.listener.stop()

        assert time.monotonic() - began < 10
        mute.settimeout(20)
        assert mute.recv(1) == b""
        mute.close()
        sender.let_go()
        assert sender.association.is_aborted
    wait_until(threads_below(threads), "all threads to end")


# What it says and needs


def test_the_log_tells_the_life_of_an_association_and_no_library_quotes_the_data_set(node, caplog):
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logged:
        with Sender(node.port, "CT1") as sender:
            store(sender, ct_instance("1.2.3"))
            store(sender, ct_instance("1.2.3", 2, Modality="MR"))
        wait_until(lambda: not node.listener.open_associations, "the association to end")

    assert [line["event"] for line in logged] == [
        "association_accepted",
        "instance_stored",
        "instance_refused",
        "association_released",
    ]
    assert (logged[-1]["stored"], logged[-1]["refused"]) == (1, 1)
    assert not any(secret in f"{logged}{caplog.text}" for secret in ("Müller", "P-4711", "A-17"))


def test_the_listener_needs_no_torch():
    program = "import sys, daemon.listener; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_status_and_health_say_what_is_going_on(node):
    with Sender(node.port):
        assert node.listener.is_healthy()
        assert node.listener.status() == f"port {node.port}: 1 of 20 associations"
    node.listener.stop()
    assert not node.listener.is_healthy()
