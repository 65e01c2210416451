"""The tables of docs/conformance.md, made from what the code is and does.

`python -m tests.conformance` writes them anew.
"""

import ast
import inspect
import re
import ssl
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydicom.uid import UID

from daemon import tls
from daemon.commitment import FailureReason
from daemon.commitment_reporter import REPORT_TIMEOUTS
from daemon.commitment_reports import ReportStatus
from daemon.config import Config
from daemon.courier import OwnFailure
from daemon.delivery import ECHO_TIMEOUTS
from daemon.delivery_words import PeerStatus, is_stored, status_words
from daemon.dicom_port import NetworkLimits
from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Rejection, StorageStatus
from daemon.listener import VERSION_NOT_SUPPORTED
from daemon.outgoing_association import OutcomeKind, Timeouts
from daemon.series_query import QUERY_TIMEOUTS
from model.structures import STRUCTURES
from tests.conformance_network import Contexts, accepted, proposed
from tests.conformance_objects import fixed_values, modules, samples, written
from tests.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "conformance.md"
_TABLE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Row = Iterable[object]


def table(header: Row, rows: Iterable[Row]) -> str:
    """A table in Markdown."""
    titles = [*map(str, header)]
    lines = [titles, ["---"] * len(titles), *([*map(str, row)] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def attribute_docs(described: type) -> dict[str, str]:
    """The sentence below each attribute of a class, by its name."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(described))).body
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for statement, after in zip(body.body, body.body[1:], strict=False):
        target = (
            statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        )
        said = after.value if isinstance(after, ast.Expr) else None
        if isinstance(target, ast.Name) and isinstance(said, ast.Constant):
            docs[target.id] = " ".join(str(said.value).split())
    return docs


def _statuses(described: Any) -> str:
    docs = attribute_docs(described)
    rows = [(f"0x{each.value:04X}", _words(each.name), docs.get(each.name, "")) for each in described]
    return table(("status", "name", "when"), rows)


def _words(name: str) -> str:
    return name.replace("_", " ").lower()


def _implementation() -> str:
    return table(
        ("", ""),
        [
            ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
            ("Application Context", "1.2.840.10008.3.1.1.1"),
            (
                "Maximum PDU offered",
                f"{Config.model_fields['node'].default.max_pdu_bytes} bytes, configurable",
            ),
            (
                "Associations at a time",
                f"{Config.model_fields['node'].default.max_associations}, configurable",
            ),
            ("Asynchronous operations", "not supported: one at a time"),
        ],
    )


@cache
def _negotiated() -> tuple[Contexts, Contexts, Contexts]:
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        sender, destination = accepted(there / "node")
        return sender, destination, proposed(there, written(there, _samples()))


@cache
def _samples() -> Mapping[str, Any]:
    return samples()


def _contexts(found: Contexts, role: Callable[[UID], str]) -> str:
    rows = [
        (each.name, f"`{each}`", "; ".join(syntax.name for syntax in syntaxes), role(each))
        for each, syntaxes in found.items()
    ]
    return table(("SOP class", "UID", "transfer syntaxes", "role of oarlock"), rows)


def _rejections() -> str:
    rows: list[Row] = [(_words(each.name), *each.value, _WHEN_REJECTED[each]) for each in Rejection]
    version = "a version of the upper layer protocol other than 1"
    rows.append(("protocol version not supported", *VERSION_NOT_SUPPORTED, version))
    return table(("reason", "result", "source", "reason code", "when"), rows)


_WHEN_REJECTED = {
    Rejection.APPLICATION_CONTEXT_NOT_SUPPORTED: "another application context than DICOM's",
    Rejection.CALLING_AE_TITLE_NOT_RECOGNISED: "no [[peers]] has this AE title, address and certificate, and no "
    "[[destinations]] with `commitment` does",
    Rejection.CALLED_AE_TITLE_NOT_RECOGNISED: "neither the node's AE title nor one that a route is made for",
    Rejection.TEMPORARY_CONGESTION: "less free space than the watermark, except for storage commitment reports; "
    "or the node is stopping, or cannot find out whether to take it",
    Rejection.LOCAL_LIMIT_EXCEEDED: "as many associations as allowed, in all or of this peer",
}


def _answers_of_destinations() -> str:
    codes = [*PeerStatus, 0xB123, 0xA700, 0xA900, 0xC000, 0x0110]
    rows = []
    for code in sorted({*map(int, codes)}):
        shown = {0xB123: "0xBxxx", 0xA700: "0xA7xx", 0xA900: "0xA9xx", 0xC000: "0xCxxx"}.get(
            code, f"0x{code:04X}"
        )
        meaning = status_words(code, "").partition(": ")[2] or "stored"
        rows.append((shown, "stored" if is_stored(code) else "tried again", meaning))
    return table(("status", "counts as", "meaning"), rows)


def _outcomes() -> str:
    docs = {**attribute_docs(OutcomeKind), **attribute_docs(OwnFailure)}
    failures = [each for each in (*OutcomeKind, *OwnFailure) if each is not OutcomeKind.SENT]
    return table(("failure", "meaning"), [(each.value, docs[each.name]) for each in failures])


def _timeouts() -> str:
    listener, caller = attribute_docs(NetworkLimits), attribute_docs(Timeouts)
    rows: list[Row] = [
        (f"listener, {_words(field.name[:-8])}", f"{field.default:g}", listener[field.name])
        for field in fields(NetworkLimits)
        if field.name.endswith("_seconds")
    ]
    for field in fields(Timeouts):
        echo, query, answer = (
            getattr(each, field.name) for each in (ECHO_TIMEOUTS, QUERY_TIMEOUTS, REPORT_TIMEOUTS)
        )
        values = f"{field.default:g} (C-ECHO {echo:g}, C-FIND {query:g}, answers for commitment {answer:g})"
        if field.name == "report":
            values = f"{field.default:g}"
        rows.append((f"caller, {field.name}", values, caller[field.name]))
    return table(("timeout", "seconds", "of what"), rows)


def _configuration() -> str:
    rows: list[Row] = []
    for name, field in Config.model_fields.items():
        models = [field.annotation, *get_args(field.annotation)]
        section = next(each for each in models if isinstance(each, type) and issubclass(each, BaseModel))
        shown = f"[{name}]" if section in {field.annotation, *_optional(field.annotation)} else f"[[{name}]]"
        for key, each in section.model_fields.items():
            derived = field.default_factory is not None
            default = (
                "by other keys" if derived else "required" if each.is_required() else _default(each.default)
            )
            rows.append((shown, f"`{key}`", default))
    return table(("section", "key", "default"), rows)


def _optional(annotation: object) -> list[object]:
    arguments = get_args(annotation)
    return [*arguments] if type(None) in arguments else []


def _default(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _modules(kind: str) -> str:
    return table(("module", "usage", "attributes written"), modules(kind, _samples()[kind]))


def _fixed() -> str:
    rows = [(kind, *row) for kind, sample in _samples().items() for row in fixed_values(sample)]
    return table(("object", "attribute", "value"), rows)


def _codes() -> str:
    rows = [
        (
            each.name,
            f'{each.code.value} {each.code.scheme_designator} "{each.code.meaning}"',
            each.laterality.meaning if each.laterality else "",
            f"{each.fma} FMA",
        )
        for each in STRUCTURES
    ]
    return table(("structure (TG-263)", "code", "laterality", "or, by profile"), rows)


def _storage_role(each: UID) -> str:
    return "SCP, answers requests" if "Commitment" in each.name else "SCP"


def _suites() -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(tls._SUITES)
    rows = sorted((each["protocol"], each["name"]) for each in context.get_ciphers())
    return table(("protocol", "suite"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "implementation": _implementation,
    "accepted-of-senders": lambda: _contexts(_negotiated()[0], _storage_role),
    "accepted-of-destinations": lambda: _contexts(
        _negotiated()[1], lambda each: "SCU, takes reports" if "Commitment" in each.name else "SCP"
    ),
    "proposed": lambda: _contexts(_negotiated()[2], lambda _: "SCU"),
    "rejections": _rejections,
    "storage-statuses": lambda: _statuses(StorageStatus),
    "report-statuses": lambda: _statuses(ReportStatus),
    "failure-reasons": lambda: table(
        ("reason", "name"), [(f"0x{each.value:04X}", _words(each.name)) for each in FailureReason]
    ),
    "answers-of-destinations": _answers_of_destinations,
    "outcomes": _outcomes,
    "timeouts": _timeouts,
    "configuration": _configuration,
    "modules-rtstruct": lambda: _modules("rtstruct"),
    "modules-seg": lambda: _modules("seg"),
    "modules-secondary-capture": lambda: _modules("secondary-capture"),
    "modules-pdf": lambda: _modules("pdf"),
    "fixed-values": _fixed,
    "codes": _codes,
    "tls-suites": _suites,
}


def filled(page: str) -> str:
    """The page with every table as it is now; an unknown name raises KeyError."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", page)


def named(page: str) -> list[str]:
    """Tables that a page has."""
    return [found[2] for found in _TABLE.finditer(page)]


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
