"""The pages that promise something name tests that exist."""

import re

import pytest

from tests.paths import REPOSITORY


@pytest.mark.parametrize(("page", "at_least"), [("reliability.md", 30), ("security.md", 50)])
def test_every_test_that_the_page_names_exists(page, at_least):
    named = set(re.findall(r"`(test_\w+)`", (REPOSITORY / "docs" / page).read_text()))
    there = {
        name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(named) >= at_least
    assert named - there == set()
