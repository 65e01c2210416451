"""One patient with an unusual name goes through real processes and everything that can fail, and leaves no trace.

The same run shows that every file is for its owner alone, although the roles start with umask 000.
"""

import os
import re
import socket
import sqlite3
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from daemon.jobs import DeliveryState, JobState
from tests.acceptance.processes import PROCESS_SECONDS, REPOSITORY, install
from tests.conditions import accepts_tcp, free_port, wait_until
from tests.peers import ReceivingPeer, Sender, send
from tests.workplace import small_series

# pynetdicom leaves the socket of a failed connection to the garbage collector, which Python remarks upon.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

WHO = {
    "PatientName": "Quillfeather^Erasmus",
    "PatientID": "ID-90125",
    "PatientBirthDate": "19620714",
    "AccessionNumber": "ACC-7731",
    "StudyDescription": "H+N Quillfeather",
}
WORDS = "Quillfeather^Erasmus ID-90125 19620714 ACC-7731"
TRACE = re.compile(rb"quillfeather|erasmus|id-90125|1962-?07-?14|acc-7731", re.IGNORECASE)
IDENTITY = {"patient_id", "patient_name", "accession_number", "study_date", "study_description"}
"""Columns of the job table that are there to say whose job it is."""


def traces(content):
    return sorted({found.lower() for found in TRACE.findall(content)})


class Study:
    """The run: what the roles wrote, said and showed, while they were there to be looked at."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.words = folder / "words"
        self.words.write_text(WORDS)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.said_to_systemd = b""
        self.titles = b""
        self.history = b""
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.manager.bind("")  # Linux chooses an abstract name
        self.installation = None

    def environ(self):
        """Variables of every role: a temporary folder of its own, and somebody who hears what systemd would."""
        address = "@" + self.manager.getsockname()[1:].decode()
        return {"TMPDIR": str(self.temporary), "NOTIFY_SOCKET": address, "OMP_NUM_THREADS": "1"}

    def start(self, role, *launcher, terminal=False):
        """Start a role, on a terminal where its messages are for people; its output is kept."""
        command = [
            sys.executable,
            "-m",
            *(launcher or ("daemon",)),
            role,
            "--config",
            str(self.installation.config),
        ]
        if terminal:
            command = ["script", "-qefc", " ".join(command), "/dev/null"]
        with (self.folder / f"{role}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=REPOSITORY, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environ()}, umask=0,
            )  # fmt: skip

    def look(self, process):
        """Keep what `ps` shows of a process and its threads, and what it told systemd."""
        proc = Path(f"/proc/{process.pid}")
        # a thread may end before its file is opened, and before it is read
        for path in (proc / "cmdline", proc / "environ", *proc.glob("task/*/comm")):
            with suppress(FileNotFoundError, ProcessLookupError):
                self.titles += path.read_bytes() + b"\n"
        while True:
            try:
                self.said_to_systemd += self.manager.recv(4096) + b"\n"
            except BlockingIOError:
                return

    def until(self, condition, what, *processes):
        """Wait, looking at the processes meanwhile, none of which may end."""

        def looked():
            for process in processes:
                self.look(process)
                assert process.poll() is None, f"{process.args} ended while waited for {what}"
            return condition()

        wait_until(looked, what, PROCESS_SECONDS)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("privacy"))
    quoting = ReceivingPeer(statuses=[0xA700] * 1000, comment="no patient Quillfeather^Erasmus here")
    with ReceivingPeer() as tps, quoting, study.manager:
        ports = {"tps": tps.port, "dead": free_port(), "quoting": quoting.port}
        study.installation = install(study.folder, ports)
        study.installation.root.rmdir()  # the roles make it
        text = study.installation.config.read_text().replace('qa_sheet = "none"', 'qa_sheet = "png"')
        study.installation.config.write_text(text)
        run(study, tps)
    return study


def run(study, tps):
    started = []
    try:
        listener = study.start("listen")
        started.append(listener)
        study.until(lambda: accepts_tcp(study.installation.port), "the listener", listener)
        send_all(study)
        queue = study.installation.queue()
        study.until(lambda: len(queue.jobs(JobState.QUEUED)) == 2, "two queued series", listener)

        worker = study.start("work", "tests.acceptance.careless_worker", "job", str(study.words))
        started.append(worker)
        states = lambda: {job.state for job in queue.jobs()}  # noqa: E731
        study.until(
            lambda: states() == {JobState.REJECTED, JobState.FAILED}, "both to fail", listener, worker
        )
        worker.terminate()
        worker.wait(PROCESS_SECONDS)

        dying = study.start(
            "work", "tests.acceptance.careless_worker", "role", str(study.words), terminal=True
        )
        started.append(dying)
        assert dying.wait(PROCESS_SECONDS) == 1

        (failed,) = queue.jobs(JobState.FAILED)
        queue.retry(failed.id)
        worker = study.start("work", "tests.acceptance.careless_worker", "sound", str(study.words))
        started.append(worker)
        tried = lambda: {each.destination: each for each in queue.deliveries(failed.id)}  # noqa: E731
        study.until(lambda: tps.received and tried()["tps"].state is DeliveryState.SENT, "tps", worker)
        study.until(lambda: all(each.attempts for each in tried().values()), "the others", listener, worker)
        export = study.installation.root / "export.csv"
        command = [sys.executable, "-m", "daemon", "export", "--since", "2020-01-01", "--output", str(export)]
        subprocess.run(
            [*command, "--config", str(study.installation.config)], cwd=REPOSITORY, check=True, umask=0
        )
        # While the roles run: the journal of the job table and the lock files are there.
        study.modes = {path: path.lstat() for path in study.installation.root.rglob("*")}
        study.modes[study.installation.root] = study.installation.root.lstat()
        queue.close()
    finally:
        for process in started:
            process.terminate()
            process.wait(PROCESS_SECONDS)


def send_all(study):
    """What is sound, what is not, the same image with other bytes, and a series of too few images."""
    port = study.installation.port
    sound = small_series(study.folder / "ct", **WHO)
    assert set(send(sound, port=port)) == {0}
    with Sender(port) as sender:
        header = dcmread(sound[0])
        changed = sound[0].read_bytes().replace(b"H+N Quillfeather", b"Quillfeather H+N")
        start = 144 + int.from_bytes(changed[140:144], "little")
        uid, syntax = header.SOPInstanceUID, ExplicitVRLittleEndian
        assert sender.store(CTImageStorage, uid, syntax, changed[start:]).status == 0x0111
        damaged = b"\x10\x00\x10\x00PN\xff\x00" + WORDS.encode()
        refused = sender.store(CTImageStorage, generate_uid(), syntax, damaged)
        assert refused.status not in {0x0000, None}
        study.history += refused.comment.encode()
    few = small_series(study.folder / "few", seed=1, **WHO)[:3]
    assert set(send(few, port=port)) == {0}


def test_logs_say_what_happened_and_not_to_whom(study):
    """JSON and terminal lines, standard error and the tracebacks of a role that died."""
    logs = {role: (study.folder / f"{role}.log").read_bytes() for role in ("listen", "work")}

    for event in (b"instance_refused", b"set aside", b"association_accepted"):
        assert event in logs["listen"], logs["listen"].decode()
    for event in (b"job_error", b"job_rejected", b"job_failed", b"role_failed", b"delivery_postponed"):
        assert event in logs["work"], logs["work"].decode()
    assert b"ValueError: [withheld]" in logs["work"]
    assert {role: traces(log) for role, log in logs.items()} == {"listen": [], "work": []}


def test_process_titles_environment_and_status_lines_name_nobody(study):
    assert b"listen" in study.titles
    assert b"STATUS=" in study.said_to_systemd
    assert traces(study.titles) == []
    assert traces(study.said_to_systemd) == []


def test_the_temporary_folder_is_left_empty_of_patients(study):
    left = [path for path in study.temporary.rglob("*") if path.is_file()]
    assert [path for path in left if traces(path.read_bytes() + path.name.encode())] == []


def test_histories_reasons_and_error_messages_name_nobody(study):
    """Only the columns that are there for it say whose job it is; paths do not."""
    table = sqlite3.connect(study.installation.root / "oarlock.db")
    table.row_factory = sqlite3.Row
    told, identified = "", set()
    for (name,) in table.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in table.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 -- our own tables
            for column in row.keys():  # noqa: SIM118 -- rows are no dictionaries
                if name == "jobs" and column in IDENTITY:
                    identified.add(column)
                else:
                    told += f"{row[column]}\n"
    table.close()

    assert identified == IDENTITY
    assert "[withheld]" in told
    assert "0xA700" in told
    assert traces(told.encode() + study.history) == []
    names = "\n".join(str(path.relative_to(study.folder)) for path in study.installation.root.rglob("*"))
    assert traces(names.encode()) == []


def test_the_search_finds_what_is_there(study):
    """The spool and the job table do hold the patient: the same search finds him."""
    images = b"".join(path.read_bytes() for path in study.installation.root.rglob("images/*.dcm"))
    assert traces(images) == [b"19620714", b"acc-7731", b"erasmus", b"id-90125", b"quillfeather"]
    assert b"id-90125" in traces((study.installation.root / "export.csv").read_bytes())


def test_every_file_is_for_its_owner_alone_whatever_the_umask(study):
    found = {path: stat.S_IMODE(status.st_mode) for path, status in study.modes.items()}
    folders = {path for path, status in study.modes.items() if stat.S_ISDIR(status.st_mode)}
    names = {path.name for path in found}

    for name in ("oarlock.db", "oarlock.db-wal", "oarlock.db-shm", "oarlock.db.lock", "listener.lock"):
        assert name in names
    assert {"structure_set.dcm", "qa_sheet.png", "set_aside", "images", "export.csv"} <= names
    wrong = {path: oct(mode) for path, mode in found.items() if mode != (0o700 if path in folders else 0o600)}
    assert wrong == {}
