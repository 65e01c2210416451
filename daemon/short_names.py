"""ROI Names that are too long for a destination, shortened so that they stay apart and keep their side."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from daemon.destination_profile import Profile
from daemon.side_words import SIDE_WORDS, WORD, sides
from model.structures import EXTRA_STRUCTURES, OTHER_PROTOCOLS, STRUCTURES

_MARGIN_WORD = re.compile(r"[A-Za-z]{0,4}[0-9]{1,3}|mm|PRV", re.IGNORECASE)
_SEPARATORS = "_ .-+(["
_LEAST_STEM = 4
"""Characters that stay of what stands before an ending."""

_ORGAN_NAMES = frozenset(each.name.casefold() for each in STRUCTURES + EXTRA_STRUCTURES + OTHER_PROTOCOLS)


def short_names(names: Sequence[str], profile: Profile) -> Mapping[str, str]:
    """Return the name that each structure has at a destination: its own where that fits.

    A longer one loses characters before its ending, because that tells left from right and an organ from its
    margin: `Submandibular_Gland_L` becomes `Submandibular_L`, and with `_ring` at its end `Submandib_L_ring`.
    What then equals another name, or an organ's in TG-263, is numbered.

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
        on_its_side = (each for each in _free(name, taken, profile) if sides(each) == sides(name))
        short = next(on_its_side, None) or next(_free(name, taken, profile))
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


def _free(name: str, taken: Collection[str], profile: Profile) -> Iterator[str]:
    candidates = _candidates(name, profile.max_name_length)
    return (each for each in candidates if _key(each, profile) not in taken)


def _candidates(name: str, limit: int) -> Iterator[str]:
    """The name where it fits, then shorter ones that are no organ's, the best first."""
    if len(name) <= limit:
        yield name
    stem, ending = _split(name, limit - _LEAST_STEM)
    for number in ("", *map(str, range(2, 1000))):
        short = stem[: limit - len(number) - len(ending)].rstrip(_SEPARATORS) + number + ending
        if short.casefold() not in _ORGAN_NAMES:
            yield short


def _split(name: str, room: int) -> tuple[str, str]:
    """What may lose characters, and the ending that is kept; of words behind a side, what has room."""
    found = list(WORD.finditer(name))
    side = max((n for n, word in enumerate(found) if word[0].lower() in SIDE_WORDS), default=len(found))
    first = len(found)
    while first and _tells_apart(found[first - 1][0]):
        first -= 1
    first = min(first, side)
    if first < side < len(found) and len(name) - found[first - 1].end() > room:
        first = side
    start = found[first - 1].end() if first else len(name)
    ending = name[start:]
    whole = (ending[:end].rstrip(_SEPARATORS) for end in range(min(room, len(ending)), 0, -1))
    return name[:start], next((each for each in whole if sides(each) == sides(ending)), "")


def _tells_apart(word: str) -> bool:
    return word.lower() in SIDE_WORDS or bool(_MARGIN_WORD.fullmatch(word))


def _key(name: str, profile: Profile) -> str:
    return name.casefold() if profile.names_ignore_case else name
