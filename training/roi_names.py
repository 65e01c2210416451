"""ROI names of any clinic to TG-263 names, by a table of synonyms; what the table does not hold is not guessed."""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.config import ORGANS

TABLE = Path(__file__).with_suffix(".toml")

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_SPELLING = re.compile(r"[A-Za-z0-9 _.,\-()/]+")
_AUXILIARY = re.compile(r"[_~]|z(?=[A-Z_ ])")
_LIGATURES = str.maketrans({"ß": "ss", "œ": "oe", "Œ": "Oe", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})


class NameTableError(Exception):
    """A table of names cannot be used; the message says which entry and why."""


@dataclass(frozen=True)
class Mapped:
    """What a ROI name stands for: an organ of `ORGANS`, or None with the reason why not."""

    organ: str | None
    reason: str = ""


@dataclass(frozen=True)
class RoiNames:
    """The table, made ready for look-up.

    Parameters
    ----------
    whole
        Letters and digits of a complete name, side included, to the organ.
    stems
        Language to letters of a name without its side, to the organ without its side.
    sides
        Language to side word to "L" or "R", the words of every language included.
    derived
        Words that make a name another volume of the organ.
    own
        Complete names of one clinic, exactly as written there; an empty organ means never to map the name.
    """

    whole: Mapping[str, str]
    stems: Mapping[str, Mapping[str, str]]
    sides: Mapping[str, Mapping[str, str]]
    derived: frozenset[str]
    own: Mapping[str, str] = field(default_factory=dict)

    def map(self, name: str) -> Mapped:
        """One ROI name; surrounding blanks do not count."""
        name = name.strip()
        if name in self.own:
            return Mapped(self.own[name] or None, "" if self.own[name] else "left out by the clinic's table")
        plain = ascii_letters(name)
        words = [word.lower() for word in _WORD.findall(plain)]
        return Mapped(None, why) if (why := self._why_not(plain, words)) else self._look_up(words)

    def _why_not(self, plain: str, words: list[str]) -> str:
        """Why a name cannot be that of an organ itself, whatever the table holds; empty if nothing says so."""
        if _AUXILIARY.match(plain):
            return f"begins with {plain[0]!r}: an auxiliary or partial volume (TG-263)"
        if made_of := sorted(self.derived.intersection(words)):
            return f"made from an organ ({', '.join(made_of)}), not the organ"
        return "" if _SPELLING.fullmatch(plain) else "has a character that may mean anything"

    def _look_up(self, words: list[str]) -> Mapped:
        organs = {self.whole.get("".join(words)), *self._between(words)} - {None}
        if len(organs) == 1:
            return Mapped(organs.pop())
        if organs:
            return Mapped(None, f"may mean {' or '.join(sorted(str(organ) for organ in organs))}")
        if any("".join(words) in stems for stems in self.stems.values()):
            return Mapped(None, "says no side")
        return Mapped(None, "not in the table of names")

    def _between(self, words: list[str]) -> Iterable[str]:
        """Organs of names whose side stands between other words."""
        for index, word in enumerate(words):
            rest = "".join(words[:index] + words[index + 1 :])
            for language, stems in self.stems.items():
                if rest in stems and word in self.sides[language]:
                    yield f"{stems[rest]}_{self.sides[language][word]}"


def load_names(own: Path | None = None) -> RoiNames:
    """The synonym table, and a clinic's own exact names beside it.

    Parameters
    ----------
    own
        TOML with a table `[names]`: a ROI name as the clinic writes it to a TG-263 name, or to "" for never.

    Raises
    ------
    NameTableError
        A table that cannot be read, an organ that is not known, one name for two organs.
    """
    table = _read(TABLE)
    sides = _sides(table["sides"])
    whole: dict[str, str] = {}
    stems: dict[str, dict[str, str]] = {language: {} for language in sides}
    for organ, synonyms in table["midline"].items():
        for key in _keys(name for names in synonyms.values() for name in names):
            _enter(whole, key, organ)
    for organ, synonyms in table["paired"].items():
        for language, names in synonyms.items():
            for key in _keys(names):
                _enter(stems[language], key, organ)
                for word, side in sides[language].items():
                    _enter(whole, key + word, f"{organ}_{side}")
                    _enter(whole, word + key, f"{organ}_{side}")
    return RoiNames(whole, stems, sides, frozenset(table["derived"]["words"]), _own_names(own) if own else {})


def ascii_letters(name: str) -> str:
    """The name without accents: "Rückenmark" to "Ruckenmark"."""
    spread = unicodedata.normalize("NFKD", name.translate(_LIGATURES))
    return "".join(letter for letter in spread if not unicodedata.combining(letter))


def _keys(names: Iterable[str]) -> set[str]:
    """Letters and digits of names, each umlaut both as its bare vowel and with an e behind it."""
    spellings = {ascii_letters(form) for name in names for form in (name, name.translate(_UMLAUTS))}
    return {"".join(_WORD.findall(spelling)).lower() for spelling in spellings}


def _sides(table: dict[str, dict[str, list[str]]]) -> dict[str, dict[str, str]]:
    def letters(language: str) -> dict[str, str]:
        words = table[language]
        return dict.fromkeys(words["left"], "L") | dict.fromkeys(words["right"], "R")

    return {language: letters("any") | letters(language) for language in table if language != "any"}


def _enter(table: dict[str, str], key: str, organ: str) -> None:
    if table.setdefault(key, organ) != organ:
        raise NameTableError(f"{key!r} stands for both {table[key]} and {organ} in {TABLE.name}")


def _own_names(path: Path) -> dict[str, str]:
    names = _read(path).get("names", {})
    unknown = sorted({str(organ) for organ in names.values() if organ and organ not in ORGANS})
    if unknown:
        raise NameTableError(f"{path}: {', '.join(unknown)} is none of {', '.join(ORGANS)}")
    if not names:
        raise NameTableError(f'{path} has no table [names] with lines such as "My Cord" = "SpinalCord"')
    return {str(name).strip(): str(organ) for name, organ in names.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NameTableError(f"{path} cannot be read: {error}") from error
