"""Reads a shard from its start to its end, a little here and there, as an index is built."""

from __future__ import annotations

from vit_jax.data.sources.index_file import Shard
from vit_jax.storage.paths import is_bucket
from vit_jax.storage.pieces import Piece, read_piece

# From a disk only what is asked for, and what lies behind it on its page. A bucket takes about
# 50 ms for an answer of any size, so there the whole shard is read.
_DISK_WINDOW = 2**12
_BUCKET_WINDOW = 2**23


class ForwardReader:
    """Bytes of a shard by their places, which should ascend: what was read last is kept."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self._window = _BUCKET_WINDOW if is_bucket(shard.path) else _DISK_WINDOW
        self._start, self._data = 0, b""

    def read(self, start: int, count: int) -> bytes:
        """The bytes start <= i < start + count, or fewer where the shard ends.

        Raises:
          OSError: the shard cannot be read.
          EOFError: it has become shorter.
          UserError: its bucket cannot be used.
        """
        skip = start - self._start
        if skip < 0 or skip + count > len(self._data):
            _, path, size, version = self.shard
            stop = min(size, start + max(count, self._window))
            self._start, skip = start, 0
            self._data = read_piece(Piece(path, start, max(start, stop), version))
        return self._data[skip : skip + count]
