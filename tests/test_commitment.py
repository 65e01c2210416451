"""Storage commitment: yes only for what is on disk with the bytes that were acknowledged, and always an answer."""

import shutil
import ssl
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event
from unittest.mock import patch

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from daemon.commitment import FailureReason, Reference, examine, from_text
from daemon.commitment_reporter import CommitmentReporter
from daemon.commitments import Commitments
from tests.certificates import Authority
from tests.nodes import a_config, receiving_node
from tests.peers import LIMIT_SECONDS, free_port, send, wait_until
from tests.phantom import write_series

pytestmark = pytest.mark.filterwarnings(
    # pynetdicom leaves the socket of a failed connection to the garbage collector, which Python remarks upon.
    "ignore:Exception ignored in. <:pytest.PytestUnraisableExceptionWarning"
)


class Asking:
    """An archive's client that wants to delete its images, and hears the answers."""

    def __init__(self):
        self.answers = []
        self.heard = Event()

    def __call__(self, event):
        """Hear an N-EVENT-REPORT."""
        self.answers.append((event.event_type, event.event_information))
        self.heard.set()
        return 0x0000, None

    def ask(self, port, references, transaction, *, stay=True, action_type=1):
        """Send an N-ACTION; returns its status."""
        ae = AE("CT1")
        ae.add_requested_context(StorageCommitmentPushModel)
        association = ae.associate(
            "127.0.0.1", port, ae_title="OARLOCK", evt_handlers=[(evt.EVT_N_EVENT_REPORT, self)]
        )
        assert association.is_established
        status, _ = association.send_n_action(
            question(references, transaction),
            action_type,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )
        if stay and status.Status == 0x0000:
            assert self.heard.wait(LIMIT_SECONDS)
        association.release()
        return status.Status


def question(references, transaction):
    dataset = Dataset()
    dataset.TransactionUID = transaction
    dataset.ReferencedSOPSequence = []
    for sop_class, sop_instance in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
        dataset.ReferencedSOPSequence.append(item)
    return dataset


def failures(information):
    return {
        item.ReferencedSOPInstanceUID: FailureReason(item.FailureReason)
        for item in information.FailedSOPSequence
    }


@contextmanager
def node_with_images(root):
    paths = write_series(root / "ct")[:3]
    with receiving_node(root / "node", series={"quiet_seconds": 3600}) as node:
        assert set(send(paths, port=node.port, calling="CT1", called="OARLOCK")) == {0}
        yield node, [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths]


def test_what_is_on_disk_is_committed_on_the_same_association(tmp_path):
    with node_with_images(tmp_path) as (node, uids):
        client = Asking()
        transaction = generate_uid()
        assert client.ask(node.port, [(CTImageStorage, uid) for uid in uids], transaction) == 0x0000

    ((event_type, information),) = client.answers
    assert (event_type, information.TransactionUID) == (1, transaction)
    assert [item.ReferencedSOPInstanceUID for item in information.ReferencedSOPSequence] == uids
    assert "FailedSOPSequence" not in information


def test_what_is_gone_altered_unknown_or_of_another_class_is_not(tmp_path):
    with node_with_images(tmp_path) as (node, (gone, altered, other)):
        (job,) = node.queue.jobs()
        node.spool.instance_path(job.id, gone).unlink()
        path = node.spool.instance_path(job.id, altered)
        path.write_bytes(path.read_bytes()[:-2] + b"\0\1")
        client = Asking()
        references = [(CTImageStorage, gone), (CTImageStorage, altered), (MRImageStorage, other)]
        client.ask(node.port, [*references, (CTImageStorage, "1.2.3.999")], generate_uid())

    ((event_type, information),) = client.answers
    assert event_type == 2
    assert "ReferencedSOPSequence" not in information
    assert failures(information) == {
        gone: FailureReason.PROCESSING_FAILURE,
        altered: FailureReason.PROCESSING_FAILURE,
        other: FailureReason.CLASS_INSTANCE_CONFLICT,
        "1.2.3.999": FailureReason.NO_SUCH_OBJECT_INSTANCE,
    }


def test_bytes_that_were_refused_are_not_committed_by_those_that_were_not(tmp_path):
    """Whoever sent other bytes under one UID may mean these, and delete the only copy."""
    with node_with_images(tmp_path) as (node, (first, second, _)):
        path = node.spool.instance_path(1, first)
        corrected = dcmread(path)
        corrected.PixelData = bytes(len(corrected.PixelData))
        corrected.save_as(tmp_path / "corrected.dcm")
        assert send([tmp_path / "corrected.dcm"], port=node.port, calling="CT1", called="OARLOCK") == [0x0111]
        references = [Reference(CTImageStorage, uid) for uid in (first, second)]

        verdict = examine(node.queue, node.spool, references, "CT1")

        assert verdict.committed == (references[1],)
        assert verdict.failed == ((references[0], FailureReason.PROCESSING_FAILURE),)
        assert not examine(node.queue, node.spool, references, "CT2").failed


def test_an_answer_that_is_taken_late_is_taken(tmp_path):
    """A slow archive's response ends neither the association nor the request."""
    answered, reported = [], []
    with node_with_images(tmp_path) as (node, uids):
        told = patch.object(
            node.queue, "commitment_answered", side_effect=lambda *all_: answered.append(all_)
        )
        with told:
            commitments = Commitments(node.queue, node.spool, lambda: datetime.now(UTC))
            pending = commitments.accept(
                question([(CTImageStorage, uid) for uid in uids], "1.2.3"), ("CT1", "OARLOCK"), "127.0.0.1"
            )
            commitments.answer(pending, lambda *told: reported.append(told))
            ((_, event_type, late),) = reported
            assert (event_type, answered) == (1, [])
            late(0x0110)
            assert answered == []
            late(0x0000)
    assert answered == [(pending.number, "answered on the association of the request")]


def test_a_client_that_hangs_up_is_called_back(tmp_path):
    client = Asking()
    ae = AE("CT1")
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, client)])
    port = server.server_address[1]
    try:
        with node_with_images(tmp_path) as (node, uids):
            reference = f"{CTImageStorage} {uids[0]}"
            node.queue.keep_commitment("1.2.7", ("CT1", "OARLOCK"), "127.0.0.1", reference, datetime.now(UTC))
            reporter = reporter_of(node, peers=[{"ae_title": "CT1", "port": port}])
            assert reporter.report_next()
            assert not reporter.report_next()
    finally:
        server.shutdown()

    ((event_type, information),) = client.answers
    assert (event_type, information.TransactionUID) == (1, "1.2.7")


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is needed")
@pytest.mark.parametrize("known", [True, False])
def test_a_pinned_client_is_called_back_by_tls_with_its_own_certificate_or_not_at_all(tmp_path, known):
    authority = Authority(tmp_path / "pki")
    own, expected, other = (authority.sign(name) for name in ("oarlock", "client", "other"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown = expected if known else other
    context.load_cert_chain(shown.certificate, shown.key)
    client, ae = Asking(), AE("CT1")
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=[(evt.EVT_N_EVENT_REPORT, client)]
    )
    peer = {"ae_title": "CT1", "port": server.server_address[1], "tls": True}
    tls = {"certificate": own.certificate, "key": own.key, "authorities": authority.own.certificate}
    try:
        with node_with_images(tmp_path) as (node, uids):
            reference = f"{CTImageStorage} {uids[0]}"
            node.queue.keep_commitment("1.2.7", ("CT1", "OARLOCK"), "127.0.0.1", reference, datetime.now(UTC))
            peers = [peer | {"certificates_sha256": [expected.sha256]}]
            assert reporter_of(node, peers=peers, tls=tls).report_next()
    finally:
        server.shutdown()

    assert [kind for kind, _ in client.answers] == ([1] if known else [])


def test_a_pinned_client_is_never_called_back_without_tls(tmp_path):
    pinned = {"ae_title": "CT1", "port": 104, "certificates_sha256": ["a" * 64]}
    tls = {"certificate": "a.crt", "key": "a.key", "require_peer_certificate": False}
    with pytest.raises(ValueError, match="tls = true is missing"):
        a_config(tmp_path, peers=[pinned], tls=tls)
    with pytest.raises(ValueError, match=r"\[tls\] is missing, which peer"):
        a_config(tmp_path, peers=[{"ae_title": "CT1", "port": 104, "tls": True}])


def reporter_of(node, **sections):
    config = a_config(node.spool.result_path(1).parent, **sections)
    return CommitmentReporter(node.queue, node.spool, lambda: config, lambda: datetime.now(UTC), lambda: 1.0)


def test_an_answer_that_nobody_takes_is_tried_again(tmp_path):
    with node_with_images(tmp_path) as (node, uids):
        reference = f"{CTImageStorage} {uids[0]}"
        node.queue.keep_commitment("1.2.7", ("CT1", "OARLOCK"), "127.0.0.1", reference, datetime.now(UTC))
        reporter = reporter_of(node, peers=[{"ae_title": "CT1", "port": free_port()}])

        assert reporter.report_next()
        assert not reporter.report_next()  # not due yet

        later = node.queue.claim_commitment(datetime.max.replace(tzinfo=UTC)) or None
    assert later is None


def test_a_request_survives_a_restart_and_is_answered_by_the_worker_alone(tmp_path):
    """Accepted is written down first: what the listener could not answer is due later."""
    with node_with_images(tmp_path) as (node, uids):
        client = Asking()
        client.ask(node.port, [(CTImageStorage, uids[0])], "1.2.8", stay=True)
        wait_until(
            lambda: node.queue.claim_commitment(datetime.now(UTC)) is None, "the request to be answered"
        )


@pytest.mark.parametrize("action_type", [2, 3])
def test_another_action_is_refused(tmp_path, action_type):
    with node_with_images(tmp_path) as (node, uids):
        answer = Asking().ask(node.port, [(CTImageStorage, uids[0])], "1.2.9", action_type=action_type)
    assert answer == 0x0123


def test_a_request_without_references_is_refused(tmp_path):
    with node_with_images(tmp_path) as (node, _):
        assert Asking().ask(node.port, [], "1.2.9") == 0x0110


@pytest.mark.parametrize("reference", [(CTImageStorage, "1.2\n.3"), ("CT", "1.2.3"), (CTImageStorage, "")])
def test_a_reference_that_is_no_uid_is_refused(tmp_path, reference):
    with node_with_images(tmp_path) as (node, uids), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom sees it too
        asked = [(CTImageStorage, uids[0]), reference]
        assert Asking().ask(node.port, asked, "1.2.9") == 0x0110


def test_whatever_the_table_holds_can_be_read_as_references():
    assert from_text("1.2 3.4\n.5\n6.7 8\x0b9") == [
        Reference("1.2", "3.4"), Reference(".5", ""), Reference("6.7", "8\x0b9"),
    ]  # fmt: skip
