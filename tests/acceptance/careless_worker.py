"""`oarlock work` whose parts quote the patient when they fail, as libraries do.

    python -m tests.acceptance.careless_worker MODE WORDS_FILE work --config FILE

MODE is `sound`, `job` (the segmentation fails) or `role` (the whole worker does).
"""

import sys
from pathlib import Path
from typing import Any

from daemon import retry, worker
from daemon.cli import main
from model import segmenter
from tests.stub_segmenter import StubSegmenter


def careless(mode: str, words: str) -> None:
    """Put the parts in place."""

    def fail(*_arguments: Any) -> int:
        raise ValueError(f"could not convert string to float: {words!r}")

    retry.DELIVERY_BACKOFF = retry.JOB_BACKOFF = retry.Backoff(first_seconds=0.1, longest_seconds=0.2)
    stub = StubSegmenter(before=fail if mode == "job" else None)
    segmenter.Segmenter = lambda *_arguments: stub  # type: ignore[assignment, misc]
    if mode == "role":
        worker.purge_old = fail


if __name__ == "__main__":
    careless(sys.argv.pop(1), Path(sys.argv.pop(1)).read_text())
    sys.exit(main())
