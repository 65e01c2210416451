"""The storage commitment SCU (PS3.4 annex J): asks a destination whether it answers for what it has stored."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Event

from pydicom import Dataset
from pynetdicom import build_context, evt
from pynetdicom.pdu import P_DATA_TF

from daemon.commitment import STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE, Reference, request
from daemon.config import Destination, Tls
from daemon.outgoing_association import DeliveryOutcome, NotDone, OutcomeKind, Timeouts, associated, judged
from daemon.transfer_syntaxes import UNCOMPRESSED

_REQUEST_STORAGE_COMMITMENT = 1
"""Action Type ID (PS3.4 table J.3-1)."""


def request_commitment(
    references: Sequence[Reference],
    transaction_uid: str,
    destination: Destination,
    calling_ae_title: str,
    timeouts: Timeouts | None = None,
    tls: Tls | None = None,
    on_report: Callable[[int | None, Callable[[], Dataset]], int] = lambda *_: 0x0000,
) -> DeliveryOutcome:
    """Send an N-ACTION request, and stay for a while in case its answer comes on the same association.

    SENT means that the destination has taken the request, not that it has committed anything.

    Parameters
    ----------
    on_report
        Called in a thread of its own with the Event Type ID of an N-EVENT-REPORT and what decodes its Event
        Information; returns the status of the response.
    """
    timeouts = timeouts or Timeouts()
    heard, answered = Event(), Event()

    def on_event(event: evt.Event) -> tuple[int, None]:
        try:
            return on_report(event.event_type, lambda: event.event_information), None
        finally:
            heard.set()

    def on_sent(event: evt.Event) -> None:
        # What follows a report is our response to it; a release that overtook it would leave the peer waiting.
        if heard.is_set() and isinstance(event.pdu, P_DATA_TF):
            answered.set()

    def ask() -> Dataset:
        status, _ = association.send_n_action(
            request(transaction_uid, references),
            _REQUEST_STORAGE_COMMITMENT,
            STORAGE_COMMITMENT,
            WELL_KNOWN_INSTANCE,
        )
        answer: Dataset = status
        return answer

    contexts = [build_context(STORAGE_COMMITMENT, list(UNCOMPRESSED[:2]))]
    handlers: list[evt.EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, on_event), (evt.EVT_PDU_SENT, on_sent)]
    try:
        with associated(destination, calling_ae_title, contexts, timeouts, tls, handlers) as association:
            outcome = judged(ask, destination, timeouts, lambda status: status == 0x0000)
            if outcome.sent:
                answered.wait(timeouts.report)
    except NotDone as reason:
        outcome = reason.outcome
    return _in_words(outcome, destination, calling_ae_title)


def _in_words(outcome: DeliveryOutcome, destination: Destination, calling: str) -> DeliveryOutcome:
    """Say what stands in the way of a request where the words of a C-STORE would mislead."""
    title = destination.ae_title
    match outcome.kind:
        case OutcomeKind.CONTEXT:
            why = f"{title} offers no Storage Commitment Push Model to {calling}; enable it there"
        case OutcomeKind.UNKNOWN:
            why = (
                f"{title} gave no answer; it is asked again (it must know the address and port that it is to call "
                f"{calling} back on)"
            )
        case _:
            why = outcome.detail
    return replace(outcome, detail=f"stored, but its commitment could not be asked for: {why}")
