"""Logging: one event per line, JSON for machines and colours for a terminal, and never a patient's data."""

import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from daemon.printable import printable

log = structlog.get_logger()

# Keywords of the Patient Module (PS3.3 C.7.1.1) and what else points at a person, in plain lower case.
_PATIENT_KEYS = re.compile(
    r"(other|issuerof|referenced)?patients?(names?|ids?|birth|birthdate|birthname|birthtime|sex|age|size|weight|"
    r"address|comments|mothersbirthname|telephonenumbers?|dataset)?|"
    r"birth(date|day|name|time)|dateofbirth|dob|accession(number)?|medicalrecordlocator|mrn|"
    r"(referring|performing|requesting)?physicians?(name)?|operatorsname"
)
# What these complain about they quote, and it may be a name or a birth date.
_QUOTING = ("pydicom", "highdicom")
# Errors whose words never name a patient: ours by the house's rule, the system's as paths come from no peer.
_OURS = ("daemon", "model")
WITHHELD = "[withheld]"
_SYSLOG_PRIORITY = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


def configure(
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
    least: int = logging.INFO,
    role: str | None = None,
) -> None:
    """Send structlog, stdlib logging, warnings and uncaught errors of threads to one stream, in one form.

    Other libraries speak from WARNING upwards only: below, pynetdicom writes whole data sets.

    Parameters
    ----------
    stream
        Standard error where none is given.
    environ
        Tells whether systemd's journal reads the stream.
    least
        Level below which nothing is written.
    role
        Stands in every line, to tell processes that share a terminal apart.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        withhold_patient_data,
        partial(_in_reading_order, role),
    ]
    rendering = _for_people() if stream.isatty() else _for_machines(environ)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    handler.addFilter(_without_quotations)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, least))
    structlog.configure(
        processors=[*shared, *rendering],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Lossy(stream))),
        wrapper_class=structlog.make_filtering_bound_logger(least),
    )
    warnings.showwarning = _log_warning
    threading.excepthook = _log_thread_error


class _Lossy:
    """A stream that drops what cannot be written: a full disk below the log must not end the work it tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def withhold_patient_data(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop what may identify a patient, at any depth, and name the keys under `withheld`.

    The last line of defence: a key here is a mistake where the event is logged.
    """
    withheld: list[str] = []
    clean = _clean(event, withheld)
    if withheld:
        clean["withheld"] = sorted(set(withheld))
    return clean


def _in_reading_order(role: str | None, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    return {**first, **({"role": role} if role else {}), **event}


def _clean(values: Mapping[str, Any], withheld: list[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        plain = str(key).lower().replace("_", "").replace("-", "").replace(" ", "")
        if _PATIENT_KEYS.fullmatch(plain) or type(value).__module__.startswith("pydicom."):
            withheld.append(str(key))
        elif isinstance(value, Mapping):
            kept[key] = _clean(value, withheld)
        elif isinstance(value, list | tuple):
            kept[key] = [_clean(item, withheld) if isinstance(item, Mapping) else item for item in value]
        else:
            kept[key] = value
    return kept


def _for_machines(environ: Mapping[str, str]) -> list[Processor]:
    rendering: list[Processor] = [_traceback_without_values]
    if environ.get("JOURNAL_STREAM"):
        return [*rendering, _with_priority]
    return [*rendering, structlog.processors.JSONRenderer(default=str)]


def _with_priority(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Return the JSON line behind its priority (sd-daemon(3)), which journald takes off again."""
    priority = _SYSLOG_PRIORITY.get(str(event.get("level")), 6)
    return f"<{priority}>{structlog.processors.JSONRenderer(default=str)(logger, method, event)!s}"


def _for_people() -> list[Processor]:
    return [
        _traceback_without_values,
        _harmless,
        structlog.dev.ConsoleRenderer(
            pad_event_to=26, exception_formatter=structlog.dev.plain_traceback, timestamp_key="timestamp"
        ),
    ]


def _harmless(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what is no letter: a terminal would obey what any machine that reaches the port has sent."""
    return {key: _letters(key, value) if isinstance(value, str) else value for key, value in event.items()}


def _letters(key: str, text: str) -> str:
    lines = text.split("\n") if key == "exception" else [text]
    return "\n".join(map(printable, lines))


def _traceback_without_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Turn an exception into the way to it: what the libraries say they quote, and it may be a name."""
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()[1]
    elif isinstance(given, list | tuple):
        given = given[1]
    if isinstance(given, BaseException):
        event["exception"] = "\n\nwhile handling this:\n\n".join(_chain(given))
    return event


def _chain(error: BaseException | None) -> Iterator[str]:
    """Tracebacks of an error and of those before it, the first one first."""
    if error is None:
        return
    yield from _chain(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
    kind = type(error)
    words = (
        str(error) if kind.__module__.partition(".")[0] in _OURS or isinstance(error, OSError) else WITHHELD
    )
    yield "".join(traceback.format_tb(error.__traceback__)) + f"{kind.__qualname__}: {words}"


def _without_quotations(record: logging.LogRecord) -> bool:
    """Leave out what comes as a warning as well; replace a text that may quote a data set by its place."""
    quotes = record.name.partition(".")[0] in _QUOTING
    if quotes or isinstance(record.msg, Exception):
        record.msg, record.args = f"{record.name}: remark from {record.module}, line {record.lineno}", None
        record.exc_info = record.exc_text = None
    return not quotes or record.levelno > logging.WARNING


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 -- the names are those of `warnings.showwarning`
    line: str | None = None,  # noqa: ARG001 -- likewise
) -> None:
    quotes = any(f"/{package}/" in filename for package in _QUOTING)
    log.warning(
        "python_warning",
        category=category.__name__,
        place=f"{filename}:{lineno}",
        **({} if quotes else {"text": str(message)}),
    )


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        log.error(
            "thread_failed",
            thread=args.thread.name if args.thread else None,
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )
