"""Two hundred kills while studies stream in: nothing lost, nothing doubled, no state that is not true."""

import shutil

import pytest

from tests.chaos import IMAGES, chaos
from tests.chaos_places import PLACES

KILLS = 200


@pytest.mark.skipif(not shutil.which("storescu"), reason="needs DCMTK")
@pytest.mark.timeout(1800)
def test_two_hundred_kills_lose_double_and_falsify_nothing(tmp_path):
    def go_on(seen):
        """On a slow machine it takes more kills until each kind of place was hit."""
        kills = sum(seen.kills.values())
        return kills < KILLS or (kills < 3 * KILLS and not set(seen.places) >= set(PLACES))

    tally = chaos(tmp_path / "node", seed=20261124, go_on=go_on)

    assert tally.violations == []
    assert sum(tally.kills.values()) >= KILLS
    assert set(tally.places) >= set(PLACES)
    assert tally.series_sent > 10
    assert len(tally.acknowledged) == IMAGES * tally.series_sent
