"""What the program is made of: the bill of materials is true, and an audit never passes by not having looked."""

import io
import json
import re
import subprocess
import sys
from importlib.metadata import requires

import pytest
from rich.console import Console

from tests.audit import AUDITORS, Audit, licence, pinned, plain, tell
from tests.paths import REPOSITORY

OWN = {"oarlock", "pip", "setuptools"}
"""In every environment and pinned by nobody."""


def told(found):
    page = io.StringIO()
    code = tell(Console(file=page, width=200), {"pydicom": "3.0.2", "torch": "2.13.0"}, found)
    return code, page.getvalue()


def test_an_audit_without_a_database_fails_and_lists_what_is_pinned_with_licences():
    code, page = told("ConnectionError")
    assert code == 2
    assert "NOT AUDITED: the database of vulnerabilities cannot be reached (ConnectionError)" in page
    assert re.search(r"pydicom +3\.0\.2 +MIT", page)


def test_a_package_that_was_skipped_was_not_audited():
    report = {"dependencies": [{"name": "pydicom", "version": "3.0.2", "vulns": []}]}
    report["dependencies"].append({"name": "torch", "skip_reason": "not found"})
    code, page = told(Audit.of(report))
    assert code == 2
    assert "1 of 2 packages" in page
    assert "torch" in page


def test_a_known_vulnerability_fails_and_is_named():
    vulnerable = {"name": "torch", "version": "2.13.0", "vulns": [{"id": "PYSEC-1"}]}
    sound = {"name": "pydicom", "version": "3.0.2", "vulns": []}
    assert told(Audit.of({"dependencies": [vulnerable, sound]})) == (
        1,
        "VULNERABLE: torch 2.13.0: PYSEC-1\n2 packages audited, 1 of them vulnerable\n",
    )
    assert told(Audit.of({"dependencies": [sound, vulnerable | {"vulns": []}]}))[0] == 0


@pytest.mark.skipif(not AUDITORS.exists(), reason="`make test` installs the auditors, or `make sbom`")
def test_the_bill_of_materials_agrees_with_what_is_pinned(tmp_path):
    file = tmp_path / "sbom.json"
    subprocess.run(
        [AUDITORS, "-m", "cyclonedx_py", "environment", sys.prefix, "--pyproject", "pyproject.toml",
         "--output-reproducible", "--output-format", "JSON", "--output-file", file],
        cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    bill = json.loads(file.read_text())
    # torch's builds for one device carry it behind a plus sign.
    made_of = {plain(each["name"]): each["version"].partition("+")[0] for each in bill["components"]}
    versions = pinned()

    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "oarlock")
    wrong = {name: found for name, found in made_of.items() if versions.get(name) != found}
    assert set(wrong) <= OWN
    assert {
        plain(re.split(r"[ ;<>=\[]", each)[0]) for each in requires("oarlock") if "extra" not in each
    } <= set(made_of)
    # These two name their licence in a file alone.
    assert {each["name"] for each in bill["components"] if not each.get("licenses")} <= {
        "protobuf",
        "atheris",
    }


def test_every_library_that_is_pinned_is_pinned_exactly_and_has_a_licence():
    assert all(re.fullmatch(r"[\w.+]+", version) for version in pinned().values())
    assert licence("pydicom") == "MIT License"
    assert licence("no-such-thing") == "not installed here"
