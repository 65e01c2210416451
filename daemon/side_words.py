"""Which side a name says, in the languages of structure names."""

import re
from collections.abc import Mapping

from model.structures import LEFT, RIGHT, Code

WORD = re.compile(r"(?:[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+)[0-9]*|[0-9]+")
"""Digits stay with what they follow, so that the vertebra L5 is no left one."""

SIDE_WORDS: Mapping[str, Code] = {
    **dict.fromkeys(("l", "lt", "left"), LEFT),
    **dict.fromkeys(("r", "rt", "right"), RIGHT),
    **dict.fromkeys(("li", "lks", "links", "linke", "linker", "linkes"), LEFT),
    **dict.fromkeys(("re", "rts", "rechts", "rechte", "rechter", "rechtes"), RIGHT),
    "gauche": LEFT,
    **dict.fromkeys(("droit", "droite"), RIGHT),
    **dict.fromkeys(("sin", "sinister", "sinistra", "sinistro", "sx"), LEFT),
    **dict.fromkeys(("dext", "dexter", "dextra", "destra", "destro", "dx"), RIGHT),
    **dict.fromkeys(("izq", "izquierda", "izquierdo"), LEFT),
    **dict.fromkeys(("derecha", "derecho"), RIGHT),
}
"""In small letters; a language's own words of one letter, such as the French d, mean too much else."""


def words(name: str) -> tuple[str, ...]:
    """Return a name's words in small letters; underscores, capitals, digits and signs divide them."""
    return tuple(each.lower() for each in WORD.findall(name))


def sides(name: str) -> frozenset[Code]:
    """Every side that a name says; empty where it says none."""
    return frozenset(SIDE_WORDS[word] for word in words(name) if word in SIDE_WORDS)
