"""The disk fills up at every place where something is written; nothing acknowledged is lost, all goes on after."""

from pydicom import dcmread

from tests.disks import PAGE, needs_mount, small_disk
from tests.instances import ct_instance, ct_series
from tests.nodes import receiving_node
from tests.peers import Sender

pytestmark = needs_mount


def store(sender, instance):
    return sender.store(
        instance.sop_class_uid,
        instance.sop_instance_uid,
        instance.transfer_syntax_uid,
        instance.dataset_bytes,
    ).status


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
                status = store(sender, instance)
                statuses.add(status)
                if status == 0x0000:
                    acknowledged.add(instance.sop_instance_uid)
            disk.empty()  # a job table whose disk is full to the last byte cannot even be read
            assert stored_uids(node) == acknowledged

        assert statuses == {0x0000, 0xA700}
        assert list(disk.path.rglob("*.part")) == []
        assert store(sender, ct_instance("1.2.3")) == 0x0000
