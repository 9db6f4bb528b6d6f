"""Tables of images: a row for each, with its path, its label or labels and its split.

Paths are absolute, or below the folder that holds the table. `table_rows.py` states what a table
looks like.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from vit_jax.data.sources.labelled_files import (
    File,
    FoundFiles,
    LabelledFiles,
    draw_test,
    refuse_fraction,
    require_fraction,
    shuffled,
)
from vit_jax.data.sources.layout import class_name
from vit_jax.data.sources.split_words import kind_of, split_name
from vit_jax.data.sources.table_files import find_files
from vit_jax.data.sources.table_rows import Row, problem, read_rows
from vit_jax.errors import UserError
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path, is_bucket

# As TFDS's syntax takes them.
_SPLIT = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)


class TableSource(LabelledFiles):
    """The images of one split, or slices of splits, of a table.

    Args:
      label: the column of labels; None finds it by its name.
      max_labels: the most that a record may have, where rows have several. None: the table's most.

    Raises:
      UserError: the table or the split does not exist, or a row of it is refused.
    """

    def __init__(
        self,
        dataset: str,
        split: str,
        test_fraction: float | None = None,
        label: str | None = None,
        max_labels: int | None = None,
    ) -> None:
        found = _read(_absolute(dataset), _version(dataset), test_fraction, label, max_labels)
        super().__init__(dataset, split, found, f"table {dataset}", dataset)


def table_splits(dataset: str, label: str | None = None) -> tuple[str, ...]:
    """Names of the splits that a table has; none if it has no column of them.

    Args:
      label: as in `TableSource`.

    Raises:
      UserError: the table cannot be read, or a row of it is refused.
    """
    found = _read(_absolute(dataset), _version(dataset), None, label, None)
    return () if found.test_fraction is not None else tuple(found.splits)


def _absolute(dataset: str) -> str:
    # Worker processes need not share the current directory.
    return os.fspath(as_path(dataset))


def _version(dataset: str) -> str | None:
    """Tells a table that was changed, as from a notebook, from the one that was read before."""
    try:
        return objects.version(_absolute(dataset))
    except OSError as error:
        if isinstance(error, UserError):  # A bucket tells what is wrong.
            raise
        return None  # What reads it tells why.


@functools.lru_cache(maxsize=8)
def _read(
    path: str,
    version: str | None,
    test_fraction: float | None,
    label: str | None,
    max_labels: int | None,
) -> FoundFiles:
    del version
    table, root = as_path(path), os.path.dirname(path)
    rows = [_normal(table, root, row) for row in read_rows(table, label)]
    if not rows:
        raise UserError(f"table {table} has no rows of images")
    rows, missing = find_files(root, rows)
    _refuse_duplicates(table, rows)
    _require_files(table, root, missing)
    names = class_names(rows)
    has_lists = any(row.has_list for row in rows)
    if not has_lists:
        _require_label(table, rows)
        max_labels = None
    else:
        max_labels = _most_labels(table, rows, max_labels)
    numbers = {name: label for label, name in enumerate(names)}
    splits: dict[str | None, list[Row]] = {}
    for row in rows:
        splits.setdefault(row.split, []).append(row)

    def file(row: Row) -> File:
        labels = tuple(numbers[name] for name in row.labels)
        return File(os.fsencode(row.path), -1 if has_lists else labels[0], labels)

    if None in splits:
        where = str(table)
        test_fraction = require_fraction(test_fraction, where)
        by_class: dict[int, list[File]] = {}
        for each in map(file, rows):
            by_class.setdefault(each.label, []).append(each)
        drawn = draw_test(list(by_class.values()), test_fraction)
        return FoundFiles(root, names, drawn, test_fraction, max_labels)
    named = _named_splits(table, {name: rows for name, rows in splits.items() if name is not None})
    refuse_fraction(test_fraction, str(table), named)
    _require_classes_in_train(table, named)
    files = {name: shuffled([file(row) for row in rows]) for name, rows in named.items()}
    return FoundFiles(root, names, files, None, max_labels)


def class_names(rows: Sequence[Row]) -> tuple[str, ...]:
    """All labels, sorted: numbers by value, so that classes 0 to 9 have these numbers."""
    names = sorted({name for row in rows for name in row.labels})
    if all(re.fullmatch(r"0|[1-9][0-9]{0,8}", name) for name in names):
        names.sort(key=int)
    return tuple(names)


def _normal(table: PurePath, root: str, row: Row) -> Row:
    """A row whose path is below the root if the file is, and whose names are in one form."""
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", row.path) and not is_bucket(row.path):
        raise problem(
            table,
            row.number,
            f"{row.path}: only addresses of buckets are taken (gs://, s3://); download "
            "the images first",
        )
    path = row.path if is_bucket(row.path) else os.path.normpath(row.path)
    if is_bucket(path) and path.startswith(f"{root}/"):
        path = path.removeprefix(f"{root}/")
    if os.path.isabs(path) and path.startswith(os.path.join(root, "")):
        path = os.path.relpath(path, root)
    try:
        is_path = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # Half of a surrogate pair.
        is_path = False
    if not is_path:
        raise problem(table, row.number, f"{row.path!r} is not a path")
    if row.split is not None and (row.split == "all" or _SPLIT.fullmatch(row.split) is None):
        raise problem(
            table,
            row.number,
            f"split {row.split!r}: use letters, digits, - and _, such as train, val or test; 'all' "
            "means all of them",
        )
    return row._replace(path=path, labels=tuple(dict.fromkeys(map(class_name, row.labels))))


def _refuse_duplicates(table: PurePath, rows: Sequence[Row]) -> None:
    seen: dict[str, Row] = {}
    for row in rows:
        first = seen.setdefault(row.path, row)
        if first is row:
            continue
        if first.labels != row.labels and first.split == row.split:
            more = "several labels of an image stand in one row, as a|b"
        elif first.split != row.split:
            more = f"one is in split {first.split!r}, the other in {row.split!r}"
        else:
            more = "remove one"
        raise problem(table, row.number, f"{row.path} is in row {first.number} already; {more}")


def _require_files(table: PurePath, root: str, missing: Sequence[Row]) -> None:
    if missing:
        more = f" (and {len(missing) - 1:,} more are missing)" if len(missing) > 1 else ""
        hint = f"paths are read from {root}"
        if all(os.path.isfile(row.path) for row in missing):
            hint += ", where the table lies, not from the current folder"
        raise problem(table, missing[0].number, f"there is no file {missing[0].path}{more}; {hint}")


def _require_label(table: PurePath, rows: Sequence[Row]) -> None:
    for row in rows:
        if not row.labels:
            raise problem(table, row.number, "it has no label; fill it in, or remove the row")


def _most_labels(table: PurePath, rows: Sequence[Row], max_labels: int | None) -> int:
    most = max(rows, key=lambda row: len(row.labels))
    if max_labels is not None and len(most.labels) > max_labels:
        raise problem(
            table,
            most.number,
            f"it has {len(most.labels)} labels, and max_labels={max_labels}; leave that out",
        )
    return max_labels or max(len(most.labels), 1)


def _named_splits(table: PurePath, splits: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """The splits under the names that they get; two spellings of one are refused."""
    kinds = {name: kind for name in splits if (kind := kind_of(name)) is not None}
    lowered: dict[str, str] = {}
    for name, rows in splits.items():
        other = lowered.setdefault(name.lower(), name)
        if other != name:
            raise problem(table, rows[0].number, f"split {name!r} is {other!r} in other rows")
    return {split_name(name, kinds): rows for name, rows in splits.items()}


def _require_classes_in_train(table: PurePath, splits: Mapping[str, list[Row]]) -> None:
    """Every class must be one to train on."""
    train = next((name for name in splits if kind_of(name) == "train"), None)
    if train is None:
        return
    known = {label for row in splits[train] for label in row.labels}
    for name, rows in splits.items():
        for row in rows:
            if strange := [label for label in row.labels if label not in known]:
                raise problem(
                    table,
                    row.number,
                    f"class {strange[0]!r} of split {name!r} has no image in {train!r}; add one, "
                    "or remove the row",
                )
