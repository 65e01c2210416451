"""The proof at the end of the chaos test sees what is lost, doubled, mixed up or untrue."""

import hashlib
import sqlite3
from contextlib import closing

import pytest

from daemon.part10 import read_part10
from tests import chaos
from tests.acceptance.processes import Installation
from tests.peers import ReceivingPeer
from tests.workplace import Workplace


class Settled:
    """A job that was sent to both destinations, as the chaos test leaves it."""

    def __init__(self, folder, tps, pacs) -> None:
        self.installation = Installation(folder, 0)
        self.installation.root.mkdir()
        self.peers = {"tps": tps, "pacs": pacs}
        self.place = Workplace(
            self.installation.root, ports={name: peer.port for name, peer in self.peers.items()}
        )
        self.job = self.place.queue_phantom()
        self.place.runner().run_next()
        self.place.deliver_all_due()
        self.images = self.place.spool.instance_paths(self.job)
        self.tally = chaos.Tally(series_sent=1)
        for path in self.images:
            digest = hashlib.sha256(read_part10(path)[1]).hexdigest()
            self.tally.acknowledged[chaos._uid(path)] = digest
        # The workplace writes down the digest of whole files, reception that of data sets.
        for path in self.images:
            self.sql(
                "UPDATE instances SET sha256 = ? WHERE sop_instance_uid = ?",
                self.tally.acknowledged[chaos._uid(path)],
                chaos._uid(path),
            )

    def sql(self, statement, *values):
        """Change the job table behind everybody's back."""
        with closing(sqlite3.connect(self.installation.root / "oarlock.db")) as table:
            table.execute(statement, values)
            table.commit()

    def violations(self):
        """What the proof finds."""
        self.tally.violations.clear()
        chaos.verify(self.installation, self.peers, self.tally)
        return self.tally.violations


@pytest.fixture
def settled(tmp_path):
    with ReceivingPeer() as tps, ReceivingPeer() as pacs:
        settled = Settled(tmp_path, tps, pacs)
        yield settled
        settled.place.queue.close()


def test_what_is_as_it_should_be_is_no_violation(settled):
    assert settled.violations() == []


def lose_an_image(settled):
    settled.sql("DELETE FROM instances WHERE id = (SELECT max(id) FROM instances)")


def alter_an_image(settled):
    settled.images[3].write_bytes(settled.images[3].read_bytes()[:-2] + b"xx")


def lose_a_result(settled):
    settled.peers["pacs"].received.clear()


def double_a_result(settled):
    one = settled.peers["tps"].received[0]
    settled.peers["tps"].received.append(
        type(one)(**vars(one) | {"dataset_bytes": one.dataset_bytes + b"\0\0"})
    )


def mix_up(settled):
    settled.sql("UPDATE jobs SET series_instance_uid = '1.2.3'")


def say_what_is_not_true(settled):
    settled.sql("UPDATE jobs SET state = 'segmented'")


def skip_a_step(settled):
    settled.sql("DELETE FROM job_events WHERE to_state = 'segmenting'")


def lose_a_series(settled):
    settled.tally.series_sent += 1


@pytest.mark.parametrize(
    "harm",
    [
        lose_an_image,
        alter_an_image,
        lose_a_result,
        double_a_result,
        mix_up,
        say_what_is_not_true,
        skip_a_step,
        lose_a_series,
    ],
)
def test_what_is_not_is_one(settled, harm):
    harm(settled)

    assert settled.violations()
