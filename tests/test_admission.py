"""Who may open an association, decided without a network."""

from pathlib import Path

import pytest

from daemon.admission import AssociationRequest, caller, overload, stranger
from daemon.dimse import Rejection
from tests.nodes import a_config

WELCOME = {
    "calling": "CT1",
    "called": "OARLOCK",
    "address": "10.1.2.3",
    "application_context": "1.2.840.10008.3.1.1.1",
}
CALLING = Rejection.CALLING_AE_TITLE_NOT_RECOGNISED
CALLED = Rejection.CALLED_AE_TITLE_NOT_RECOGNISED


def asked(**changes):
    return AssociationRequest(**WELCOME | changes)


def config(**sections):
    peers = [{"ae_title": "CT1", "hosts": ["10.1.0.0/16"]}, {"ae_title": "PACS"}]
    return a_config(Path("/nowhere"), **{"peers": peers} | sections)


def refusal(config, request):
    """The whole answer to one who asks while nobody else is there."""
    return stranger(config, request, caller(config, request))


def rush(config, request, titles, *, has_room=True):
    """The answer to a known one while others are there."""
    return overload(config, request, caller(config, request), titles, has_room=has_room)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"calling": "PACS", "address": "192.0.2.1"}, None),
        ({"calling": "CT2"}, CALLING),
        ({"calling": "ct1"}, CALLING),
        ({"address": "10.2.0.1"}, CALLING),
        ({"called": "ANY-SCP"}, CALLED),
        ({"called": "ANY-SCP", "calling": "CT2"}, CALLED),
        ({"application_context": "1.2.3"}, Rejection.APPLICATION_CONTEXT_NOT_SUPPORTED),
    ],
)
def test_a_stranger_is_refused_with_the_reason_that_tells_its_administrator_what_to_correct(
    changes, expected
):
    assert refusal(config(), asked(**changes)) is expected


def test_without_peers_nobody_may_send():
    assert refusal(config(peers=[]), asked()) is CALLING


def test_titles_that_a_route_is_made_for_are_ours_but_a_route_for_any_title_opens_nothing():
    routes = [{"called_ae_title": "OAR_HN", "destinations": []}, {"called_ae_title": "*", "destinations": []}]

    assert refusal(config(routes=routes), asked(called="OAR_HN")) is None
    assert refusal(config(routes=routes), asked(called="OTHER")) is CALLED
    assert refusal(config(routes=routes), asked(called="*")) is CALLED


@pytest.mark.parametrize(
    ("associations", "has_room", "expected"),
    [
        (19, True, None),
        (20, True, Rejection.LOCAL_LIMIT_EXCEEDED),
        (0, False, Rejection.TEMPORARY_CONGESTION),
        (20, False, Rejection.LOCAL_LIMIT_EXCEEDED),
    ],
)
def test_an_overloaded_node_asks_to_come_again(associations, has_room, expected):
    titles = ["CT9"] * associations
    assert rush(config(), asked(), titles, has_room=has_room) is expected
    assert expected is None or expected.value[0] == 2  # rejected-transient, PS3.8 table 9-21


def test_a_peer_that_holds_too_many_associations_does_not_keep_the_others_out():
    narrow = config(peers=[{"ae_title": "CT1", "max_associations": 2}, {"ae_title": "CT2"}])

    assert rush(narrow, asked(calling="CT1"), ["CT1"]) is None
    assert rush(narrow, asked(calling="CT1"), ["CT1", "CT1"]) is Rejection.LOCAL_LIMIT_EXCEEDED
    assert rush(narrow, asked(calling="CT2"), ["CT1", "CT1"]) is None
