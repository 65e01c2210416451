"""Text that came from elsewhere, made so that a terminal cannot take it for commands."""


def printable(text: str) -> str:
    """The text with a replacement character for whatever is no letter, digit, sign or space."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
