"""Who may open an association, and when: the answer to an A-ASSOCIATE-RQ, off the network."""

from collections.abc import Collection
from dataclasses import dataclass

from daemon.config import Config
from daemon.config_values import ANY
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


def stranger(config: Config, asked: AssociationRequest) -> Rejection | None:
    """Return what will not pass by itself; may wait for the name service where a peer is named by its host."""
    if asked.application_context != _DICOM_APPLICATION_CONTEXT:
        return Rejection.APPLICATION_CONTEXT_NOT_SUPPORTED
    if asked.called not in _our_titles(config):
        return Rejection.CALLED_AE_TITLE_NOT_RECOGNISED
    if config.peer_for(asked.calling, asked.address, asked.certificate_sha256) is None:
        return Rejection.CALLING_AE_TITLE_NOT_RECOGNISED
    return None


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
    return None if has_room else Rejection.TEMPORARY_CONGESTION


def _our_titles(config: Config) -> set[str]:
    """Return the AE titles we answer to: the node's own, and those that a route is made for."""
    return {config.node.ae_title, *(route.called_ae_title for route in config.routes)} - {ANY}
