"""Reads tables of images and labels: CSV, with commas, semicolons or tabs, and JSON lines.

Rows are numbered from 1 as spreadsheets do, the heading of a CSV file included.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from vit_jax.errors import UserError
from vit_jax.reading import read_text
from vit_jax.spelling import nearest
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket

# Some eight million rows.
_MOST_BYTES = 2**29
# What a column is called, without case, spaces, dashes and underscores.
_COLUMNS = {
    "path": (
        *("path", "paths", "file", "files", "filename", "filenames", "filepath", "filepaths"),
        *("image", "images", "img", "imagepath", "imagefile", "imagefilename", "imagename"),
        *("imgpath", "fname"),
    ),
    "label": (
        *("label", "labels", "class", "classes", "classname", "classlabel", "category"),
        *("categories", "target", "targets", "tags"),
    ),
    "split": ("split", "splits", "set", "dataset", "subset", "partition"),
}
_SEPARATOR = "|"


class Row(NamedTuple):
    """One row.

    Attributes:
      number: in the file.
      path: as it is written.
      labels: as it is written, each without space around it; each once.
      has_list: whether the row has a list of labels, which may be of any length.
      split: None if the table has no such column.
    """

    number: int
    path: str
    labels: tuple[str, ...]
    has_list: bool
    split: str | None


def read_rows(path: PurePath, label: str | None) -> Iterator[Row]:
    """Reads a table, row by row; empty lines are passed over.

    Args:
      path: ends in .csv or .tsv; anything else holds JSON lines.
      label: the column of labels; None finds it by its name.

    Raises:
      UserError: the file cannot be read, or a row is not as `docs/data.md` describes it.
    """
    try:
        text = _read(path)
    except UnicodeDecodeError as error:
        raise UserError(
            f"table {path} is not in UTF-8 (byte {error.start}); save it as CSV UTF-8"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"table {path} cannot be read: {reason}") from error
    is_csv = path.suffix.lower() in (".csv", ".tsv")
    numbered = _csv_rows(path, text) if is_csv else _json_rows(path, text)
    columns: dict[str, str] | None = None
    for number, values in numbered:
        if columns is None:
            columns = _find_columns(path, list(values), label)
        yield _row(path, number, values, columns)


def _read(path: PurePath) -> str:
    if is_bucket(path):
        return objects.read_bytes(path).decode("utf-8-sig")
    return read_text(Path(path), _MOST_BYTES)


def problem(path: PurePath, row: int, what: str) -> UserError:
    """What is wrong with a row."""
    return UserError(f"table {path}, row {row}: {what}")


def _csv_rows(path: PurePath, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t", key=lambda each: (_known(first.split(each)), first.count(each)))
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    heading: list[str] | None = None
    number = 0
    try:
        for number, cells in enumerate(reader, 1):
            if not any(cells):
                continue
            if heading is None:
                heading = [cell.strip() for cell in cells]
                continue
            if len(cells) != len(heading):
                raise problem(
                    path,
                    number,
                    f"it has {len(cells)} cells, the heading {len(heading)}; put a text that holds "
                    f"a {delimiter!r} in double quotes",
                )
            yield number, dict(zip(heading, cells, strict=True))
    except csv.Error as error:
        raise problem(path, number + 1, f"{error}; check its quotes") from error


def _json_rows(path: PurePath, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise problem(path, number, f"it is no JSON ({error})") from error
        if not isinstance(value, dict):
            raise problem(path, number, 'it is no object, such as {"path": …, "label": …}')
        yield number, value


def _known(names: Sequence[str]) -> int:
    return sum(_plain(name) in known for name in names for known in _COLUMNS.values())


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower()).strip('"')


def _find_columns(path: PurePath, names: list[str], label: str | None) -> dict[str, str]:
    """The columns of a table, by what they are for."""
    found: dict[str, str] = {}
    for use, known in _COLUMNS.items():
        having = [name for name in names if _plain(name) in known]
        if use == "label" and label is not None:
            if label not in names:
                raise UserError(
                    f"label={label!r}: table {path} has no such column{nearest(label, names)}; "
                    f"its columns are {_list(names)}"
                )
            having = [label]
        if len(having) > 1:
            more = "name one with label=" if use == "label" else "rename all but one"
            raise UserError(f"table {path}: each of {_list(having)} could be the {use}; {more}")
        if not having and use != "split":
            example = "path,label" if path.suffix.lower() in (".csv", ".tsv") else "path and label"
            raise UserError(
                f"table {path}: its first row names no column of {use}s; name them as "
                f"{example}, not {_list(names)}"
            )
        found |= dict.fromkeys([use], *having) if having else {}
    return found


def _list(names: Sequence[str]) -> str:
    more = ", …" if len(names) > 8 else ""
    return ", ".join(repr(name) for name in names[:8]) + more


def _row(path: PurePath, number: int, values: dict[str, Any], columns: dict[str, str]) -> Row:
    for name in columns.values():
        if name not in values:
            raise problem(path, number, f"it has no {name!r}")
    file = values[columns["path"]]
    if not isinstance(file, str) or not file.strip():
        raise problem(path, number, f"{columns['path']} is {_shown(file)}, not a path")
    labels, has_list = _labels(path, number, columns["label"], values[columns["label"]])
    split = None
    if "split" in columns:
        split = values[columns["split"]]
        if not isinstance(split, str) or not split.strip():
            raise problem(path, number, f"{columns['split']} is {_shown(split)}, not a split")
        split = split.strip()
    return Row(number, file, labels, has_list, split)


def _labels(path: PurePath, number: int, column: str, value: Any) -> tuple[tuple[str, ...], bool]:
    values, has_list = [value], False
    if isinstance(value, list):
        values, has_list = value, True
    elif isinstance(value, str):
        values, has_list = _labels_of_text(value)
        if not has_list and value.strip().startswith(("['", '["')):
            raise problem(
                path, number, f'{column} is {_shown(value)}; write a list as a|b or ["a", "b"]'
            )
    names = []
    for each in values:
        is_number = isinstance(each, int) and not isinstance(each, bool)
        name = str(each).strip() if is_number or isinstance(each, str) else ""
        if not name and (has_list or not isinstance(each, str)):
            raise problem(path, number, f"{column} has {_shown(each)}, not a name or a number")
        names += [name] if name else []
    return tuple(dict.fromkeys(names)), has_list


def _labels_of_text(text: str) -> tuple[list[Any], bool]:
    """`a|b`, or a list in JSON; anything else is one label."""
    if text.strip().startswith("["):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return [text], False
        return value, True
    if _SEPARATOR in text:
        return text.split(_SEPARATOR), True
    return [text], False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
