"""Who may open an association, and when: the answer to an A-ASSOCIATE-RQ, off the network."""

from collections.abc import Collection
from dataclasses import dataclass

from daemon.config import Config, Peer
from daemon.config_values import ANY, covers
from daemon.dimse import Rejection

_DICOM_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


@dataclass(frozen=True, kw_only=True)
class AssociationRequest:
    """Who asks, from which IP address, for whom (PS3.8 section 7.1.1)."""

    calling: str
    called: str
    address: str
    application_context: str
    certificate_sha256: str = ""
    wants_to_store: bool = True
    """Whether it proposes a class of images, or only verification and storage commitment."""


@dataclass(frozen=True)
class Caller:
    """What the configuration knows of who asks."""

    peer: Peer | None
    """Who is none may come to report a storage commitment at most."""
    may_report: bool
    """Whether it is a destination that was asked to commit what it stored, and may answer by calling us."""


def caller(config: Config, asked: AssociationRequest) -> Caller:
    """Look up who asks; may wait for the name service where the configuration names a host by its name."""
    may_report = any(
        each.commitment
        and each.ae_title == asked.calling
        and covers(each.host, asked.address)
        and (each.certificate_sha256 or asked.certificate_sha256) == asked.certificate_sha256
        for each in config.destinations
    )
    return Caller(config.peer_for(asked.calling, asked.address, asked.certificate_sha256), may_report)


def stranger(config: Config, asked: AssociationRequest, known: Caller) -> Rejection | None:
    """Return what will not pass by itself."""
    if asked.application_context != _DICOM_APPLICATION_CONTEXT:
        return Rejection.APPLICATION_CONTEXT_NOT_SUPPORTED
    if asked.called not in _our_titles(config):
        return Rejection.CALLED_AE_TITLE_NOT_RECOGNISED
    if not (known.peer or known.may_report):
        return Rejection.CALLING_AE_TITLE_NOT_RECOGNISED
    return None


def overload(
    config: Config, asked: AssociationRequest, known: Caller, open_titles: Collection[str], *, has_room: bool
) -> Rejection | None:
    """Return what passes: the sender should come again.

    Parameters
    ----------
    open_titles
        Calling AE titles of the associations that are open, once for each.
    """
    own = sum(title == asked.calling for title in open_titles)
    if len(open_titles) >= config.node.max_associations or (
        known.peer and own >= known.peer.max_associations
    ):
        return Rejection.LOCAL_LIMIT_EXCEEDED
    if has_room or (not asked.wants_to_store and known.may_report):
        return None  # without the reports nothing would be delivered, and so nothing purged
    return Rejection.TEMPORARY_CONGESTION


def _our_titles(config: Config) -> set[str]:
    """Return the AE titles we answer to: the node's own, and those that a route is made for."""
    return {config.node.ae_title, *(route.called_ae_title for route in config.routes)} - {ANY}
