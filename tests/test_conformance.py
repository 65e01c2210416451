"""The conformance statement says what the code does."""

import re

import pytest
from pydicom.uid import CTImageStorage, RTStructureSetStorage
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from tests import conformance
from tests.conformance_network import CLASSES, accepted

PAGE = conformance.PAGE.read_text()


@pytest.mark.parametrize("name", conformance.TABLES)
def test_every_table_of_the_statement_is_as_the_code_has_it(name):
    """`python -m tests.conformance` writes them anew."""
    assert f"<!-- table: {name} -->\n\n{conformance.TABLES[name]()}\n<!-- end -->" in PAGE


def test_the_statement_has_every_table_once():
    assert sorted(conformance.named(PAGE)) == sorted(conformance.TABLES)


def test_a_changed_table_is_noticed():
    changed = PAGE.replace("0xA700", "0xA701")

    assert changed != PAGE
    assert conformance.filled(changed) != changed


def test_only_what_the_statement_lists_is_accepted_of_nearly_two_hundred_classes(tmp_path):
    sender, destination = accepted(tmp_path)

    assert len(CLASSES) > 150
    assert RTStructureSetStorage in CLASSES
    assert set(sender) == {Verification, StorageCommitmentPushModel, CTImageStorage}
    assert set(destination) == {Verification, StorageCommitmentPushModel}


def test_the_statement_follows_the_standard():
    """PS3.2 annex A: these chapters, in this order."""
    chapters = re.findall(r"^## \d+\. (.*)$", PAGE, re.MULTILINE)

    assert chapters == [
        "Overview",
        "Table of contents",
        "Introduction",
        "Networking",
        "Media interchange",
        "Support of character sets",
        "Security",
        "Annexes",
    ]
