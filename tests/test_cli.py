"""The `oarlock` command as an administrator uses it: what it shows, what it changes and how it ends."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon import cli_jobs
from daemon.jobs import JobState
from tests.command import Oarlock, write_config
from tests.job_rows import (
    delivered,
    fail_next,
    held,
    image,
    queued,
    received,
    segmented,
)
from tests.paths import REPOSITORY
from tests.peers import ReceivingPeer
from tests.stored import store_image
from tests.workplace import Workplace


@pytest.fixture
def oarlock(tmp_path, capsys, monkeypatch):
    """Run the command with a configuration that has its spool and job table in tmp_path."""
    write_config(tmp_path)
    return Oarlock(tmp_path / "oarlock.toml", capsys, monkeypatch)


def test_help_teaches_every_command(oarlock):
    """The help names every command, the first steps and the exit codes; each command has its own help."""
    overview = oarlock("--help")
    commands = ("serve", "listen", "work", "check", "echo", "jobs", "show", "retry", "cancel", "segment")

    assert overview.code == 0
    assert all(name in overview.out for name in (*commands, "/etc/oarlock/oarlock.toml", "Exit codes"))
    assert all(oarlock(name, "--help").code == 0 for name in commands)
    assert oarlock("--version").out.startswith("oarlock")


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["show", "seven"], ["show", "0"], ["show"], ["jobs", "--state", "lost"], ["--frob"]],
)
def test_wrong_use_ends_with_2(oarlock, arguments):
    """What the command line cannot mean is refused before anything is done."""
    answer = oarlock(*arguments)

    assert (answer.code, answer.out) == (2, "")
    assert answer.err


@pytest.mark.parametrize("command", ["jobs", "show 1", "retry 1", "echo TPS", "listen", "work", "serve"])
def test_a_wrong_configuration_ends_with_2_and_all_its_problems(oarlock, tmp_path, command):
    """Every command that needs the configuration says all that is wrong, with file and line."""
    write_config(tmp_path, "[nodes]\nport = 1\n[series]\nquite_seconds = 1\n")
    run = subprocess.run(
        [sys.executable, "-m", "daemon", *command.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )

    assert run.returncode == 2
    assert f'{oarlock.config}: line 9, [nodes]: unknown key; did you mean "node"?'.replace('"', "") in (
        run.stderr.replace("\\", "").replace('"', "")
    )
    assert "line 12, [series] quite_seconds" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_command_and_the_listener_load_no_torch():
    """Looking at jobs and receiving images must not take the memory and seconds that torch takes."""
    program = "import sys, daemon.cli, daemon.roles, daemon.listener; print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )

    assert run.stdout == "False\n"


HEAVY = (
    "torch",
    "numpy",
    "scipy",
    "matplotlib",
    "SimpleITK",
    "pydicom",
    "highdicom",
    "pynetdicom",
    "alembic",
    "sqlalchemy",
    "structlog",
    "rich.progress",
    "daemon.supervisor",
)
# Help and version read no configuration, and programs get their JSON without tables.
HEAVY_FOR = {"--help": (*HEAVY, "pydantic"), "--version": (*HEAVY, "pydantic", "rich.table")}
HEAVY_FOR |= dict.fromkeys(("jobs --json", "show 1 --json"), (*HEAVY, "rich.table"))


@pytest.mark.parametrize(
    "command",
    ["jobs", "jobs --state queued", "jobs --json", "show 1", "show 1 --json", "--help", "--version"],
)
def test_light_commands_load_nothing_heavy(oarlock, queue, command):
    """Looking at the job table from a terminal answers at once: all that it does not need stays on disk."""
    segmented(queue)
    options = [] if command.startswith("--") else ["--config", str(oarlock.config)]
    program = (
        "import sys; from daemon.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"sys.stderr.write(' '.join(name for name in {HEAVY_FOR.get(command, HEAVY)} if name in sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *command.split(), *options],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )

    assert run.stdout
    assert run.stderr == ""


def test_the_worker_loads_what_draws_only_for_a_drawing():
    """A QA sheet is wanted by some routes only; matplotlib would be half a second of every start."""
    program = "import sys, daemon.worker, model.segmenter; print('matplotlib' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )

    assert run.stdout == "False\n"


def test_without_a_job_table_looking_creates_none(oarlock, tmp_path):
    """Asked before the first start, the command says so and leaves the folder as it was."""
    answer = oarlock("jobs")

    assert answer.code == 1
    assert "there is no job table" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["oarlock.toml"]


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize(
    ("revision", "todo"), [("0001", "restart the services"), ("9999", "install the newer version again")]
)
def test_a_job_table_of_another_version_is_not_touched(oarlock, tmp_path, revision, todo):
    """Migrating is done by the services at their start, not under their feet."""
    with sqlite3.connect(tmp_path / "oarlock.db") as table:
        table.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    table.close()
    answer = oarlock("jobs")

    assert answer.code == 1
    assert revision in answer.err
    assert todo in answer.err


def test_a_file_that_is_no_database_is_said_so(oarlock, tmp_path):
    """A broken file ends in a sentence, not in a traceback."""
    (tmp_path / "oarlock.db").write_text("no database" * 1000)
    answer = oarlock("jobs")

    assert answer.code == 1
    assert answer.err == "oarlock: the job table: file is not a database\n"


def test_jobs_are_listed_newest_first(oarlock, queue):
    """One line per job with state, patient, accession number, sender and remark."""
    first = queued(queue, "1.1", accession_number="A-17")
    second = received(queue, "1.2")
    lines = oarlock("jobs").out.splitlines()

    assert [line.split()[0] for line in lines] == ["Job", str(second), str(first)]
    assert all(word in lines[2] for word in ("queued", "Test^Phantom", "4711", "A-17", "CT1"))


def test_jobs_of_one_state(oarlock, queue):
    """--state narrows the list, --limit shortens it, and an empty list is said so."""
    waiting = queued(queue, "1.1")
    received(queue, "1.2")

    assert [job["id"] for job in json.loads(oarlock("jobs", "--state", "queued", "--json").out)] == [waiting]
    assert len(json.loads(oarlock("jobs", "--limit", 1, "--json").out)) == 1
    assert oarlock("jobs", "--state", "failed").out == "no jobs\n"
    assert oarlock("jobs", "--state", "failed", "--json").out == "[]\n"


def test_names_cannot_command_the_terminal(oarlock, queue):
    """Control characters and markup that a peer put into a name are shown, not obeyed."""
    received(queue, patient_name="\x1b[2J[red]EVIL[/red]")
    out = oarlock("jobs").out

    assert "\x1b" not in out
    assert "\N{REPLACEMENT CHARACTER}[2J[red]EVIL[/red]" in out


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
@pytest.mark.parametrize("command", [("jobs",), ("show", "1"), ("export", "--since", "2026-01-01")])
@pytest.mark.usefixtures("oarlock")
def test_letters_that_a_terminal_lacks_end_nothing(queue, tmp_path, encoding, command):
    queued(queue, patient_name="山田^太郎")

    done = subprocess.run(
        [sys.executable, "-m", "daemon", *command, "--config", str(tmp_path / "oarlock.toml")],
        capture_output=True, cwd=REPOSITORY, env={**os.environ, "PYTHONIOENCODING": encoding}, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"1.2.3" in done.stdout or b"??" in done.stdout


@pytest.mark.usefixtures("oarlock")
def test_output_that_cannot_be_written_is_said_in_a_sentence(queue, tmp_path):
    queued(queue)
    command = [sys.executable, "-m", "daemon", "jobs", "--json", "--config", str(tmp_path / "oarlock.toml")]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=REPOSITORY, check=False)

    assert done.returncode == 1
    assert b"oarlock: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("show", "9" * 20), ("jobs", "--limit", "9" * 20)])
@pytest.mark.usefixtures("queue")
def test_a_number_that_no_job_has_is_wrong_use(oarlock, words):
    assert oarlock(*words).code == 2


def test_an_export_that_fails_leaves_no_half_of_it(oarlock, queue, tmp_path, monkeypatch):
    queued(queue)
    target = tmp_path / "trail.csv"

    def fails(_rows, file):
        file.write("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("daemon.audit_trail.write_csv", fails)
    answer = oarlock("export", "--since", "2026-01-01", "--output", target)

    assert answer.code == 1
    assert not target.exists()


def test_a_job_is_shown_with_all_that_happened(oarlock, queue):
    """History with times and reasons, deliveries with tries, structures, stage times, what was set aside."""
    job = segmented(queue, "TPS", "PACS")
    queue.set_aside(job, image(1, content=b"other"), "aside-1.dcm")
    queue.note(job, "tiles halved")
    fail_next(queue, "connection refused")
    page = " ".join(oarlock("show", job).out.split())

    for words in (
        "Test^Phantom 4711",
        "no image for 60 s",
        "tiles halved",
        "connection: connection refused",
        "Brain 1301.5 60 60",
        "Cochlea_L not found",
        "predict 30.0",
        "aside-1.dcm",
        "unet 1.0 dddddddddddd",
    ):
        assert words in page, words
    assert all(str(state) in page for state in ("receiving", "queued", "segmenting", "segmented"))


def test_a_held_job_is_shown_without_a_next_try(oarlock, queue):
    """Nothing is tried before its release."""
    page = " ".join(oarlock("show", held(queue)).out.split())

    assert "TPS pending 0 Results" in page


def test_a_job_is_shown_to_programs(oarlock, queue):
    """--json holds every row of the job under the names of the tables."""
    job = delivered(queue)
    shown = json.loads(oarlock("show", job, "--json").out)

    assert (shown["id"], shown["state"]) == (job, "delivered")
    assert [event["to_state"] for event in shown["events"]][-1] == "delivered"
    assert shown["deliveries"][0]["destination"] == "TPS"
    assert [row["name"] for row in shown["structures"]] == ["Brain", "Cochlea_L"]
    assert shown["created_at"].endswith("+00:00")


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize("command", ["show", "retry", "cancel"])
def test_an_unknown_job_ends_with_1(oarlock, command):
    """A number that is not in the table is said so."""
    answer = oarlock(command, 77)

    assert (answer.code, answer.err) == (1, "oarlock: there is no job 77; `oarlock jobs` lists them\n")


def test_a_job_is_cancelled_and_started_again(oarlock, queue, monkeypatch):
    """Cancel stops it and remembers who did, retry starts it again, and both say the new state."""
    monkeypatch.setenv("SUDO_USER", "ada")
    job = queued(queue)

    assert oarlock("cancel", job).out == f"job {job} is cancelled\n"
    assert queue.events(job)[-1].detail == "cancelled by ada"
    assert oarlock("retry", job).out == f"job {job} is queued\n"
    assert queue.job(job).state is JobState.QUEUED


def test_a_cancelled_resend_is_told_as_what_it_is(oarlock, queue):
    job = delivered(queue)
    oarlock("resend", job)

    assert oarlock("cancel", job).out == f"job {job} is delivered\n"


def test_numbers_and_times_beyond_all_are_refused(oarlock, monkeypatch):
    for wrong in ("99999999999999999999", "0"):
        answer = oarlock("erase", wrong, "--yes")
        assert answer.code == 2
        assert "Invalid value" in answer.err
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        answer = oarlock("export", "--since", "0001-01-01")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (answer.code, answer.err) == (2, "oarlock: no calendar has the time of --since or --until\n")
    answer = oarlock("export", "--since", "2026-02-02", "--until", "2026-02-01")
    assert (answer.code, answer.err) == (2, "oarlock: --until is before --since\n")


def test_a_job_table_that_is_lost_is_told_with_what_to_do(oarlock, queue, spool, tmp_path):
    """Who asks at night where a study is must not hear that nothing was ever there."""
    store_image(spool, queued(queue), "1.2.3.1", b"image")
    queue.close()
    (tmp_path / "oarlock.db").unlink()

    answer = oarlock("jobs")

    assert answer.code == 1
    assert "oarlock.db is gone, but 1 jobs lie in" in answer.err
    assert "run `oarlock recover`" in answer.err


def test_what_is_not_possible_is_refused_with_what_is(oarlock, queue):
    """A delivered job cannot be cancelled, and the message says what it may become."""
    job = delivered(queue)
    answer = oarlock("cancel", job)

    assert answer.code == 1
    assert "delivered" in answer.err
    assert "purged" in answer.err


def test_a_delivery_that_fails_again_and_again_stands_with_its_job(oarlock, queue, clock):
    job = segmented(queue, "TPS")
    delivery, _ = queue.claim_delivery("worker-1", 60)
    queue.delivery_again(delivery.id, clock.now, "no-connection", None, "connection refused")

    assert "TPS: connection refused; again at" in " ".join(oarlock("jobs").out.split())
    assert queue.job(job).state is JobState.SEGMENTED


def test_a_file_that_cannot_be_written_is_said_in_a_sentence(oarlock, queue, tmp_path):
    queued(queue)
    answer = oarlock("export", "--since", "2020-01-01", "--output", tmp_path / "nowhere/2026.csv")

    assert (answer.code, answer.err) == (
        1,
        f"oarlock: {tmp_path}/nowhere/2026.csv: No such file or directory\n",
    )


def test_a_job_that_is_not_receiving_cannot_be_completed_and_why(oarlock, queue):
    answer = oarlock("complete", queued(queue))

    assert answer.code == 1
    assert "is queued and cannot be completed" in answer.err


@pytest.mark.parametrize("role", ["listen", "work"])
def test_without_a_job_table_beside_jobs_on_disk_no_role_starts(oarlock, spool, tmp_path, role):
    """A new table would know none of them; `oarlock recover` makes one that does."""
    store_image(spool, 7, "1.2.3", b"image")

    answer = oarlock(role)

    assert answer.code == 1
    assert "is gone, but 1 jobs lie in" in answer.err
    assert not (tmp_path / "oarlock.db").exists()
    assert spool.job_numbers() == [7]


def test_recovering_as_another_user_is_refused_before_anything_is_made(oarlock, tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 4711)

    answer = oarlock("recover")

    assert answer.code == 1
    assert "belongs to another user" in answer.err
    assert not list(tmp_path.glob("oarlock.db*"))


def test_a_delivered_job_is_sent_again_as_the_same_object(tmp_path, capsys, monkeypatch):
    """The planner has deleted it: nothing is contoured anew."""
    write_config(tmp_path)
    oarlock = Oarlock(tmp_path / "oarlock.toml", capsys, monkeypatch)
    with ReceivingPeer() as tps:
        workplace = Workplace(tmp_path, ports={"tps": tps.port})
        job = workplace.segmented()
        assert workplace.deliver_all_due() == 1

        answer = oarlock("resend", job, "--to", "tps", "--because", "deleted by mistake")

        assert answer.out == f"job {job} is segmented\n"
        assert workplace.deliver_all_due() == 1
        first, second = tps.received
        assert workplace.job(job).state is JobState.DELIVERED
        history = [event.detail for event in workplace.queue.events(job)]
        workplace.queue.close()

    assert first.dataset_bytes == second.dataset_bytes
    assert any("sent again by" in detail and "deleted by mistake: tps" in detail for detail in history)


@pytest.mark.parametrize(
    ("sudo", "login", "who"), [("ada", "1", "ada"), ("root", "1", "daemon"), ("root", "-", "root")]
)
def test_the_history_names_who_logged_in(oarlock, queue, tmp_path, monkeypatch, sudo, login, who):
    """Also where `sudo -i` stands before `sudo -u oarlock`, which makes root of everybody."""
    (tmp_path / "loginuid").write_text(login)
    monkeypatch.setattr(cli_jobs, "_LOGIN", tmp_path / "loginuid")
    monkeypatch.setenv("SUDO_USER", sudo)
    job = queued(queue)

    oarlock("cancel", job)

    assert queue.events(job)[-1].detail == f"cancelled by {who}"
