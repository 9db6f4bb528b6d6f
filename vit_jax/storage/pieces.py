"""Reads pieces of files side by side, on disks, mounts and in buckets, through a cache if given."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, TypeVar

from vit_jax.errors import UserError
from vit_jax.reading import open_file
from vit_jax.storage import objects
from vit_jax.storage.cache import Cache
from vit_jax.storage.paths import is_bucket

T = TypeVar("T")
R = TypeVar("R")

# Pieces on their way in one process: 32 answers of 50 ms are 640 records a second.
_IN_FLIGHT = 32
# Files that stay open. A mount asks its server each time that one is opened.
_OPEN_FILES = 128


class Piece(NamedTuple):
    """The bytes start <= i < stop of a file.

    Attributes:
      path: absolute, or an address in a bucket.
      version: differs when the file has other content, as `storage.objects.version`; the cache
        never gives the bytes of another version.
    """

    path: str
    start: int
    stop: int
    version: str


class PieceReader:
    """Reads pieces, several at once. It is pickled with the source that holds it.

    Args:
      cache: where pieces are kept; None reads each from its file every time.
    """

    def __init__(self, cache: Cache | None = None) -> None:
        self.cache = cache

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | OSError | EOFError]:
        """The bytes of each piece in order, while those of the next ones are on their way.

        A piece that cannot be read gives the reason in its place: its file is missing or ends
        before the piece does.

        Raises:
          UserError: a bucket does not answer, or may not be read.
        """
        return side_by_side(self._read, pieces)

    def _read(self, piece: Piece) -> bytes | OSError | EOFError:
        key = f"{piece.path} {piece.version} {piece.start}:{piece.stop}"
        data = None if self.cache is None else self.cache.get(key)
        if data is None:
            try:
                data = read_piece(piece)
            except UserError:
                raise
            except (OSError, EOFError) as error:
                return error
            if self.cache is not None:
                self.cache.put(key, data)
        return data


def side_by_side(read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results of `read` in the order of the items, several of which are under way."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(_threads().submit(read, item))
            if len(waiting) >= _IN_FLIGHT:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for each in waiting:
            each.cancel()


def read_piece(piece: Piece) -> bytes:
    """The bytes of one piece.

    Raises:
      OSError: the file is missing or cannot be read.
      EOFError: it ends before the piece does.
      UserError: a bucket does not answer, or may not be read.
    """
    if is_bucket(piece.path):
        return objects.read_bytes(piece.path, piece.start, piece.stop)
    file = _open(piece.path, piece.version)
    data = os.pread(file.fileno(), piece.stop - piece.start, piece.start)
    while 0 < len(data) < piece.stop - piece.start:  # A read may be interrupted, or above 2 GiB.
        more = os.pread(
            file.fileno(), piece.stop - piece.start - len(data), piece.start + len(data)
        )
        if not more:
            break
        data += more
    if len(data) < piece.stop - piece.start:
        raise EOFError(
            f"the file ends at byte {piece.start + len(data):,}, before byte {piece.stop:,}"
        )
    return data


@functools.lru_cache(_OPEN_FILES)
def _open(path: str, version: str) -> BinaryIO:
    """An open file. One that others push out is closed when its last reader is done."""
    del version  # A file that was replaced is another one.
    return open_file(path)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="pieces")
