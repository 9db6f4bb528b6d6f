"""What splits are called: `train`, `val` and `test` in the spellings of public data sets."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable, Mapping

from vit_jax.data.sources.splits import split_names
from vit_jax.errors import UserError

_KINDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
_WORD = re.compile(
    r"(?:seg|images?|data)?[ _-]*"
    rf"(?P<word>{'|'.join(word for words in _KINDS.values() for word in words)})"
    r"[ _-]*(?:set|data|images?|imgs?|split|folder|dir)?[ _-]*\d?"
)

_log = logging.getLogger(__name__)


def kind_of(name: str) -> str | None:
    """`train`, `val` or `test` if a name says so, in any of the usual spellings."""
    match = _WORD.fullmatch(name.lower())
    word = match["word"] if match else ""
    return next((kind for kind, words in _KINDS.items() if word in words), None)


def split_name(name: str, kinds: Mapping[str, str]) -> str:
    """Its usual spelling stays (`valid`); others become `train`, `val` or `test`.

    Args:
      kinds: of all splits of the data set that have one, by name.
    """
    kind = kinds.get(name)
    if kind is None or name in _KINDS[kind]:
        return name
    alike = [each for each in kinds if kinds[each] == kind]
    return kind if alike == [name] else name


def own_names(spec: str, splits: Iterable[str], where: str) -> str:
    """A split spec with each name as the data set has it: `val` where it calls that `valid`.

    Args:
      where: the data set, for messages.

    Raises:
      UserError: the data set has no such split.
    """
    splits = list(splits)
    by_kind: dict[str | None, list[str]] = {}
    for own in splits:
        by_kind.setdefault(kind_of(own), []).append(own)
    for name in split_names(spec):
        if name in splits or name == "all":
            continue
        kind = kind_of(name)
        alike = by_kind.get(kind, []) if kind is not None else []
        if not alike and kind == "test" and len(alike := by_kind.get("val", [])) == 1:
            say_once(f"{where} has no split {name!r}: {alike[0]!r} takes its place")
        if len(alike) != 1:
            raise UserError(
                f"{where} has no split {name!r}, but {', '.join(splits)}; name one of these in "
                f"place of {spec!r}"
            )
        spec = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", alike[0], spec)
    return spec


@functools.cache
def say_once(message: str) -> None:
    """Logs a line, unless that was done before."""
    _log.info("%s", message)
