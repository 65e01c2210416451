"""One object goes to one destination, and only its status is believed; peers are real."""

import hashlib
import socket
import threading
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from daemon.config import Destination
from daemon.delivery import echo, send
from daemon.outgoing_association import OutcomeKind, Timeouts
from daemon.result_header import encode
from daemon.structure_set import build_structure_set
from tests.conditions import wait_until
from tests.peers import ReceivingPeer, free_port, orthanc, silent_port, storescp
from tests.phantom import make_grid
from tests.raw_receivers import over_a_slow_link, raw_receiver, stops_reading
from tests.structure_set_samples import IDENTITY, MODEL, ct_volume, organ_masks, rois_of

# pynetdicom leaves the socket of a failed connection to the garbage collector, which Python remarks upon.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

SHORT = Timeouts(connection=1, association=1, response=1, stall=1)


@pytest.fixture(scope="module")
def structure_set(tmp_path_factory) -> Path:
    """A structure set as it lies in the spool."""
    grid = make_grid()
    made = build_structure_set(ct_volume(grid), rois_of(organ_masks(grid), grid), IDENTITY, MODEL)
    path = tmp_path_factory.mktemp("result") / "structure_set.dcm"
    path.write_bytes(encode(made))
    return path


def destination(port: int, ae_title: str = "RECEIVER", host: str = "127.0.0.1") -> Destination:
    return Destination(name="tps", ae_title=ae_title, host=host, port=port)


def dataset_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_success_delivers_the_very_bytes_of_the_file_at_every_repeat(structure_set):
    with ReceivingPeer() as peer:
        outcomes = [send([structure_set], destination(peer.port), "OARLOCK") for _ in range(2)]

    assert [(o.kind, o.status, o.detail) for o in outcomes] == [(OutcomeKind.SENT, 0x0000, "")] * 2
    for received in peer.received:
        assert dataset_bytes(structure_set) == received.dataset_bytes
        assert ImplicitVRLittleEndian == received.transfer_syntax_uid
        assert IDENTITY.sop_instance_uid == received.sop_instance_uid
        assert (received.calling, received.called) == ("OARLOCK", "RECEIVER")


def test_peer_that_takes_only_explicit_vr_gets_the_same_values(structure_set):
    with ReceivingPeer(transfer_syntaxes=[ExplicitVRLittleEndian]) as peer:
        outcome = send([structure_set], destination(peer.port), "OARLOCK")

    assert outcome.sent
    received = dcmread(BytesIO(peer.received[0].file_bytes))
    assert ExplicitVRLittleEndian == received.file_meta.TransferSyntaxUID
    original = dcmread(structure_set)
    assert original == received
    assert "UN" not in {element.VR for element in received.iterall()}
    assert [
        bytes(contour.get_item("ContourData").value)
        for roi in dcmread(structure_set).ROIContourSequence
        for contour in roi.ContourSequence
    ] == [
        bytes(contour.get_item("ContourData").value)
        for roi in dcmread(BytesIO(peer.received[0].file_bytes)).ROIContourSequence
        for contour in roi.ContourSequence
    ]


def test_contour_too_long_for_explicit_vr_is_not_sent_as_something_else(structure_set, tmp_path):
    dataset = dcmread(structure_set)
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = ["-123.45"] * 9000
    path = tmp_path / "long.dcm"
    dataset.save_as(path)

    with ReceivingPeer(transfer_syntaxes=[ExplicitVRLittleEndian]) as peer:
        outcome = send([path], destination(peer.port), "OARLOCK")

    assert OutcomeKind.CONTEXT is outcome.kind
    assert "Implicit VR Little Endian" in outcome.detail
    assert peer.requests == 0


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0xB123, 0x0107, 0x0116, 0x0111, 0x0001])
def test_warning_and_duplicate_count_as_delivered_and_say_so(structure_set, status):
    with ReceivingPeer(statuses=[status], comment="look here") as peer:
        outcome = send([structure_set], destination(peer.port), "OARLOCK")

    assert (OutcomeKind.SENT, status) == (outcome.kind, outcome.status)
    assert f"warning 0x{status:04X}" in outcome.detail
    assert "look here" in outcome.detail


def test_of_several_objects_the_remark_about_the_first_is_not_lost(structure_set, tmp_path):
    other = tmp_path / "other.dcm"
    dataset = dcmread(structure_set)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.999"
    dataset.save_as(other)

    with ReceivingPeer(statuses=[0xB006]) as peer:
        outcome = send([structure_set, other], destination(peer.port), "OARLOCK")

    assert (outcome.sent, outcome.status) == (True, 0xB006)
    assert "RT Structure Set Storage: warning 0xB006" in outcome.detail


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xA700, "make room"),
        (0xA901, "does not match its SOP class"),
        (0xC000, "cannot understand"),
        (0x0110, "processing failure"),
        (0x0122, "does not store this SOP class"),
        (0x0124, "allow its AE title"),
        (0xFFFE, "not define"),
    ],
)
def test_failure_status_is_told_with_what_to_do(structure_set, status, words):
    with ReceivingPeer(statuses=[status], comment="disk 3 is full") as peer:
        outcome = send([structure_set], destination(peer.port), "OARLOCK")

    assert (OutcomeKind.STATUS, status) == (outcome.kind, outcome.status)
    assert words in outcome.detail
    assert "disk 3 is full" in outcome.detail


def test_refused_port_is_a_connection_failure(structure_set):
    outcome = send([structure_set], destination(free_port()), "OARLOCK", SHORT)

    assert OutcomeKind.CONNECTION is outcome.kind
    assert "refused or unreachable" in outcome.detail
    assert "host and port in the configuration" in outcome.detail


def test_unknown_host_name_is_a_connection_failure(structure_set):
    outcome = send([structure_set], destination(104, host="no-such-host.invalid"), "OARLOCK", SHORT)

    assert OutcomeKind.CONNECTION is outcome.kind


def test_dead_host_costs_the_connection_timeout(structure_set):
    """A full backlog drops SYNs exactly as a host that is switched off does."""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        dead.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.settimeout(0)
            filler.connect_ex(dead.getsockname())
        outcome = send([structure_set], destination(dead.getsockname()[1]), "OARLOCK", SHORT)
        for filler in fillers:
            filler.close()

    assert OutcomeKind.CONNECTION is outcome.kind
    assert "no answer within 1 s" in outcome.detail


@pytest.mark.parametrize(
    ("reject", "words"),
    [
        ((1, 1, 3), "allow the calling AE title OARLOCK"),
        ((1, 1, 7), "another AE title than RECEIVER"),
        ((2, 3, 2), "too many associations"),
        ((2, 3, 1), "busy"),
        ((1, 2, 2), "see the destination's log"),
    ],
)
def test_rejected_association_is_told_with_its_reason(structure_set, reject, words):
    with ReceivingPeer(reject=reject) as peer:
        outcome = send([structure_set], destination(peer.port), "OARLOCK")

    assert OutcomeKind.ASSOCIATION is outcome.kind
    assert words in outcome.detail


def test_port_without_dicom_is_an_association_failure(structure_set):
    with silent_port() as port:
        outcome = send([structure_set], destination(port), "OARLOCK", SHORT)

    assert OutcomeKind.ASSOCIATION is outcome.kind
    assert "did not answer it within 1 s" in outcome.detail


def test_refused_sop_class_is_a_context_failure(structure_set):
    with ReceivingPeer(sop_classes=[CTImageStorage]) as peer:
        outcome = send([structure_set], destination(peer.port), "OARLOCK")

    assert OutcomeKind.CONTEXT is outcome.kind
    assert "allow OARLOCK to store it there" in outcome.detail


def test_abort_before_the_status_leaves_it_unknown(structure_set):
    with ReceivingPeer(abort_at=1) as peer:
        outcome = send([structure_set], destination(peer.port), "OARLOCK")

    assert (outcome.kind, outcome.status) == (OutcomeKind.UNKNOWN, None)
    assert "broke off" in outcome.detail


def test_peer_that_never_answers_is_given_up_as_unknown(structure_set):
    with ReceivingPeer(mute=True) as peer:
        outcome = send([structure_set], destination(peer.port), "OARLOCK", SHORT)

    assert OutcomeKind.UNKNOWN is outcome.kind
    assert "gave no status within" in outcome.detail


def test_a_link_on_which_the_object_takes_longer_than_a_status_may_delivers_it(structure_set, tmp_path):
    """Else no try would ever get through, and the history would blame the destination."""
    dataset = dcmread(structure_set)
    dataset.add_new("EncapsulatedDocument", "OB", bytes(600_000))
    path = tmp_path / "large.dcm"
    dataset.save_as(path)

    with ReceivingPeer() as peer, raw_receiver(over_a_slow_link(peer.port, 200_000)) as port:
        outcome = send([path], destination(port), "OARLOCK", SHORT)

    assert (outcome.kind, outcome.status) == (OutcomeKind.SENT, 0x0000)


def test_peer_that_stops_reading_in_the_middle_does_not_hold_the_sender(structure_set, tmp_path):
    """A peer whose process is frozen leaves the connection open and its buffers full."""
    dataset = dcmread(structure_set)
    dataset.add_new("EncapsulatedDocument", "OB", bytes(30_000_000))
    path = tmp_path / "large.dcm"
    dataset.save_as(path)
    threads = threading.active_count()

    with raw_receiver(stops_reading) as port:
        outcome = send([path], destination(port), "OARLOCK", SHORT)

    assert OutcomeKind.UNKNOWN is outcome.kind
    wait_until(lambda: threading.active_count() <= threads, "the threads of the association to end")


def test_missing_file_is_not_blamed_on_the_destination(tmp_path):
    with pytest.raises(FileNotFoundError):
        send([tmp_path / "gone.dcm"], destination(1), "OARLOCK", SHORT)


def test_dcmtk_stores_the_bytes_of_the_file(structure_set, tmp_path):
    with storescp(tmp_path / "in") as peer:
        outcome = send([structure_set], destination(peer.port, peer.ae_title), "OARLOCK")

        assert outcome.sent
        (stored,) = peer.files()
        assert _sha256(dataset_bytes(structure_set)) == _sha256(dataset_bytes(stored))


def test_orthanc_stores_it_and_takes_the_same_object_again(structure_set, tmp_path):
    with orthanc(tmp_path / "orthanc") as peer:
        outcomes = [send([structure_set], destination(peer.port, peer.ae_title), "OARLOCK") for _ in range(2)]

        assert [outcome.sent for outcome in outcomes] == [True, True]
        (stored,) = peer.instances()
        assert dcmread(structure_set) == dcmread(BytesIO(peer.instance_bytes(stored)))


def test_echo_asks_whether_a_destination_is_there():
    with ReceivingPeer() as peer:
        outcome = echo(destination(peer.port), "OARLOCK")

    assert (outcome.kind, outcome.status) == (OutcomeKind.SENT, 0x0000)
    assert peer.echoes == 1
    assert OutcomeKind.CONNECTION is echo(destination(free_port()), "OARLOCK", SHORT).kind


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
