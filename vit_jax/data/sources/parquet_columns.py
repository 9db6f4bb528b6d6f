"""The columns of images and labels in Parquet files, and the classes that labels mean."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.sources.parquet_file import checked_parquet
from vit_jax.errors import UserError
from vit_jax.spelling import nearest

# Names of columns where the metadata of `datasets` does not say what they are.
_IMAGES = ("image", "img", "jpg", "png", "pixel_values")
_LABELS = ("label", "labels", "fine_label", "class", "cls", "category")
_NO_LABEL = -1
_LARGEST = 2**31 - 1  # Labels are int32.


class Columns(NamedTuple):
    """What is read of a file.

    Attributes:
      image: the column of images.
      is_struct: whether it holds structs with `bytes`.
      label: the column of labels; None if there is none.
      names: of the classes, by their numbers, where the metadata has them.
      has_lists: whether a row has a list of labels.
    """

    image: str
    is_struct: bool
    label: str | None
    names: tuple[str, ...] | None
    has_lists: bool

    def read_labels(self, file: Any, path: str) -> np.ndarray:
        """The labels of a `pyarrow.parquet.ParquetFile` in row order.

        Args:
          path: of the file, for messages.

        Returns:
          int64 [rows] for numbers, -1 where there is none; otherwise objects: names, or lists.

        Raises:
          UserError: a label is a number with a fraction.
        """
        import pyarrow

        if self.label is None:
            return np.full(file.metadata.num_rows, _NO_LABEL, np.int64)
        column = file.read(columns=[self.label]).column(0)
        if pyarrow.types.is_integer(column.type):
            return np.asarray(column.fill_null(_NO_LABEL).to_numpy(), np.int64)
        values = column.to_pylist()
        # As pandas has integers where some are missing.
        if pyarrow.types.is_floating(column.type):
            whole = [_whole(each, path, row, self.label) for row, each in enumerate(values)]
            return np.array(whole, np.int64)
        inside = getattr(column.type, "value_type", None)
        if self.has_lists and inside is not None and pyarrow.types.is_floating(inside):
            values = [
                [_whole(each, path, row, self.label) for each in some or ()]
                for row, some in enumerate(values)
            ]
        rows = np.empty(len(column), object)
        rows[:] = values
        return rows

    def read_images(self, file: Any, group: int) -> list[bytes]:
        """The encoded images of one group of rows; b"" where a row has none."""
        wanted = f"{self.image}.bytes" if self.is_struct else self.image
        column = file.read_row_group(group, columns=[wanted]).column(0)
        if self.is_struct:
            return [(each or {}).get("bytes") or b"" for each in column.to_pylist()]
        return [each or b"" for each in column.to_pylist()]


def _whole(value: float | None, path: str, row: int, label: str) -> int:
    """A label that is kept as a float, as a number; -1 if there is none."""
    if value is None or math.isnan(value):
        return _NO_LABEL
    if not float(value).is_integer() or abs(value) > _LARGEST:
        raise UserError(
            f"{path}: row {row} has {label}={value:g}, which is no number of a class; name another "
            "column by --config.data.label=COLUMN, or write whole numbers"
        )
    return int(value)


def find_columns(dataset: str, path: str, label: str | None) -> Columns:
    """The columns of a data set, by one of its files.

    Args:
      label: the column that a user names.

    Raises:
      UserError: the file cannot be read, or has no such columns.
    """
    import pyarrow

    with checked_parquet(path) as file:
        schema = file.schema_arrow
    features = _features(schema.metadata or {})
    image = next((n for n, f in features.items() if f.get("_type") == "Image"), None)
    image = image or next((n for n in _IMAGES if n in schema.names), None)
    if image is None:
        raise UserError(
            f"data set {dataset}: {path} has no column of images, but {', '.join(schema.names)}; "
            f"name the column {_IMAGES[0]!r}"
        )
    kind = schema.field(image).type
    is_struct = bool(pyarrow.types.is_struct(kind))
    is_bytes = pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
    if not is_bytes and not (is_struct and kind.get_field_index("bytes") >= 0):
        raise UserError(
            f"data set {dataset}: column {image!r} of {path} holds {kind}, and not encoded images"
        )
    if label is not None and label not in schema.names:
        raise UserError(
            f"data set {dataset}: {path} has no column {label!r}{nearest(label, schema.names)}; "
            f"it has {', '.join(schema.names)}"
        )
    chosen = label or _label_column(dataset, features, schema.names)
    names, has_lists = None, False
    if chosen is not None:
        names = _names(features.get(chosen))
        found = schema.field(chosen).type
        kinds = pyarrow.types
        is_list = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)
        has_lists = any(each(found) for each in is_list)
    return Columns(image, is_struct, chosen, names, has_lists)


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """What `datasets` wrote of each column; empty if it did not."""
    try:
        found = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: each if isinstance(each, dict) else {"feature": each} for name, each in found.items()
    }


def _label_column(dataset: str, features: Mapping[str, Any], names: Sequence[str]) -> str | None:
    with_names = [name for name in features if _names(features[name]) is not None]
    if len(with_names) > 1 and "label" not in with_names:
        raise UserError(
            f"data set {dataset}: several columns hold classes ({', '.join(with_names)}); name one "
            f"by --config.data.label={with_names[0]}"
        )
    if with_names:
        return "label" if "label" in with_names else with_names[0]
    return next((name for name in _LABELS if name in names), None)


def _names(feature: Any) -> tuple[str, ...] | None:
    """The class names of a feature, also of one in a list."""
    while isinstance(feature, list) and feature:
        feature = feature[0]
    if not isinstance(feature, dict):
        return None
    if isinstance(feature.get("names"), list):
        return tuple(map(str, feature["names"]))
    return _names(feature.get("feature"))


def class_numbers(
    dataset: str, columns: Columns, train: str, labels: Mapping[str, np.ndarray]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The classes, and the number of each label.

    Classes are those that the metadata names. Otherwise they are the names in `train`, sorted, or
    all numbers up to the largest one there.

    Args:
      labels: of each split, as `Columns.read_labels`.

    Returns:
      By split int32 [rows], -1 for no label; lists of tuples where rows have lists.

    Raises:
      UserError: a label is in no class.
    """
    names = columns.names or _classes_in(labels[train])
    by_name = {name: number for number, name in enumerate(names)}

    def number(split: str, row: int, label: Any) -> int:
        if label is None or label == _NO_LABEL:
            return _NO_LABEL
        found = label if isinstance(label, int) else by_name.get(str(label), len(names))
        if not 0 <= found < len(names):
            raise UserError(
                f"data set {dataset}: row {row} of {split} has label {label!r}, which is none of "
                f"the {len(names)} classes of {train}; correct it, or leave it out"
            )
        return int(found)

    numbers: dict[str, Any] = {}
    for split, rows in labels.items():
        if columns.has_lists:
            numbers[split] = [
                tuple(number(split, i, each) for each in row or ()) for i, row in enumerate(rows)
            ]
        elif rows.dtype == object:
            found = (number(split, i, row) for i, row in enumerate(rows))
            numbers[split] = np.fromiter(found, np.int32, len(rows))
        else:
            wrong = np.flatnonzero((rows < _NO_LABEL) | (rows >= len(names)))
            if len(wrong):
                number(split, int(wrong[0]), int(rows[wrong[0]]))
            numbers[split] = rows.astype(np.int32)
    return names, numbers


def _classes_in(rows: np.ndarray) -> tuple[str, ...]:
    if rows.dtype != object:
        return tuple(str(number) for number in range(int(rows.max(initial=_NO_LABEL)) + 1))
    used = {x for row in rows for x in (row if isinstance(row, list) else [row])} - {None}
    if all(isinstance(each, int) for each in used):
        return tuple(str(number) for number in range(max(used, default=_NO_LABEL) + 1))
    return tuple(sorted(map(str, used)))
