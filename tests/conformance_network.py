"""What the node negotiates, found out by negotiating with it: presentation contexts, both ways."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID, AllTransferSyntaxes, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (
    ModalityWorklistInformationFind,
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from daemon.commitment import Reference
from daemon.commitment_request import request_commitment
from daemon.config import Config, Destination
from daemon.delivery import echo, send
from daemon.job_queue_rows import Job
from daemon.outgoing_association import Timeouts
from daemon.series_query import SeriesQuery
from tests.nodes import a_config, receiving_node

_MOST_CONTEXTS = 100  # of one association; the limit is 128 (PS3.8 section 9.3.2.2)
_SERVICES = (
    Verification,
    StorageCommitmentPushModel,
    ModalityWorklistInformationFind,
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
CLASSES = tuple(
    dict.fromkeys([*_SERVICES, *(UID(each.abstract_syntax) for each in AllStoragePresentationContexts)])
)
"""Every SOP class that is proposed to the node."""

Contexts = dict[UID, list[UID]]
"""Abstract syntax to transfer syntaxes."""


def accepted(folder: Path) -> tuple[Contexts, Contexts]:
    """What the listener accepts of a sender, and of a destination that comes to report."""
    committing = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104, "commitment": True}
    with receiving_node(folder, peers=[{"ae_title": "CT1"}], destinations=[committing]) as node:
        return _negotiated(node.port, "CT1"), _negotiated(node.port, "PACS")


def _negotiated(port: int, title: str) -> Contexts:
    offered: list[tuple[UID, UID]] = [(each, ImplicitVRLittleEndian) for each in CLASSES]
    classes = dict.fromkeys(each for each, _ in _taken(port, title, offered))
    pairs = _taken(port, title, list(itertools.product(classes, AllTransferSyntaxes)))
    return {each: [syntax for found, syntax in pairs if found == each] for each in classes}


def _taken(port: int, title: str, offered: Sequence[tuple[UID, UID]]) -> list[tuple[UID, UID]]:
    found: list[tuple[UID, UID]] = []
    for start in range(0, len(offered), _MOST_CONTEXTS):
        part = offered[start : start + _MOST_CONTEXTS]
        roles = [build_role(StorageCommitmentPushModel, scp_role=True)] if title == "PACS" else []
        association = AE(title).associate(
            "127.0.0.1",
            port,
            contexts=[build_context(each, syntax) for each, syntax in part],
            ae_title="OARLOCK",
            ext_neg=roles,
        )
        if association.is_established:  # one without any accepted context is no association
            found += [
                (each.abstract_syntax, each.transfer_syntax[0]) for each in association.accepted_contexts
            ]
            association.release()
    return found


def proposed(folder: Path, files: Iterable[Path]) -> Contexts:
    """What the node proposes to others: with a destination for each kind of object, and with a sender it asks."""
    seen: Contexts = {}

    def note(event: evt.Event) -> None:
        for context in event.assoc.requestor.primitive.presentation_context_definition_list:
            known = seen.setdefault(UID(context.abstract_syntax), [])
            known += [UID(each) for each in context.transfer_syntax if each not in known]

    ae = AE("PEER")
    for each in (Verification, StorageCommitmentPushModel, StudyRootQueryRetrieveInformationModelFind):
        ae.add_supported_context(each)
    for context in AllStoragePresentationContexts[:100]:
        ae.add_supported_context(context.abstract_syntax)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_REQUESTED, note), *_silent_services()]
    )
    try:
        _call(server.server_address[1], folder, files)
    finally:
        server.shutdown()
    return {each: seen[each] for each in CLASSES if each in seen}


def _silent_services() -> list[tuple[evt.EventType, Callable[[evt.Event], object]]]:
    def finds(_event: evt.Event) -> Iterable[tuple[int, Dataset | None]]:
        yield 0x0000, None

    return [
        (evt.EVT_C_STORE, lambda _: 0x0000),
        (evt.EVT_N_ACTION, lambda _: (0x0000, None)),
        (evt.EVT_C_FIND, finds),
    ]


def _call(port: int, folder: Path, files: Iterable[Path]) -> None:
    node = Destination(name="peer", ae_title="PEER", host="127.0.0.1", port=port)
    hurried = Timeouts(report=0)
    assert echo(node, "OARLOCK").sent
    for path in files:
        send([path], node, "OARLOCK")
    request_commitment([Reference("1.2", "1.2.3")], "1.2.3.4", node, "OARLOCK", hurried)
    with suppress(AssertionError):
        SeriesQuery(_asking(folder, port)).ask(_job())


def _asking(folder: Path, port: int) -> Config:
    return a_config(folder, peers=[{"ae_title": "CT1", "hosts": ["127.0.0.1"], "port": port, "query": True}])


def _job() -> Job:
    now = datetime.now(UTC)
    return Job(calling_ae_title="CT1", study_instance_uid="1.2", series_instance_uid="1.2.3", created_at=now)
