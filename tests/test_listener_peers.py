"""Senders that hospitals have: DCMTK and Orthanc."""

import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from daemon.jobs import JobState
from tests.conditions import wait_until
from tests.instances import ct_series
from tests.nodes import receiving_node
from tests.peers import dcmtk_send, orthanc

SERIES = "1.2.826.0.1.8.1"


@pytest.fixture
def node(tmp_path):
    with receiving_node(tmp_path / "spool") as node:
        yield node


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "sent"
    folder.mkdir()
    return [instance.write(folder) for instance in ct_series(5, SERIES)]


def dataset_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def received(node) -> dict[str, bytes]:
    """What lies in the spool, by SOP Instance UID."""
    paths = [path for job in node.queue.jobs() for path in node.spool.instance_paths(job.id)]
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): dataset_bytes(path) for path in paths}


def the_job(node):
    """Return the only job, complete."""
    wait_until(lambda: not node.listener.open_associations, "associations to end")
    node.listener.tick()
    (job,) = node.queue.jobs()
    assert job.state is JobState.QUEUED
    return job


# How DCMTK makes a file of a transfer syntax, and how storescu proposes it.
WAYS = {
    ImplicitVRLittleEndian: (["dcmconv", "+ti"], "-xi"),
    ExplicitVRLittleEndian: (["dcmconv", "+te"], "-xe"),
    DeflatedExplicitVRLittleEndian: (["dcmconv", "+td"], "-xd"),
    RLELossless: (["dcmcrle"], "-xr"),
    JPEGLossless: (["dcmcjpeg", "+el"], None),
    JPEGLosslessSV1: (["dcmcjpeg", "+e1"], "-xs"),
    JPEGLSLossless: (["dcmcjpls", "+el"], "-xt"),
}


@pytest.mark.parametrize(
    "syntax", [syntax for syntax, way in WAYS.items() if way[1]], ids=lambda uid: uid.name
)
def test_storescu_sends_every_transfer_syntax_it_knows(node, files, syntax):
    """JPEG Lossless other than selection value 1 is left to dcmsend: storescu cannot propose it alone."""
    convert, propose = WAYS[syntax]
    for path in files:
        subprocess.run([*convert, path, path], check=True, capture_output=True)
        assert dcmread(path).file_meta.TransferSyntaxUID == syntax

    sent = dcmtk_send(
        "storescu", propose, "-aet", "CT1", "-aec", "OARLOCK", "127.0.0.1", str(node.port), *files
    )

    assert sent.returncode == 0, sent.stderr
    job = the_job(node)
    assert (job.calling_ae_title, job.instance_count) == ("CT1", 5)
    assert {row.transfer_syntax_uid for row in node.queue.instances(job.id)} == {syntax}
    if syntax != DeflatedExplicitVRLittleEndian:  # which DCMTK inflates to read and deflates to send
        assert sorted(received(node).values()) == sorted(map(dataset_bytes, files))


@pytest.mark.parametrize("syntax", WAYS, ids=lambda uid: uid.name)
def test_dcmsend_sends_files_as_they_are(node, files, syntax):
    convert, _ = WAYS[syntax]
    for path in files:
        subprocess.run([*convert, path, path], check=True, capture_output=True)

    sent = dcmtk_send("dcmsend", "--decompress-never", "-aec", "OARLOCK", "127.0.0.1", str(node.port), *files)

    assert sent.returncode == 0, sent.stderr
    assert the_job(node).instance_count == 5


def test_echoscu_is_answered(node):
    assert dcmtk_send("echoscu", "-aec", "OARLOCK", "127.0.0.1", str(node.port)).returncode == 0


def test_two_storescu_at_once_send_one_series_together(node, files):
    command = ["storescu", "-aet", "CT1", "-aec", "OARLOCK", "127.0.0.1", str(node.port)]
    processes = [
        subprocess.Popen([*command, *map(str, part)], stderr=subprocess.DEVNULL)
        for part in (files[:3], files[2:])
    ]

    assert [process.wait(60) for process in processes] == [0, 0]
    assert the_job(node).instance_count == 5


def test_storescu_that_aborts_has_its_images_kept(node, files):
    sent = dcmtk_send("storescu", "--abort", "-aec", "OARLOCK", "127.0.0.1", str(node.port), *files)

    assert sent.returncode == 0, sent.stderr
    assert the_job(node).instance_count == 5


def test_storescu_reads_why_it_may_not_send(tmp_path, files):
    with receiving_node(tmp_path / "closed", peers=[{"ae_title": "CT1"}]) as node:
        sent = dcmtk_send("storescu", "-aec", "OARLOCK", "127.0.0.1", str(node.port), *files)

    assert "Calling AE Title Not Recognized" in sent.stderr


def test_orthanc_sends_a_series_and_again(node, files, tmp_path):
    with orthanc(tmp_path / "orthanc") as sender:
        for path in files:
            sender.upload(path)
        sender.add_modality("oarlock", "OARLOCK", node.port)
        for _ in range(2):
            report = sender.store("oarlock")
            assert (report["InstancesCount"], report["FailedInstancesCount"]) == (5, 0)

    job = the_job(node)
    assert (job.calling_ae_title, job.instance_count) == ("ORTHANC", 5)
    assert received(node) == {str(dcmread(path).SOPInstanceUID): dataset_bytes(path) for path in files}
