"""Destinations that are asked for storage commitment, and answer here, elsewhere, badly or never."""

import threading
from contextlib import contextmanager

from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage
from pynetdicom import AE, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from tests.conditions import wait_until


class Archive:
    """A destination's storage commitment: notes the requests, and answers some on their own association.

    Parameters
    ----------
    here
        For each request that is answered at once, what is not committed: SOP Instance UID to Failure Reason, or
        a function of the UIDs that were asked for.
    status
        Of the N-ACTION responses.
    """

    def __init__(self, *here, status=0x0000):
        self.requests = []
        self.answers = []
        self._here = list(here)
        self._status = status

    def __call__(self, event):
        """Take an N-ACTION request."""
        information = event.action_information
        uids = [item.ReferencedSOPInstanceUID for item in information.ReferencedSOPSequence]
        self.requests.append((information.TransactionUID, uids))
        if self._here:
            failed = self._here.pop(0)
            failed = failed(uids) if callable(failed) else failed
            report = report_of(information.TransactionUID, uids, failed)
            threading.Thread(target=self._answer, args=(event.assoc, *report), daemon=True).start()
        return self._status

    def _answer(self, association, information, event_type):
        # The response to the request goes first; while its handler runs, the library would let this overtake it.
        wait_until(lambda: not association._is_paused, "the response to the request")
        status, _ = association.send_n_event_report(
            information, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.answers.append(status.get("Status"))


def report_of(transaction, uids, failed=()):
    """Event Information and Event Type ID of an answer."""
    failed = dict(failed)
    information = Dataset()
    information.TransactionUID = transaction
    information.ReferencedSOPSequence = [item_of(uid) for uid in uids if uid not in failed]
    if failed:
        information.FailedSOPSequence = [item_of(uid, reason) for uid, reason in failed.items()]
    return information, 2 if failed else 1


def item_of(uid, reason=None):
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = RTStructureSetStorage, uid
    if reason is not None:
        item.FailureReason = reason
    return item


@contextmanager
def calling(port, title="RECEIVER", *, with_role=True, contexts=(StorageCommitmentPushModel,)):
    """An association that a destination opens to us, to report as SCP."""
    ae = AE(title)
    for context in contexts:
        ae.add_requested_context(context)
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)] if with_role else []
    association = ae.associate("127.0.0.1", port, ae_title="OARLOCK", ext_neg=roles)
    try:
        yield association
    finally:
        association.release()


def call_back(port, transaction, uids, failed=(), event_type=None, **how):
    """Report on an association of the destination's own; returns the status of our response."""
    information, usual = report_of(transaction, uids, failed)
    with calling(port, **how) as association:
        assert association.is_established
        status, _ = association.send_n_event_report(
            information, event_type or usual, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        return status.get("Status")
