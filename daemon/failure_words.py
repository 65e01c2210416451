"""What an unexpected error may say to an administrator: where and why, and nothing of the patient."""

import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from daemon.job_queue_rows import Job
from daemon.job_records import JobRecord
from daemon.logs import WITHHELD

LONGEST = 600
"""Characters of an error's own words; some libraries print whole arrays."""

_DATE = re.compile(
    # Not within a UID or an address, whose numbers stand between dots.
    r"(?<!\d)(?<!\d\.)"
    r"((19|20)\d\d[-./]?[01]\d[-./]?[0-3]\d|[0-3]?\d[-./][01]?\d[-./](19|20)\d\d)"
    r"(?!\d)(?!\.\d)"
)


def describe(error: BaseException, job: Job) -> str:
    """Return kind, words and place of an error, without the identifiers of the job's patient."""
    words = without_patient(str(error), job)[:LONGEST] or "no further words"
    return f"{type(error).__name__}: {words} ({place(error)})"


def place(error: BaseException) -> str:
    """Return the file, line and function where an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "no traceback"
    last = frames[-1]
    return f"{Path(last.filename).name}:{last.lineno} in {last.name}"


def call_path(error: BaseException) -> list[str]:
    """Return the way to an error, outermost first, for the log: a traceback without any values."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def without_patient(text: str, job: Job | JobRecord) -> str:
    """Return a text with the patient's name, id, accession number and every date replaced.

    Libraries quote the value they complain about, and it may be a name or a birth date.
    """
    for secret in sorted(_identifiers(job), key=len, reverse=True):
        # An underscore separates, as in names of files; scripts without blanks separate nothing.
        bounded = rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])" if secret.isascii() else re.escape(secret)
        text = re.sub(bounded, WITHHELD, text, flags=re.IGNORECASE)
    return _DATE.sub(WITHHELD, text)


def _identifiers(job: Job | JobRecord) -> Iterator[str]:
    """Every string that points at the patient; shorter ones identify nobody and are part of ordinary words."""
    name = job.patient_name or ""
    yield from (joined for each in name.split("=") if len(joined := each.replace("^", "")) >= 3)
    yield from (part for part in re.split(r"[\^=\s,]+", name) if len(part) >= 2)
    yield from (value for value in (name, job.patient_id, job.accession_number) if len(value) >= 3)


def is_cuda_fault(error: BaseException) -> bool:
    """Whether the GPU context of this process is broken: nothing but a new process mends that."""
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)
    )
