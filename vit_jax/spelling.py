"""What a person meant by a name that does not exist."""

import difflib
from collections.abc import Iterable

_LISTED_AT_MOST = 12


def near(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that was meant, or None.

    It differs in case, is an abbreviation by initials (`lr` for `learning_rate`, or the other way
    round), or differs by a slip of the finger.
    """
    spellings = {k.lower(): k for k in known}
    name = name.lower()
    if name in spellings:
        return spellings[name]
    for lowered, spelling in spellings.items():
        if lowered == _initials(name) or name == _initials(lowered):
            return spelling
    close = difflib.get_close_matches(name, spellings, n=1)
    return spellings[close[0]] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the end of an error message: "; did you mean 'x'?", otherwise the known names."""
    known = list(known)
    meant = near(name, known)
    if meant is not None:
        return f"; did you mean {meant!r}?"
    more = ", …" if len(known) > _LISTED_AT_MOST else ""
    return f"; known: {', '.join(known[:_LISTED_AT_MOST]) or '(none)'}{more}"


def _initials(name: str) -> str:
    words = name.split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else name
