"""The serialised examples of a prepared TFDS data set by position, from ArrayRecord or TFRecord."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple, Protocol

from array_record.python.array_record_module import ArrayRecordReader

from vit_jax.data.sources.shard_copies import local_copies
from vit_jax.data.sources.shard_files import shards_at
from vit_jax.data.sources.shard_index import ShardIndex, open_index
from vit_jax.data.sources.splits import SplitRange, locate
from vit_jax.data.sources.tfds_builders import open_directory
from vit_jax.data.sources.tfrecord import payload, scan_tfrecord
from vit_jax.errors import UserError
from vit_jax.storage.cache import Cache
from vit_jax.storage.paths import is_bucket
from vit_jax.storage.pieces import Piece, PieceReader

_REMEDY = "restore it, or prepare the data set again"


class SerialisedExamples(Protocol):
    """The examples of some ranges of splits, one range after the other. It is pickled."""

    def open(self) -> None:
        """Finds all shards.

        Raises:
          UserError: one is missing, or seen to be damaged.
        """
        ...

    def read(self, indices: Sequence[int]) -> Iterator[bytes | Exception]:
        """The examples at some indices, in that order; for a damaged one, why it is not read."""
        ...


class _Shards(NamedTuple):
    """The shards of a split: files of a disk by number, those alone that are asked for.

    Attributes:
      lengths: the number of records in each shard of the split.
      ends: their running sums.
    """

    paths: dict[int, str]
    lengths: list[int]
    ends: list[int]


class ArrayRecords:
    """Examples in ArrayRecord files, which have random access.

    A shard is opened when a record of it is read first, and stays open: a large data set begins
    at once.

    Args:
      directory: where the prepared data set lies.
      ranges: of splits.
      name: of the data set and split, for messages.
      cache: holds the copies of shards in a bucket; None is the user's cache.
    """

    def __init__(
        self, directory: str, ranges: Sequence[SplitRange], name: str, cache: Cache | None
    ) -> None:
        self._directory, self._ranges, self._name = directory, ranges, name
        self._cache = cache
        # While this object lives, nobody removes its copies.
        self._in_use: list[IO[bytes]] = []
        self._shards: dict[str, _Shards] = {}
        self._readers: dict[str, ArrayRecordReader] = {}

    def open(self) -> None:
        """As `SerialisedExamples.open`, but looks into the first shard alone."""
        splits = open_directory(self._directory).info.splits
        for split in dict.fromkeys(split for split, _, _ in self._ranges):
            lengths = list(splits[split].shard_lengths)
            ends = list(itertools.accumulate(lengths))
            numbers = [
                i for i in range(len(ends)) if self._is_asked_for(split, ends[i], lengths[i])
            ]
            paths = [os.fspath(path) for path in splits[split].filepaths]
            shards = shards_at(self._directory, [paths[i] for i in numbers], self._name, _REMEDY)
            local = [shard.path for shard in shards]
            if is_bucket(self._directory):
                local, in_use = local_copies(self._directory, shards, self._cache)
                self._in_use.append(in_use)
            self._shards[split] = _Shards(dict(zip(numbers, local, strict=True)), lengths, ends)
        try:
            self._place(0)
        except ValueError as error:
            raise UserError(str(error)) from error

    def read(self, indices: Sequence[int]) -> Iterator[bytes | Exception]:
        """As `SerialisedExamples.read`; a damaged shard is told with each of its records."""
        for index in indices:
            try:
                reader, row = self._place(index)
                yield reader.read([row])[0]
            except Exception as error:  # What reads a damaged shard raises nearly anything.
                yield error

    def _is_asked_for(self, split: str, end: int, length: int) -> bool:
        """Whether a range has records of the shard of `length` records before `end`."""
        return any(
            each.split == split and max(each.start, end - length) < min(each.stop, end)
            for each in self._ranges
        )

    def _place(self, index: int) -> tuple[ArrayRecordReader, int]:
        """The reader of the shard that has a record, and its row in there.

        Raises:
          ValueError: the shard is damaged, or has another number of records than it should.
        """
        split, position = locate(self._ranges, index)
        paths, lengths, ends = self._shards[split]
        number = bisect.bisect_right(ends, position)
        path, length = paths[number], lengths[number]
        if path not in self._readers:
            self._readers[path] = _reader(path, length)
        return self._readers[path], position - (ends[number] - length)

    def __getstate__(self) -> dict[str, Any]:
        # Open files are not pickled: a worker opens its own. That the copies are in use is known by
        # the process that has started it.
        return self.__dict__ | {"_readers": {}, "_in_use": []}


def _reader(path: str, length: int) -> ArrayRecordReader:
    # Without reading ahead, since records are read in any order.
    reader = ArrayRecordReader(path, "readahead_buffer_size:0", file_reader_buffer_size=2**15)
    if not reader.ok():  # It does not say why.
        reason = "its end is missing or damaged" if os.path.exists(path) else "it is gone"
        raise ValueError(f"{path}: not a whole shard ({reason}); {_REMEDY}")
    if reader.num_records() != length:
        raise ValueError(_other_length(path, reader.num_records(), length))
    return reader


class TfRecords:
    """Examples in TFRecord files, found by an index and read side by side.

    Args: as `ArrayRecords`, but
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
                if found != length:
                    raise UserError(_other_length(shard.path, found, length))
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


def _other_length(path: str, found: int, length: int) -> str:
    return (
        f"{path}: {found} records, but dataset_info.json states {length} for this shard; {_REMEDY}"
    )
