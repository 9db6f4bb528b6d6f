"""The files that a prepared data set consists of: which records are in each, written and checked.

Which records a shard holds, and so all its bytes, follow from the input and the options alone. A
preparation that was killed goes on with the shards that it has, and the result is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from vit_jax.data.sources.records import Record, Source
from vit_jax.errors import UserError

# Each record alone, as a random reader wants it. JPEG does not become smaller by compression.
_WRITER_OPTIONS = "group_size:1,uncompressed"
# Records that are read before they are wanted, by so many threads.
_AHEAD, _READERS = 16, 4
_READ_BACK_AT_ONCE = 64
_PIECE = 2**22


class Shard(NamedTuple):
    """The records `start <= i < stop` of a split, as file `number` of `total`."""

    split: str
    number: int
    total: int
    start: int
    stop: int

    def file_name(self, dataset: str) -> str:
        """As TFDS names it."""
        return f"{dataset}-{self.split}.array_record-{self.number:05d}-of-{self.total:05d}"


class LeftOut(NamedTuple):
    """A record that was not written.

    Attributes:
      name: its file.
      reason: why.
      twin: the image of a test set that it shows as well; "" if that is not the reason.
    """

    name: str
    label: int | tuple[int, ...]
    reason: str
    twin: str = ""


class Receipt(NamedTuple):
    """What a finished shard holds.

    Attributes:
      digest: BLAKE2 of the whole file.
      size: of the file in bytes.
    """

    file: str
    digest: str
    size: int
    records: int
    image_bytes: int
    left_out: tuple[LeftOut, ...]

    def to_json(self) -> bytes:
        """As it is kept beside the shards."""
        return json.dumps(self._asdict()).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Receipt:
        """Reads what `to_json` has written.

        Raises:
          ValueError, KeyError, TypeError: it is something else.
        """
        values = json.loads(text)
        left_out = tuple(
            LeftOut(name, tuple(label) if isinstance(label, list) else label, *rest)
            for name, label, *rest in values.pop("left_out")
        )
        return cls(**values, left_out=left_out)


def assign(lengths: Mapping[str, int], counts: Mapping[str, int]) -> list[Shard]:
    """Deals the records of each split to its shards, in order, as evenly as can be.

    Args:
      lengths: records of each split.
      counts: shards of each split.
    """
    shards = []
    for split, length in lengths.items():
        count = counts[split]
        ends = [length * number // count for number in range(count + 1)]
        shards += [Shard(split, n, count, ends[n], ends[n + 1]) for n in range(count)]
    return shards


def write_shard(
    path: Path,
    source: Source,
    shard: Shard,
    stored: Callable[[Record], tuple[bytes, int] | LeftOut],
    done: Callable[[int], None],
) -> Receipt:
    """Writes a shard and reads it back.

    Args:
      path: of the new file. Nothing remains there if this fails.
      stored: what is written of a record, and the bytes of its image; or why it is left out.
      done: is told how many records of the shard are dealt with.

    Raises:
      UserError: the disk is full, or returns something else than was written.
    """
    digest, written, image_bytes, left_out = hashlib.blake2b(digest_size=16), 0, 0, []
    try:
        with _any_failure(path):
            writer = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
            try:
                for number, record in enumerate(_read_ahead(source, shard.start, shard.stop), 1):
                    found = stored(record)
                    if isinstance(found, LeftOut):
                        left_out.append(found)
                    else:
                        writer.write(found[0])
                        digest.update(found[0])
                        written, image_bytes = written + 1, image_bytes + found[1]
                    done(number)
            finally:
                writer.close()
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        _read_back(path, written, digest.digest())
        size, file_digest = path.stat().st_size, file_hash(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Receipt(path.name, file_digest, size, written, image_bytes, tuple(left_out))


def file_hash(path: Path) -> str:
    """BLAKE2 of a file.

    Raises:
      OSError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def full_disk(where: object) -> UserError:
    """What is told of a disk without room."""
    return UserError(
        f"{where}: the disk is full; make room and run the same command again, which goes on with "
        "the shards that are finished"
    )


@contextlib.contextmanager
def _any_failure(path: Path) -> Iterator[None]:
    """Tells failures of the writer, which knows only texts."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        text = str(error)
        if "No space left" in text or "quota exceeded" in text:
            raise full_disk(path.parent) from error
        if isinstance(error, OSError) or "write() failed" in text:
            raise UserError(f"{path}: cannot be written ({' '.join(text.split())})") from error
        raise


def _read_back(path: Path, records: int, digest: bytes) -> None:
    found = hashlib.blake2b(digest_size=16)
    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
        for start in range(0, count, _READ_BACK_AT_ONCE):
            some: Sequence[bytes] = reader.read(start, min(start + _READ_BACK_AT_ONCE, count))
            for record in some:
                found.update(record)
        reader.close()
    except (RuntimeError, IndexError, ValueError) as error:
        raise _not_as_written(path) from error
    if count != records or found.digest() != digest:
        raise _not_as_written(path)


def _not_as_written(path: Path) -> UserError:
    return UserError(
        f"{path}: the disk returns something else than was written; run the same command again, "
        "and check the disk if this comes again"
    )


def _read_ahead(source: Source, start: int, stop: int) -> Iterator[Record]:
    """The records of a range, in order; the next ones are read meanwhile."""
    with ThreadPoolExecutor(_READERS) as pool:
        waiting: deque[Future[Record]] = deque()
        try:
            for position in range(start, stop):
                waiting.append(pool.submit(source.__getitem__, position))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
