"""The classes of WebDataset tars, and the label of each sample, from what their index states.

Labels are numbers or names. A file `classnames.txt` or `classes.txt` beside the tars, or one folder
up, names the classes, a line each: it is what numbers count. Without such a file, names are sorted,
and the numbers from 0 to the largest one are the classes.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence

import numpy as np

from vit_jax.data.sources.shard_index import ShardIndex
from vit_jax.errors import UserError
from vit_jax.storage import objects

_FILES = ("classnames.txt", "classes.txt")
_NUMBER = re.compile(r"0|[1-9][0-9]*")
_MOST_CLASSES = 2**20
_LISTED_AT_MOST = 8

_log = logging.getLogger(__name__)


def has_lists(index: ShardIndex) -> bool:
    """Whether the labels of any sample stand in a list."""
    return bool(index.columns["is_list"][index.rows()].any())


def label_counts(index: ShardIndex) -> np.ndarray:
    """The number of labels of each sample, int [samples]."""
    ends = index.columns["label_ends"].astype(np.int64)
    return np.diff(ends, prepend=0)[index.rows()]


def find_classes(dataset: str, indexes: Sequence[ShardIndex]) -> tuple[str, ...]:
    """The classes of a data set; none if no sample has a label.

    Args:
      dataset: named in messages.
      indexes: of the tars that have all classes.

    Raises:
      UserError: a label is not in the file of class names, or a number is out of all bounds.
    """
    used = {name for index in indexes for name in _used_names(index)}
    path, names = _class_file(shard.path for index in indexes for shard in index.shards)
    if not used:
        return ()
    if not all(map(_NUMBER.fullmatch, used)):
        if path is None:
            return tuple(sorted(used))
        if strange := sorted(used - set(names)):
            raise UserError(
                f"data set {dataset}: {path} lacks class {strange[0]!r}; add it, or move the file"
            )
        _warn_of_empty(dataset, [name for name in names if name not in used])
        return names
    largest = max(map(int, used))
    if path is None and largest < _MOST_CLASSES:
        return tuple(map(str, range(largest + 1)))
    if largest >= len(names):
        reason = f"{path} has {len(names):,} lines" if path else "that is no number of a class"
        raise UserError(f"data set {dataset}: a label is {largest}, and {reason}; mend the labels")
    _warn_of_empty(dataset, [name for i, name in enumerate(names) if str(i) not in used])
    return names


def numbers_of_names(index: ShardIndex, class_names: Sequence[str], where: str) -> np.ndarray:
    """The class that each of an index's names means, int32 [names]; -1 for none.

    Args:
      where: the split, for messages.

    Raises:
      UserError: a sample has a label that is no class.
    """
    known = {name: number for number, name in enumerate(class_names)}
    used = _used_names(index)
    if all(map(_NUMBER.fullmatch, used)):
        known = {str(number): number for number in range(len(class_names))}
    if strange := [name for name in used if name not in known]:
        raise UserError(
            f"{where}: label {strange[0]!r} is not one of the {len(class_names)} classes; mend the "
            "labels, or name the classes in classnames.txt beside the tars"
        )
    return np.array([known.get(name, -1) for name in index.names], np.int32)


def _used_names(index: ShardIndex) -> list[str]:
    """Those of an index's names that samples of its shards have; others are of other shards."""
    ends = index.columns["label_ends"]
    used = np.zeros(len(index.names), bool)
    for first, stop in index.row_ranges():
        begin = int(ends[first - 1]) if first else 0
        used[index.columns["labels"][begin : int(ends[stop - 1]) if stop > first else begin]] = True
    return [index.names[i] for i in np.flatnonzero(used)]


def _class_file(tars: Iterable[str]) -> tuple[str | None, tuple[str, ...]]:
    """The file of class names that lies nearest to the tars, and its lines."""
    folders = dict.fromkeys(os.path.dirname(path) for path in tars)
    for folder in dict.fromkeys([*folders, *map(os.path.dirname, folders)]):
        for name in _FILES:
            path = os.path.join(folder, name)
            if objects.exists(path):
                try:
                    lines = objects.read_bytes(path).decode("utf-8-sig").splitlines()
                except UserError:
                    raise
                except (OSError, ValueError) as error:
                    raise UserError(f"{path}: cannot be read ({error}); mend it") from error
                names = tuple(line.strip() for line in lines if line.strip())
                if len(set(names)) < len(names):
                    raise UserError(f"{path}: a class stands in it twice; give each its own name")
                return path, names
    return None, ()


def _warn_of_empty(dataset: str, empty: Sequence[str]) -> None:
    if empty:
        more = ", …" if len(empty) > _LISTED_AT_MOST else ""
        _log.warning(
            "%s: %d classes have no image: %s%s",
            *(dataset, len(empty), ", ".join(empty[:_LISTED_AT_MOST]), more),
        )
