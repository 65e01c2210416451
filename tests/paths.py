"""Where tests find data that is not part of the repository."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_data() -> Path:
    """Folder of public test data beside the checkout; the calling test is skipped where there is none."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the public data sets in ../shared/data, which are not part of the repository")
    return folder
