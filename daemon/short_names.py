"""ROI Names that are too long for a destination, shortened so that they stay apart and keep their side."""

import re
from collections.abc import Iterable, Mapping, Sequence

from daemon.destination_profile import Profile

_ENDING = re.compile(
    r"(?:[_ .-](?:L|R|[A-Za-z]{0,4}[0-9]{1,3}(?:mm)?|PRV|[Ll]t|[Rr]t|[Ll]eft|[Rr]ight))+$", re.IGNORECASE
)
_SIDE = re.compile(r"[_ .-](?:L|R|Lt|Rt|Left|Right)(?=[_ .-]|$)", re.IGNORECASE)
_SEPARATORS = "_ .-"
_LEAST_STEM = 4
"""Characters that stay of what stands before an ending."""


def short_names(names: Sequence[str], profile: Profile) -> Mapping[str, str]:
    """Return the name that each structure has at a destination: its own where that fits.

    A longer one loses characters before its ending, because that tells left from right and an organ from its
    margin: `Submandibular_Gland_L` becomes `Submandibular_L`, and with `_ring` at its end `Submandib_L_ring`.
    What then equals another name is numbered.

    Parameters
    ----------
    names
        Of all structures of the set, found or not, so that a name does not depend on what was found.
    """
    limit = profile.max_name_length
    taken: set[str] = set()
    shortened: dict[str, str] = {}
    # Names that fit come first: nobody loses an own name to a shortened one.
    for name in sorted(names, key=lambda each: len(each) > limit):
        short = next(each for each in _candidates(name, limit) if _key(each, profile) not in taken)
        taken.add(_key(short, profile))
        shortened[name] = short
    return shortened


def shortening_remarks(shortened: Mapping[str, str], profile: Profile) -> list[str]:
    """Return a sentence for each name that had to change."""
    return [
        f"{name} is called {short} for {profile.name}, whose names have {profile.max_name_length} characters"
        for name, short in shortened.items()
        if name != short
    ]


def _candidates(name: str, limit: int) -> Iterable[str]:
    if len(name) <= limit:
        yield name
    stem, ending = _split(name, limit - _LEAST_STEM)
    yield stem[: limit - len(ending)].rstrip(_SEPARATORS) + ending
    for number in range(2, 1000):
        yield stem[: limit - len(ending) - len(str(number))].rstrip(_SEPARATORS) + str(number) + ending


def _split(name: str, room: int) -> tuple[str, str]:
    """What may lose characters, and the ending that is kept; of words behind a side, what has room."""
    match = _ENDING.search(name)
    start = match.start() if match else len(name)
    side = max((each.start() for each in _SIDE.finditer(name)), default=start)
    if side < start:
        return name[:side], name[side:][:room].rstrip(_SEPARATORS)
    ending = name[start:]
    return (name[:start], ending) if len(ending) <= room else (name, "")


def _key(name: str, profile: Profile) -> str:
    return name.casefold() if profile.names_ignore_case else name
