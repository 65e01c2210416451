"""ROI Names that are too long for a destination, shortened so that they stay apart and keep their side."""

import re
from collections.abc import Iterable, Mapping, Sequence

from daemon.destination_profile import Profile

_ENDING = re.compile(
    r"(?:[_ .-](?:L|R|[A-Za-z]{0,4}[0-9]{1,3}(?:mm)?|PRV|[Ll]t|[Rr]t|[Ll]eft|[Rr]ight))+$", re.IGNORECASE
)
_SEPARATORS = "_ .-"


def short_names(names: Sequence[str], profile: Profile) -> Mapping[str, str]:
    """Return the name that each structure has at a destination: its own where that fits.

    A longer one loses characters before its ending, because that tells left from right and an organ from its
    margin: `Submandibular_Gland_L` becomes `Submandibular_L`. What then equals another name is numbered.

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
    match = _ENDING.search(name)
    ending = match[0] if match and len(match[0]) < limit - 3 else ""
    stem = name.removesuffix(ending)
    yield stem[: limit - len(ending)].rstrip(_SEPARATORS) + ending
    for number in range(2, 1000):
        yield stem[: limit - len(ending) - len(str(number))].rstrip(_SEPARATORS) + str(number) + ending


def _key(name: str, profile: Profile) -> str:
    return name.casefold() if profile.names_ignore_case else name
