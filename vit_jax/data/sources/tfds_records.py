"""The serialised examples of a prepared TFDS data set by position, from ArrayRecord or TFRecord."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath

from vit_jax.data.sources.shard_copies import local_copies
from vit_jax.data.sources.shard_files import shards_at
from vit_jax.data.sources.shard_index import ShardIndex, open_index
from vit_jax.data.sources.splits import SplitRange, locate
from vit_jax.data.sources.tfds_builders import one_line, open_directory
from vit_jax.data.sources.tfrecord import payload, scan_tfrecord
from vit_jax.errors import UserError
from vit_jax.storage.cache import Cache
from vit_jax.storage.paths import is_bucket
from vit_jax.storage.pieces import Piece, PieceReader

_REMEDY = "restore it, or prepare the data set again"


class SerialisedExamples(Protocol):
    """The examples of some ranges of splits, one range after the other. It is pickled."""

    def open(self) -> None:
        """Opens all shards.

        Raises:
          UserError: one is missing or damaged.
        """
        ...

    def read(self, indices: Sequence[int]) -> Iterator[bytes | Exception]:
        """The examples at some indices, in that order; for a damaged one, why it is not read."""
        ...


class _Part(NamedTuple):
    """The records skip <= i < skip + take of a file, as array_record's `FileInstruction`."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class ArrayRecords:
    """Examples in ArrayRecord files, which have random access.

    Args:
      directory: where the prepared data set lies.
      ranges: of splits.
      name: of the data set and split, for messages.
    """

    def __init__(self, directory: str, ranges: Sequence[SplitRange], name: str) -> None:
        self._directory, self._ranges, self._name = directory, ranges, name

    def open(self) -> None:
        """As `SerialisedExamples.open`."""
        self._records  # noqa: B018

    def read(self, indices: Sequence[int]) -> Iterator[bytes | Exception]:
        """As `SerialisedExamples.read`."""
        for index in indices:
            try:
                yield self._records[index]
            except UserError:
                raise
            except Exception as error:  # What reads a damaged shard raises nearly anything.
                yield error

    @functools.cached_property
    def _records(self) -> Any:
        info = open_directory(self._directory).info
        parts = []
        for split in dict.fromkeys(split for split, _, _ in self._ranges):
            paths = [os.fspath(path) for path in info.splits[split].filepaths]
            ranges = [each for each in self._ranges if each.split == split]
            parts += self._parts(paths, info.splits[split].shard_lengths, ranges)
        by_range = sorted(parts, key=lambda part: part[0])
        return ArrayRecordDataSource([instruction for _, instruction in by_range])

    def _parts(
        self, paths: Sequence[str], lengths: Sequence[int], ranges: Sequence[SplitRange]
    ) -> list[tuple[int, _Part]]:
        """What to read of the shards of a split: the number of the range, and a part of a shard."""
        ends = list(itertools.accumulate(lengths))
        wanted = []
        for each in ranges:
            number = self._ranges.index(each)
            for i, (end, length) in enumerate(zip(ends, lengths, strict=True)):
                start = max(each.start - (end - length), 0)
                stop = min(each.stop - (end - length), length)
                if start < stop:
                    wanted.append((number, i, start, stop))
        if is_bucket(self._directory):
            used = sorted({i for _, i, _, _ in wanted})
            shards = shards_at(self._directory, [paths[i] for i in used], self._name, _REMEDY)
            local = dict(zip(used, local_copies(self._directory, shards), strict=True))
        else:
            local = dict(enumerate(paths))
        for i, path in local.items():
            self._check_shard(epath.Path(path), lengths[i])
        return [
            (number, _Part(local[i], start, stop - start, lengths[i]))
            for number, i, start, stop in wanted
        ]

    def _check_shard(self, path: Any, length: int) -> None:
        if not path.is_file():
            raise UserError(f"{path}: this shard of {self._name} is missing or no file; {_REMEDY}")
        try:
            reader = ArrayRecordReader(str(path))
            found = reader.num_records()
            reader.close()
        except Exception as error:  # A damaged end of a file makes it raise nearly anything.
            raise UserError(f"{path}: not a whole shard ({one_line(error)}); {_REMEDY}") from error
        _check_length(str(path), found, length)

    def __getstate__(self) -> dict[str, Any]:
        # Open files are not pickled: a worker opens its own at the first record.
        return {name: value for name, value in self.__dict__.items() if name != "_records"}


class TfRecords:
    """Examples in TFRecord files, found by an index and read side by side.

    Args: as `ArrayRecords`, and
      cache: keeps what was read.
    """

    def __init__(
        self, directory: str, ranges: Sequence[SplitRange], name: str, cache: Cache | None
    ) -> None:
        self._directory, self._ranges, self._name = directory, ranges, name
        self._reader = PieceReader(cache)
        self._indexes: dict[str, ShardIndex] = {}

    def open(self) -> None:
        """As `SerialisedExamples.open`; indexes what was not indexed yet."""
        info = open_directory(self._directory).info
        for split in dict.fromkeys(split for split, _, _ in self._ranges):
            paths = [os.fspath(path) for path in info.splits[split].filepaths]
            shards = shards_at(self._directory, paths, self._name, _REMEDY)
            index = open_index(
                self._directory, f"{info.name}-{split}.tfrecord.index", shards, scan_tfrecord
            )
            lengths = info.splits[split].shard_lengths
            for shard, found, length in zip(shards, index.rows_of_shards, lengths, strict=True):
                _check_length(shard.path, found, length)
            self._indexes[split] = index

    def read(self, indices: Sequence[int]) -> Iterator[bytes | Exception]:
        """As `SerialisedExamples.read`."""
        for frame in self._reader.read(map(self._piece, indices)):
            if isinstance(frame, Exception):
                yield frame
                continue
            try:
                yield payload(frame)
            except ValueError as error:
                yield error

    def _piece(self, index: int) -> Piece:
        split, position = locate(self._ranges, index)
        found = self._indexes[split]
        number, row = found.locate(position)
        shard, starts = found.shards[number], found.columns["starts"]
        stop = shard.size if found.is_last(number, row) else int(starts[row + 1])
        return Piece(shard.path, int(starts[row]), stop, shard.version)


def _check_length(path: str, found: int, length: int) -> None:
    if found != length:
        raise UserError(
            f"{path}: {found} records, but dataset_info.json states {length} for this shard; "
            f"{_REMEDY}"
        )
