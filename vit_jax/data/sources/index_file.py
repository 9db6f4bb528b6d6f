"""Files that hold an index of shards: where each record lies, in arrays that are mapped, not read.

The file is in the form of safetensors, with the arrays of all shards one after the other, and a
description of the shards in its metadata. 14 million TFRecords take 112 MB, which all workers of a
host share.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import safetensors.numpy

_FORM = 1
_LENGTH_BYTES = 8
_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(form) for name, form in (("U64", "<u8"), ("I32", "<i4"), ("U8", "u1"))
}

# Arrays by name, all of one length but `labels`, which may have another one.
Columns = dict[str, np.ndarray]


class Shard(NamedTuple):
    """A file of records.

    Attributes:
      name: its path below the directory of the index, which knows it by this name wherever that
        directory lies.
      path: absolute, or an address in a bucket.
      size: bytes.
      version: differs when the file was written again: the time of that, or a bucket's generation.
    """

    name: str
    path: str
    size: int
    version: str


class Scanned(NamedTuple):
    """What lies in one shard.

    Attributes:
      rows: number of records.
      columns: uint64, int32 or uint8 arrays of `rows` values. A column `labels` has another
        length: the column `label_ends` cuts it, and counts from the shard's first label.
      names: what the values of `labels` number, if they are names.
    """

    rows: int
    columns: Columns
    names: tuple[str, ...] = ()


class IndexedShard(NamedTuple):
    """One shard in an index file: the shard, where its rows begin, and how many there are."""

    shard: Shard
    first: int
    rows: int


class IndexFile(NamedTuple):
    """An index that was opened.

    Attributes:
      shards: by the name of the file.
      columns: of the rows of all shards; mapped.
      names: as in `Scanned`, of all shards.
    """

    shards: dict[str, IndexedShard]
    columns: Columns
    names: tuple[str, ...]

    def covers(self, shard: Shard) -> bool:
        """Whether it states what lies in a shard as the shard is now."""
        found = self.shards.get(shard.name)
        return found is not None and found.shard[2:] == shard[2:]

    def scanned(self, name: str) -> Scanned:
        """What it states of one shard."""
        _, first, rows = self.shards[name]
        columns = {key: values[first : first + rows] for key, values in self.columns.items()}
        if "label_ends" in columns:
            start = int(self.columns["label_ends"][first - 1]) if first else 0
            ends = columns["label_ends"]
            columns["labels"] = self.columns["labels"][start : int(ends[-1]) if rows else start]
            columns["label_ends"] = ends - np.uint64(start)
        return Scanned(rows, columns, self.names)


def to_bytes(found: Sequence[tuple[Shard, Scanned]]) -> bytes:
    """The content of an index file."""
    names: dict[str, int] = {}
    parts: dict[str, list[np.ndarray]] = {}
    shards, first, first_label = [], 0, 0
    for shard, (rows, own, own_names) in found:
        numbers = np.array([names.setdefault(n, len(names)) for n in own_names], np.int32)
        columns = dict(own)
        if own_names:
            columns["labels"] = np.where(
                columns["labels"] < 0, columns["labels"], numbers[columns["labels"]]
            ).astype(np.int32)
        if "label_ends" in columns:
            columns["label_ends"] = columns["label_ends"] + np.uint64(first_label)
            first_label += len(columns["labels"])
        for key, values in columns.items():
            parts.setdefault(key, []).append(values)
        shards.append([shard.name, shard.size, shard.version, first, rows])
        first += rows
    joined = {key: np.concatenate(values) for key, values in parts.items()}
    metadata = {"form": _FORM, "shards": shards, "names": list(names), "crc32c": _crc(joined)}
    return safetensors.numpy.save(joined, {"vit_jax": json.dumps(metadata)})


def open_index_file(path: Path, *, verify: bool) -> IndexFile | None:
    """Maps an index; None if there is none, or if it is damaged or of another form.

    Args:
      verify: whether all of it is read once to see that no byte has changed.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            # A damaged length must not take all memory.
            header = json.loads(file.read(min(length, path.stat().st_size)))
        metadata = json.loads(header.pop("__metadata__")["vit_jax"])
        if metadata["form"] != _FORM:
            return None
        start = _LENGTH_BYTES + length
        columns = {key: _mapped(path, start, about) for key, about in header.items()}
        if verify and _crc(columns) != metadata["crc32c"]:
            return None
        shards = {
            name: IndexedShard(Shard(name, "", size, version), first, rows)
            for name, size, version, first, rows in metadata["shards"]
        }
        return IndexFile(shards, columns, tuple(metadata["names"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(path: Path, start: int, about: dict[str, Any]) -> np.ndarray:
    dtype, (begin, end) = _DTYPES[about["dtype"]], about["data_offsets"]
    if begin == end:  # An empty map is an error.
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r", start + begin, ((end - begin) // dtype.itemsize,))


def _crc(columns: Columns) -> int:
    crc = 0
    for key in sorted(columns):
        crc = google_crc32c.extend(crc, np.ascontiguousarray(columns[key]))
    return crc
