"""The C-FIND SCU (PS3.4 annex C): asks a sender how many images a series has, and leaves it at that."""

import time
from collections.abc import Callable, Iterator

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # pynetdicom makes its names at import
    StudyRootQueryRetrieveInformationModelFind,
)

from daemon.config import Config, Peer
from daemon.evidence import Evidence
from daemon.job_queue_rows import Job
from daemon.outgoing_association import NotDone, Timeouts, associated, peer_node
from daemon.transfer_syntaxes import UNCOMPRESSED

QUERY_TIMEOUTS = Timeouts(connection=5, association=10, response=20, stall=20)
MOST_SECONDS = 40.0
"""For all answers to one question."""

_PENDING = frozenset({0xFF00, 0xFF01})


class _Unanswered(Exception):  # noqa: N818 -- says what holds
    """The sender gave no usable answer, for the reason in the message."""


class SeriesQuery:
    """Asks the peers that the configuration names for it.

    Parameters
    ----------
    config
        Who is asked, and where.
    """

    def __init__(self, config: Config, timeouts: Timeouts = QUERY_TIMEOUTS) -> None:
        self._config = config
        self._timeouts = timeouts

    def is_asked(self, job: Job) -> bool:
        """Whether a job's sender is one of those."""
        return self._peer(job) is not None

    def ask(self, job: Job) -> Evidence | None:
        """Ask a job's sender for the number of images of its series; None where it is not to be asked."""
        peer = self._peer(job)
        if peer is None:
            return None
        context = build_context(StudyRootQueryRetrieveInformationModelFind, list(UNCOMPRESSED[:2]))
        node = peer_node(peer, peer.hosts[0])
        calling = self._config.node.ae_title
        try:
            with associated(node, calling, [context], self._timeouts, self._config.tls) as association:
                count = _count(association, job.study_instance_uid, job.series_instance_uid)
        except NotDone as reason:
            return Evidence(None, f"C-FIND of {peer.ae_title}: {reason.outcome.detail}")
        except _Unanswered as reason:
            return Evidence(None, f"C-FIND of {peer.ae_title}: {reason}")
        return Evidence(count, f"C-FIND of {peer.ae_title}")

    def _peer(self, job: Job) -> Peer | None:
        peers = self._config.peers
        return next((each for each in peers if each.query and each.ae_title == job.calling_ae_title), None)


def _count(association: Association, study_uid: str, series_uid: str) -> int:
    """Number of Series Related Instances; where it is not told, the instances one by one."""
    series = Dataset()
    series.QueryRetrieveLevel = "SERIES"
    series.StudyInstanceUID, series.SeriesInstanceUID = study_uid, series_uid
    series.NumberOfSeriesRelatedInstances = None
    # A peer that does not match by UID answers with every series it has.
    found = [each for each in _find(association, series) if each.get("SeriesInstanceUID") == series_uid]
    if not found:
        raise _Unanswered("it does not know the series")
    told = max(int(each.get("NumberOfSeriesRelatedInstances") or 0) for each in found)
    if told > 0:
        return told
    image = Dataset()
    image.QueryRetrieveLevel = "IMAGE"
    image.StudyInstanceUID, image.SeriesInstanceUID = study_uid, series_uid
    image.SOPInstanceUID = None
    uids = {
        each.get("SOPInstanceUID")
        for each in _find(association, image)
        if each.get("SeriesInstanceUID", series_uid) == series_uid
    }
    if not uids - {None, ""}:
        raise _Unanswered("it tells neither the number of images nor their UIDs")
    return len(uids - {None, ""})


def _find(
    association: Association, identifier: Dataset, clock: Callable[[], float] = time.monotonic
) -> Iterator[Dataset]:
    """Yield what matches; raises _Unanswered where the answers do not end in a success."""
    give_up_at = clock() + MOST_SECONDS
    try:
        for status, match in association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind):
            code = status.get("Status")
            if clock() > give_up_at:
                association.abort()
                raise _Unanswered(f"its answers had not ended after {MOST_SECONDS:g} s")
            if code in _PENDING and match is not None:
                yield match
            elif code != 0x0000 and code not in _PENDING:
                raise _Unanswered("it broke off" if code is None else f"it answered 0x{code:04X}")
    except (RuntimeError, ValueError) as error:  # pynetdicom: the association has ended, or no context fits
        raise _Unanswered("it does not answer Study Root queries") from error
