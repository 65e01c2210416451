"""The page on reliability names tests that exist."""

import re

from tests.paths import REPOSITORY


def test_every_test_that_the_page_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (REPOSITORY / "docs" / "reliability.md").read_text()))
    there = {
        name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 30
    assert named - there == set()
