"""What is known about the number of images decides how long a series waits, and never starts half a series."""

import struct
import threading
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from daemon.completeness import ANSWER_SECONDS, Step, judge
from daemon.config import Series
from daemon.evidence import NOTHING, Evidence, header_evidence
from daemon.jobs import JobState
from tests.conditions import LIMIT_SECONDS, wait_until
from tests.instances import ct_instance, ct_series
from tests.job_rows import Clock
from tests.nodes import receiving_node
from tests.peers import dcmtk_send, free_port, orthanc, send, silent_port

pytestmark = pytest.mark.filterwarnings(
    # pynetdicom leaves the socket of a failed connection to the garbage collector, which Python remarks upon.
    "ignore:Exception ignored in. <:pytest.PytestUnraisableExceptionWarning"
)

SERIES = "1.2.826.0.1.8.1"
QUIET, MAX_WAIT = 60, 3600
FIND = "C-FIND of CT1"


class FindScp:
    """A sender that can be asked.

    Parameters
    ----------
    count
        Number of Series Related Instances that it tells; None tells none, as some do.
    images
        How many it lists at IMAGE level.
    status
        Of its last response.
    others
        Series it answers with besides, as a node does that does not match by UID.
    """

    def __init__(self, count=None, images=0, status=0x0000, others=0, hold=None):
        self.count, self.images, self.status, self.others, self.hold = count, images, status, others, hold
        self.asked = []

    def __call__(self, event):
        """Answer a C-FIND."""
        level = event.identifier.QueryRetrieveLevel
        self.asked.append((level, event.identifier.SeriesInstanceUID))
        if self.hold:
            self.hold.wait(LIMIT_SECONDS)
        if level == "SERIES":
            for number in range(self.others):
                yield 0xFF00, _match(SeriesInstanceUID=f"1.9.{number}", NumberOfSeriesRelatedInstances=999)
            yield 0xFF00, _match(SeriesInstanceUID=SERIES, NumberOfSeriesRelatedInstances=self.count)
        else:
            for number in range(self.images):
                yield 0xFF00, _match(SeriesInstanceUID=SERIES, SOPInstanceUID=f"{SERIES}.{number}")
        yield self.status, None


def _match(**values):
    match = Dataset()
    for keyword, value in values.items():
        setattr(match, keyword, value)
    return match


@contextmanager
def asked(scp):
    """The port of a sender that can be asked."""
    ae = AE("CT1")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, scp)])
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


@contextmanager
def node_of(folder, port=None, title="CT1", **series):
    """A node whose only sender is asked on a port."""
    clock = Clock()
    series = {"quiet_seconds": QUIET, "max_wait_seconds": MAX_WAIT} | series
    query = {"port": port, "query": True} if port else {}
    peers = [{"ae_title": title, "hosts": ["127.0.0.1"], **query}]
    with receiving_node(folder / "node", clock=clock, series=series, peers=peers) as node:
        yield node, clock


def sent(node, folder, count=3, **elements):
    """Send images; returns their job, once the association has ended."""
    folder.mkdir(exist_ok=True)
    series = [ct_instance(SERIES, number, **elements) for number in range(1, count + 1)]
    paths = [instance.write(folder) for instance in series]
    assert set(send(paths, port=node.port, calling="CT1")) == {0}
    wait_until(lambda: not node.listener.open_associations, "the end of the association")
    return node.queue.jobs()[0].id


def look(node, job):
    """Tick until nothing is being found out, then once more; returns the job."""
    node.listener.tick()
    wait_until(lambda: not any(t.name == "evidence" for t in threading.enumerate()), "the answer")
    node.listener.tick()
    return node.queue.job(job)


def history(node, job):
    return [event.detail for event in node.queue.events(job)]


@pytest.mark.parametrize(
    ("images", "silent", "evidence", "step", "reason"),
    [
        (3, 59, NOTHING, Step.WAIT, ""),
        (3, 60, NOTHING, Step.START, "no image for 60 s"),
        (3, 60, Evidence(None, "C-FIND of CT1: refused"), Step.START, "no image for 60 s; C-FIND of CT1: refused"),
        (3, 59, Evidence(3, FIND), Step.WAIT, ""),
        (3, 60, Evidence(3, FIND), Step.START, "all 3 images (C-FIND of CT1), no image for 60 s"),
        (3, 60, Evidence(2, FIND), Step.START, "no image for 60 s; 3 images, though there are 2 by C-FIND of CT1"),
        (3, 59, Evidence(2, FIND), Step.WAIT, ""),
        (3, 60, Evidence(4, FIND), Step.WAIT, "3 of 4 images (C-FIND of CT1)"),
        (3, MAX_WAIT - 1, Evidence(4, FIND), Step.WAIT, "3 of 4 images (C-FIND of CT1)"),
        (3, MAX_WAIT, Evidence(4, FIND), Step.REJECT, "3 of 4 images (C-FIND of CT1) and no other for 3600 s"),
        (3, 60, None, Step.WAIT, ""),
        (3, QUIET + ANSWER_SECONDS, None, Step.START, "no image for 60 s; its sender was asked in vain"),
    ],
)  # fmt: skip
def test_a_series_waits_for_what_is_known_to_be_missing_and_for_nothing_else(
    images, silent, evidence, step, reason
):
    judgement = judge(images, silent, evidence, Series(quiet_seconds=QUIET, max_wait_seconds=MAX_WAIT))

    assert judgement.step is step
    assert judgement.reason.startswith(reason)
    assert bool(judgement.reason) == bool(reason)


@pytest.mark.parametrize(
    ("images", "silent", "step"),
    [(3, 9, Step.WAIT), (3, 10, Step.START), (2, 59, Step.WAIT), (4, 59, Step.WAIT)],
)
def test_only_a_whole_count_starts_before_the_quiet_period_and_only_where_configured(images, silent, step):
    config = Series(quiet_seconds=QUIET, counted_quiet_seconds=10)

    assert judge(images, silent, Evidence(3, FIND), config).step is step
    assert judge(images, silent, NOTHING, config).step is Step.WAIT
    assert judge(images, silent, None, config).step is Step.WAIT


def test_a_site_may_contour_what_is_there_after_the_longest_wait():
    config = Series(quiet_seconds=QUIET, max_wait_seconds=MAX_WAIT, when_images_missing="proceed")

    assert judge(3, MAX_WAIT - 1, Evidence(4, FIND), config).step is Step.WAIT
    judgement = judge(3, MAX_WAIT, Evidence(4, FIND), config)
    assert (judgement.step, "3 of 4" in judgement.reason) == (Step.START, True)


def test_the_counts_of_the_images_are_read_where_they_are_believed(tmp_path):
    def written(number, **elements):
        return ct_instance(SERIES, number, **elements).write(tmp_path)

    whole = [written(1, NumberOfSeriesRelatedInstances=7)]
    by_acquisition = [written(n, AcquisitionNumber=n % 2, ImagesInAcquisition=10 + n % 2) for n in (2, 3, 4)]
    senseless = [written(5, NumberOfSeriesRelatedInstances=-3)]
    unreadable = tmp_path / "unreadable.dcm"
    unreadable.write_bytes(b"no DICOM")

    assert header_evidence(whole, ["series"]) == Evidence(7, "Number of Series Related Instances")
    assert header_evidence(by_acquisition, ["series", "acquisition"]) == Evidence(21, "Images in Acquisition")
    assert header_evidence(by_acquisition, ["series"]) is None
    assert header_evidence(whole, []) is None
    assert header_evidence(senseless, ["series"]) is None
    assert header_evidence([unreadable], ["series", "acquisition"]) is None
    assert header_evidence([], ["series", "acquisition"]) is None


@pytest.mark.parametrize(
    ("vr", "told"),
    [("IS", "1e999"), ("DS", "inf"), ("DS", "9" * 5000), ("FD", float("inf")), ("ZZ", "x"), ("IS", "1\\2")],
)
def test_a_count_that_is_no_number_is_no_evidence(vr, told):
    """One such image must not end the listener, again and again, for everybody."""
    header = Dataset()
    for tag in (0x00201209, 0x00201002, 0x00200012):
        value = told.encode() if isinstance(told, str) else struct.pack("<d", told)
        header[tag] = RawDataElement(
            BaseTag(tag), vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True
        )
    with patch("daemon.evidence._read", return_value=[header]):
        assert header_evidence([], ["series", "acquisition"]) is None


def test_all_acquisitions_of_a_series_are_counted_in_a_late_revision_too(tmp_path):
    """The first revision holds one acquisition whole, the second begins another: more of it is to come."""
    with node_of(tmp_path, believed_counts=("acquisition",)) as (node, clock):
        first = sent(node, tmp_path / "first", 2, AcquisitionNumber=1, ImagesInAcquisition=2)
        node.queue.complete(first, "all there")
        node.queue.claim("w", 60)
        late = ct_instance(SERIES, 9, AcquisitionNumber=2, ImagesInAcquisition=2).write(tmp_path)
        assert send([late], port=node.port, calling="CT1") == [0]
        wait_until(lambda: not node.listener.open_associations, "the end of the association")
        clock.forward(seconds=QUIET)
        assert look(node, 2).awaits == "3 of 4 images (Images in Acquisition)"


def test_a_series_whose_images_tell_more_waits_and_is_rejected_visibly_and_can_be_retried(tmp_path):
    with node_of(tmp_path) as (node, clock):
        job = sent(node, tmp_path / "sent", 2, NumberOfSeriesRelatedInstances=3)
        clock.forward(seconds=QUIET)
        assert look(node, job).awaits == "2 of 3 images (Number of Series Related Instances)"
        assert "waits for 2 of 3 images (Number of Series Related Instances)" in history(node, job)
        look(node, job)
        assert sum("waits for" in detail for detail in history(node, job)) == 1

        clock.forward(seconds=MAX_WAIT)
        row = look(node, job)
        assert (row.state, row.reason_code, row.awaits) == (JobState.REJECTED, "images-missing", None)
        assert "`oarlock retry`" in str(row.reason)
        assert node.queue.retry(job) is JobState.QUEUED


def test_the_rest_completes_a_series_that_waited(tmp_path):
    with node_of(tmp_path) as (node, clock):
        sent(node, tmp_path / "sent", 2, NumberOfSeriesRelatedInstances=3)
        clock.forward(seconds=QUIET)
        node.listener.tick()
        job = sent(node, tmp_path / "sent", 3, NumberOfSeriesRelatedInstances=3)
        assert look(node, job).state is JobState.RECEIVING
        clock.forward(seconds=QUIET)
        assert look(node, job).state is JobState.QUEUED
        assert history(node, job)[-1].startswith("all 3 images")


def test_the_rest_of_a_rejected_series_is_counted_with_what_came_before(tmp_path):
    with node_of(tmp_path) as (node, clock):
        first = sent(node, tmp_path / "sent", 2, NumberOfSeriesRelatedInstances=3)
        clock.forward(seconds=MAX_WAIT)
        assert look(node, first).state is JobState.REJECTED
        second = sent(node, tmp_path / "sent", 3, NumberOfSeriesRelatedInstances=3)
        assert second != first
        clock.forward(seconds=QUIET)
        assert look(node, second).state is JobState.QUEUED
        assert len(node.queue.images(second)) == 3


@pytest.mark.parametrize(
    "scp",
    [FindScp(count=3, others=2), FindScp(count=None, images=3)],
    ids=["count of the series", "images one by one"],
)
def test_a_sender_is_asked_how_many_images_it_has(tmp_path, scp):
    with asked(scp) as port, node_of(tmp_path, port) as (node, clock):
        job = sent(node, tmp_path / "sent", 2)
        assert look(node, job).state is JobState.RECEIVING
        assert scp.asked == []
        clock.forward(seconds=QUIET)
        assert look(node, job).awaits == "2 of 3 images (C-FIND of CT1)"
        assert scp.asked[0] == ("SERIES", SERIES)

        job = sent(node, tmp_path / "sent", 3)
        clock.forward(seconds=QUIET)
        assert look(node, job).state is JobState.QUEUED
        assert history(node, job)[-1] == "all 3 images (C-FIND of CT1), no image for 60 s"


def test_a_sender_that_corrects_itself_frees_the_series(tmp_path):
    scp = FindScp(count=5)
    with asked(scp) as port, node_of(tmp_path, port) as (node, clock):
        job = sent(node, tmp_path / "sent", 3)
        clock.forward(seconds=QUIET)
        look(node, job)
        scp.count = 3
        assert look(node, job).state is JobState.RECEIVING
        assert len(scp.asked) == 1
        clock.forward(seconds=60)
        assert look(node, job).state is JobState.QUEUED


def test_a_whole_series_starts_early_where_configured(tmp_path):
    with (
        asked(FindScp(count=3)) as port,
        node_of(tmp_path, port, counted_quiet_seconds=5) as (node, clock),
    ):
        job = sent(node, tmp_path / "sent", 3)
        assert look(node, job).state is JobState.RECEIVING
        clock.forward(seconds=5)
        assert look(node, job).state is JobState.QUEUED
        assert history(node, job)[-1] == "all 3 images (C-FIND of CT1), no image for 5 s"


@pytest.mark.parametrize(
    ("scp", "words"),
    [
        (FindScp(count=2), "3 images, though there are 2 by C-FIND of CT1"),
        (FindScp(status=0xA700), "0xA700"),
        (FindScp(count=None, images=0), "tells neither"),
    ],
    ids=["too few", "refused", "nothing told"],
)
def test_wrong_evidence_falls_back_to_the_quiet_period(tmp_path, scp, words):
    with asked(scp) as port, node_of(tmp_path, port, counted_quiet_seconds=5) as (node, clock):
        job = sent(node, tmp_path / "sent", 3)
        clock.forward(seconds=QUIET - 1)
        assert look(node, job).state is JobState.RECEIVING
        clock.forward(seconds=1)
        assert look(node, job).state is JobState.QUEUED
        assert words in history(node, job)[-1]


def test_a_sender_that_does_not_know_the_series_or_takes_no_queries_is_no_evidence(tmp_path):
    with silent_port() as silent:
        for name, port, words in (
            ("dead", free_port(), "no connection"),
            ("silent", silent, "did not answer"),
        ):
            with node_of(tmp_path / name, port) as (node, clock):
                job = sent(node, tmp_path / "sent", 3)
                clock.forward(seconds=QUIET)
                assert look(node, job).state is JobState.QUEUED
                assert words in history(node, job)[-1]


def test_headers_count_where_the_sender_cannot_be_asked(tmp_path):
    with node_of(tmp_path, free_port()) as (node, clock):
        job = sent(node, tmp_path / "sent", 2, NumberOfSeriesRelatedInstances=3)
        clock.forward(seconds=QUIET)
        assert look(node, job).awaits == "2 of 3 images (Number of Series Related Instances)"


def test_a_sender_that_takes_its_time_holds_nobody_up(tmp_path):
    hold = threading.Event()
    with asked(FindScp(count=3, hold=hold)) as port, node_of(tmp_path, port) as (node, clock):
        job = sent(node, tmp_path / "sent", 3)
        clock.forward(seconds=QUIET)
        node.listener.tick()
        assert node.queue.job(job).state is JobState.RECEIVING
        assert (
            dcmtk_send("echoscu", "-aet", "CT1", "-aec", "OARLOCK", "127.0.0.1", str(node.port)).returncode
            == 0
        )
        clock.forward(seconds=ANSWER_SECONDS)
        node.listener.tick()
        assert node.queue.job(job).state is JobState.QUEUED
        hold.set()
        look(node, job)


def test_orthanc_tells_how_many_images_it_has(tmp_path):
    folder = tmp_path / "sent"
    folder.mkdir()
    paths = [instance.write(folder) for instance in ct_series(5, SERIES)]
    with orthanc(tmp_path / "orthanc", "CT1") as archive, node_of(tmp_path, archive.port) as (node, clock):
        for path in paths:
            archive.upload(path)
        archive.add_modality("oarlock", "OARLOCK", node.port)
        archive.store("oarlock", archive.instances()[:3])
        wait_until(lambda: not node.listener.open_associations, "the end of the association")
        job = node.queue.jobs()[0].id
        clock.forward(seconds=QUIET)
        assert look(node, job).awaits == "3 of 5 images (C-FIND of CT1)"

        archive.store("oarlock")
        wait_until(lambda: not node.listener.open_associations, "the end of the association")
        clock.forward(seconds=QUIET)
        assert look(node, job).state is JobState.QUEUED
        assert history(node, job)[-1] == "all 5 images (C-FIND of CT1), no image for 60 s"
