"""Names from files and servers, as they may be written where characters have effects.

A name may hold escape sequences, line breaks and marks that turn text around, or begin as a formula
does. Terminals and spreadsheets would follow them.
"""

import unicodedata

# Joiners that the words of some scripts need; they have no effect beside their neighbours.
_JOINERS = "\u200c\u200d"
# What spreadsheets take for the beginning of a formula, full-width forms included.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001


def plain(text: str) -> str:
    r"""A text on one line, of characters that only show themselves.

    Control, bidirectional and other invisible characters become `\uXXXX`, as do bytes of file names
    that are no text. A backslash is doubled, so that different texts stay different.
    """
    return "".join(map(_plain_character, text))


def plain_lines(text: str) -> str:
    """As `plain`, of each line of a text."""
    return "\n".join(map(plain, text.split("\n")))


def cell(text: str) -> str:
    """A text as a cell of a CSV file: plain, and with a quote in front of a formula."""
    shown = plain(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def _plain_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    kind = unicodedata.category(character)
    if kind in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS:
        number = ord(character)
        return f"\\u{number:04x}" if number < 2**16 else f"\\U{number:08x}"
    return character
