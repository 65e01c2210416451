"""What is logged, in which form, and above all what never is."""

import io
import json
import logging
import subprocess
import sys
import threading
import warnings

import pytest
import structlog
from pydicom import Dataset
from pydicom.valuerep import PersonName

from daemon import logs
from daemon.errors import CannotStart


@pytest.fixture
def lines():
    """Logging configured to a stream; the lines written so far come back parsed."""
    stream = io.StringIO()
    before = (logging.root.handlers[:], logging.root.level, warnings.showwarning, threading.excepthook)
    logs.configure(stream, {})
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.root.handlers[:] = before[0]
    logging.root.setLevel(before[1])
    warnings.showwarning, threading.excepthook = before[2:]
    structlog.reset_defaults()


def test_an_event_is_one_line_of_json(lines):
    """The event, its level, its time in UTC and its fields, readable by a machine."""
    structlog.get_logger().info("job_claimed", job=7, series="1.2.3")
    (line,) = lines()

    assert (line["event"], line["level"], line["job"], line["series"]) == ("job_claimed", "info", 7, "1.2.3")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "key",
    [
        "patient",
        "patient_name",
        "PatientName",
        "patients_name",
        "patient_id",
        "other_patient_ids",
        "PatientBirthDate",
        "birth_date",
        "date_of_birth",
        "patient_sex",
        "mrn",
        "accession_number",
        "referring_physician_name",
    ],
)
def test_keys_of_patient_data_are_dropped_and_named(lines, key):
    """The value never appears, and the key says which call has to be corrected."""
    structlog.get_logger().warning("careless", job=1, nested={"more": [{key: "hush"}]}, **{key: "hush"})
    (line,) = lines()

    assert "hush" not in json.dumps(line)
    assert (line["job"], line["withheld"]) == (1, [key])


def test_dicom_values_are_dropped_whatever_their_key(lines):
    """Data sets and person names do not get into a log by a harmless name."""
    patient = Dataset()
    patient.PatientName = "DOE^HUSH"
    structlog.get_logger().info("careless", header=patient, by=PersonName("DOE^HUSH"))
    (line,) = lines()

    assert "HUSH" not in json.dumps(line)
    assert line["withheld"] == ["by", "header"]


@pytest.mark.parametrize("key", ["job", "series", "study", "ae_title", "reason_code", "destination", "path"])
def test_keys_of_work_are_kept(lines, key):
    """What an administrator needs to find the job stays."""
    structlog.get_logger().info("event", **{key: "x"})

    assert lines()[0][key] == "x"


def test_other_libraries_speak_from_warning_on(lines):
    """Standard logging comes in the same form, without the chatter that holds whole data sets."""
    logging.getLogger("pynetdicom.dimse").info("PatientName DOE^HUSH")
    logging.getLogger("alembic").warning("table %s is odd", "jobs")
    (line,) = lines()

    assert (line["event"], line["level"]) == ("table jobs is odd", "warning")


def test_a_library_that_quotes_values_is_not_quoted(lines):
    """A complaint about a value reaches the log without the value."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = logs._log_warning
        broken = Dataset()
        broken.PatientBirthDate = "HUSH"
        logging.getLogger("pydicom").error("bad value HUSH")
        logging.getLogger("pynetdicom").error(ValueError("bad value HUSH"))

    assert "HUSH" not in json.dumps(lines())
    assert {line["event"] for line in lines()} >= {"python_warning"}


def test_errors_of_threads_are_events(lines):
    """A thread that dies says so in the log, with its traceback."""
    thread = threading.Thread(target=lambda: 1 / 0, name="delivery")
    thread.start()
    thread.join()
    (line,) = lines()

    assert (line["event"], line["thread"]) == ("thread_failed", "delivery")
    assert "ZeroDivisionError" in line["exception"]


def test_a_traceback_shows_the_way_and_not_the_values(lines):
    """What an unforeseen error quotes stays out of the log, also from an error before it; our own words stay."""
    name = "DOE^HUSH"
    try:
        try:
            float(name)
        except ValueError as error:
            raise CannotStart("port 104 is taken") from error
    except CannotStart as error:
        structlog.get_logger().critical("role_failed", exc_info=error)
    try:
        {}[name]
    except KeyError:
        structlog.get_logger().exception("careless")
    first, second = lines()

    assert "HUSH" not in json.dumps([first, second])
    assert "ValueError: [withheld]" in first["exception"]
    assert first["exception"].endswith("CannotStart: port 104 is taken")
    assert second["exception"].endswith("KeyError: [withheld]")
    assert "test_logs.py" in first["exception"]


def test_the_journal_gets_priorities(lines):
    """Under systemd each line carries its priority, so that `journalctl -p err` finds the errors."""
    stream = io.StringIO()
    logs.configure(stream, {"JOURNAL_STREAM": "8:1"})
    structlog.get_logger().error("broken")
    structlog.get_logger().info("fine")
    first, second = stream.getvalue().splitlines()

    assert first.startswith('<3>{"timestamp"')
    assert second.startswith('<6>{"timestamp"')
    assert lines() == []


def test_a_terminal_gets_text_and_a_pipe_json():
    """People read lines, machines objects; both on standard error."""
    program = (
        "from daemon import logs; import structlog; logs.configure(); structlog.get_logger().info('hello')"
    )
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    on_terminal = subprocess.run(
        ["script", "-qec", f'{sys.executable} -c "{program}"', "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )

    assert json.loads(piped.stderr)["event"] == "hello"
    assert piped.stdout == ""
    assert "hello" in on_terminal.stdout
    assert "{" not in on_terminal.stdout


def test_what_a_peer_sends_does_nothing_to_the_terminal():
    """A calling AE title with escapes would clear the screen, one with a newline would make up a line."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream, before = Terminal(), logging.root.handlers[:]
    try:
        logs.configure(stream, {})
        structlog.get_logger().warning("association_rejected", calling="\x1b[2JA\nB")
        logging.getLogger("pynetdicom").error("calling \x1b[2JA\nB")
    finally:
        logging.root.handlers[:] = before
        structlog.reset_defaults()

    first, second = stream.getvalue().splitlines()
    assert "\x1b[2J" not in first + second
    assert "[2JA" in first
    assert "[2JA" in second
