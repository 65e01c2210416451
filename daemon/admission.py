"""Who may open an association, and when: the answer to an A-ASSOCIATE-RQ, off the network."""

from collections.abc import Collection
from dataclasses import dataclass

from daemon.config import Config
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


def stranger(config: Config, asked: AssociationRequest) -> Rejection | None:
    """Return what will not pass by itself; may wait for the name service where a peer is named by its host."""
    if asked.application_context != _DICOM_APPLICATION_CONTEXT:
        return Rejection.APPLICATION_CONTEXT_NOT_SUPPORTED
    if asked.called not in _our_titles(config):
        return Rejection.CALLED_AE_TITLE_NOT_RECOGNISED
    if not (may_send(config, asked) or _may_report(config, asked)):
        return Rejection.CALLING_AE_TITLE_NOT_RECOGNISED
    return None


def may_send(config: Config, asked: AssociationRequest) -> bool:
    """Whether it is one of the peers; who is not may come to report a storage commitment at most."""
    return config.peer_for(asked.calling, asked.address, asked.certificate_sha256) is not None


def _may_report(config: Config, asked: AssociationRequest) -> bool:
    """Whether it is a destination that was asked to commit what it stored, and may answer by calling us."""
    return any(
        each.commitment
        and each.ae_title == asked.calling
        and covers(each.host, asked.address)
        and (each.certificate_sha256 or asked.certificate_sha256) == asked.certificate_sha256
        for each in config.destinations
    )


def overload(
    config: Config, asked: AssociationRequest, open_titles: Collection[str], *, has_room: bool
) -> Rejection | None:
    """Return what passes: the sender should come again.

    Parameters
    ----------
    open_titles
        Calling AE titles of the associations that are open, once for each.
    """
    peer = config.peer_for(asked.calling, asked.address, asked.certificate_sha256)
    own = sum(title == asked.calling for title in open_titles)
    if len(open_titles) >= config.node.max_associations or (peer and own >= peer.max_associations):
        return Rejection.LOCAL_LIMIT_EXCEEDED
    if has_room or (not asked.wants_to_store and _may_report(config, asked)):
        return None  # without the reports nothing would be delivered, and so nothing purged
    return Rejection.TEMPORARY_CONGESTION


def _our_titles(config: Config) -> set[str]:
    """Return the AE titles we answer to: the node's own, and those that a route is made for."""
    return {config.node.ae_title, *(route.called_ae_title for route in config.routes)} - {ANY}
