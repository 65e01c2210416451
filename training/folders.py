"""Which files lie under a folder."""

import os
from pathlib import Path


def files_under(root: Path) -> list[Path]:
    """Every file under a folder in order of the paths, through links too; of a folder reached twice, once."""
    found: list[Path] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        found += (path for name in names if (path := Path(folder, name)).is_file())
    return sorted(found)
