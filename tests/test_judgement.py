"""What is doubtful is told, and by a route's policy marked or held back."""

import pytest

from daemon.jobs import JobState
from daemon.judgement import doubts, hold_reason, judge
from model.findings import Finding, Severity
from tests.peers import ReceivingPeer
from tests.phantom import make_grid
from tests.structure_set_samples import ct_volume, organ_masks
from tests.workplace import Workplace

WARNING = Finding("volume-unusual", Severity.WARNING, "Eye_L", "14 cm³; usual are 6 to 11")
HOLD = Finding("upside-down", Severity.HOLD, None, "the head is where the tags say the feet are")
NOTE = Finding("not-judged", Severity.NOTE, None, "there are no ranges")


@pytest.mark.parametrize(
    ("policy", "held", "marked"),
    [
        ("send", [], False),
        ("warn", [HOLD], True),
        ("hold", [WARNING, HOLD], True),
    ],
)
def test_a_routes_policy_decides_what_is_held_and_what_is_marked(policy, held, marked):
    for finding in (NOTE, WARNING, HOLD):
        assert bool(hold_reason([finding], policy)) is (finding in held)
    assert bool(doubts([NOTE, WARNING], policy)) is marked
    assert doubts([NOTE], policy) == ()


def test_the_reason_says_what_was_found_and_does_not_grow_without_bound():
    assert hold_reason([HOLD], "warn") == "image: the head is where the tags say the feet are"
    assert hold_reason([HOLD] * 9, "warn").endswith("; and 6 more findings")


def test_doubts_name_each_structure_once_the_gravest_first():
    assert doubts([WARNING, WARNING, HOLD], "warn") == ("image", "Eye_L")


def test_a_phantom_is_held_until_somebody_releases_it(tmp_path):
    with ReceivingPeer() as tps:
        workplace = Workplace(tmp_path, ports={"tps": tps.port}, doubtful="warn", qa_sheet="png")
        job = workplace.segmented()

        assert workplace.spool.result_path(job, "qa_sheet.png").read_bytes().startswith(b"\x89PNG")

        assert workplace.job(job).state is JobState.HELD
        assert workplace.job(job).reason
        assert "hold" in {each.severity for each in workplace.queue.findings(job)}
        assert workplace.deliver_all_due() == 0

        workplace.queue.release(job, "released by a physicist")
        assert workplace.deliver_all_due() == 1
        assert workplace.job(job).state is JobState.DELIVERED
        workplace.queue.close()
    assert len(tps.received) == 1


def test_what_the_network_doubts_and_leaves_out_is_judged_too():
    grid = make_grid()
    found = judge(ct_volume(grid), organ_masks(grid), None, {"Brain": 0.6}, {"Parotid_L": 0.3})
    told = {(each.code, each.structure) for each in found}
    assert {("uncertain-organ", "Brain"), ("parts-left-out", "Parotid_L")} <= told
