"""The serialised examples of a prepared TFDS data set by position, from ArrayRecord or TFRecord."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from vit_jax.data.sources.shard_files import shards_at
from vit_jax.data.sources.shard_index import ShardIndex, open_index
from vit_jax.data.sources.splits import SplitRange, locate
from vit_jax.data.sources.tfds_builders import one_line, open_directory, quiet
from vit_jax.data.sources.tfrecord import payload, scan_tfrecord
from vit_jax.errors import UserError
from vit_jax.storage.cache import Cache
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


class ArrayRecords:
    """Examples in ArrayRecord files, which have random access.

    Args:
      directory: where the prepared data set lies.
      split: in TFDS syntax.
      ranges: what `split` means.
      name: of the data set and split, for messages.
    """

    def __init__(self, directory: str, split: str, ranges: Sequence[SplitRange], name: str) -> None:
        self._directory, self._split, self._ranges, self._name = directory, split, ranges, name

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
        builder = open_directory(self._directory)
        for split in dict.fromkeys(split for split, _, _ in self._ranges):
            info = builder.info.splits[split]
            for path, length in zip(info.filepaths, info.shard_lengths, strict=True):
                self._check_shard(path, length)
        with quiet():
            return builder.as_data_source(
                self._split,
                deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
                file_format=tfds.core.FileFormat.ARRAY_RECORD,
            )

    def _check_shard(self, path: Any, length: int) -> None:
        if not path.is_file():
            raise UserError(f"{path}: this shard of {self._name} is missing or no file; {_REMEDY}")
        if "://" in str(path):
            return  # Opening each shard of a bucket would take long.
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
