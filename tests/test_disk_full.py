"""The disk fills up at every place where something is written; nothing acknowledged is lost, all goes on after."""

from contextlib import suppress

from pydicom import dcmread

from daemon.errors import StorageFull
from daemon.job_runner import STORAGE_SECONDS
from daemon.jobs import JobState
from tests.disks import PAGE, needs_mount, small_disk
from tests.instances import ct_instance, ct_series
from tests.nodes import receiving_node
from tests.peers import ReceivingPeer, Sender
from tests.senders import store
from tests.workplace import Workplace

pytestmark = needs_mount


def stored_uids(node):
    """What is on disk under its row, read back."""
    return {
        dcmread(node.spool.instance_path(job.id, row.sop_instance_uid)).SOPInstanceUID
        for job in node.queue.jobs()
        for row in node.queue.instances(job.id)
    }


def test_wherever_the_disk_fills_up_while_images_arrive_what_was_acknowledged_is_there(tmp_path):
    """From no free page to more than an image needs: journal, rows, folders and files fail in turn."""
    statuses, acknowledged = set(), set()
    with (
        small_disk(tmp_path / "disk") as disk,
        receiving_node(disk.path) as node,
        Sender(node.port) as sender,
    ):
        for pages in (*range(24), 40, 80):
            disk.leave(pages * PAGE)
            for instance in ct_series(3):
                status = store(sender, instance).status
                statuses.add(status)
                if status == 0x0000:
                    acknowledged.add(instance.sop_instance_uid)
            disk.empty()  # a job table whose disk is full to the last byte cannot even be read
            assert stored_uids(node) == acknowledged

        assert statuses == {0x0000, 0xA700}
        assert list(disk.path.rglob("*.part")) == []
        assert store(sender, ct_instance("1.2.3")).status == 0x0000


def test_wherever_the_disk_fills_up_while_results_are_written_the_job_waits_and_is_then_delivered(tmp_path):
    """Structure set, segmentation, QA sheet and rows fail in turn; no attempt is used up by it."""
    with small_disk(tmp_path / "disk", 24) as disk, ReceivingPeer(sop_classes=SOP_CLASSES) as tps:
        workplace = Workplace(disk.path, ports={"tps": tps.port}, qa_sheet="png", objects=("rtstruct", "seg"))
        job = workplace.queue_phantom()
        runner = workplace.runner()
        waited = 0
        for kilobytes in (0, 8, 16, 32, 64, 100, 150, 200, 250, 300, 400):
            disk.leave(kilobytes * 1024)
            with suppress(StorageFull):
                runner.run_next()
            if workplace.job(job).state is JobState.SEGMENTING:  # even giving it back did not fit
                disk.empty()
                assert runner.run_next() is False
            row = workplace.job(job)
            assert row.state in {JobState.QUEUED, JobState.SEGMENTING, JobState.SEGMENTED}
            if row.state is JobState.SEGMENTED:
                break
            waited += "waits for storage" in str(row.reason)
            disk.empty()
            workplace.clock.forward(seconds=STORAGE_SECONDS + 60)
            workplace.queue.release_expired()
        disk.empty()
        workplace.clock.forward(seconds=STORAGE_SECONDS)
        runner.run_next()
        assert workplace.job(job).state is JobState.SEGMENTED
        assert workplace.job(job).attempts == 1
        assert waited >= 3

        assert workplace.deliver_all_due() == 1
        assert workplace.job(job).state is JobState.DELIVERED
        assert list(disk.path.rglob("*.part")) == []
        workplace.queue.close()


SOP_CLASSES = ("1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.66.4")
