"""Files that grow while a run goes on: on a disk that may be full for a while, or in a bucket."""

import contextlib
import errno
import os
import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from etils import epath

from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket

# Bytes from which on a further piece begins: what each upload writes again at most, about.
_PIECE = 2**18
# Seconds between two uploads, besides those that `flush` makes.
_EVERY = 30.0


class Growing(Protocol):
    """A file to append to; what is added is kept until it could be written."""

    def add(self, piece: bytes) -> None:
        """Takes a piece, which is written whole or not at all, now or later."""

    def flush(self) -> None:
        """Returns when all pieces are written.

        Raises:
          OSError: they are not.
        """

    def close(self) -> None:
        """Flushes and closes the file.

        Raises:
          OSError: as `flush`.
        """


def open_growing(
    path: epath.Path, *, number: int = 0, content: bytes = b"", header: bytes = b""
) -> Growing:
    """Opens a file to append to.

    Args:
      number: in a bucket, of the piece to go on with.
      content: in a bucket, what that piece holds.
      header: in a bucket, what each further piece begins with.

    Raises:
      OSError: it cannot be written.
    """
    if is_bucket(path):
        return Pieces(path, number, content, header)
    return Appended(path)


def piece_name(path: epath.Path, number: int) -> epath.Path:
    """The object of a piece: the first has the file's name, and all sort in their order."""
    return path.with_name(f"{path.name}.{number:04d}") if number else path


def pieces(path: epath.Path) -> list[int]:
    """The numbers of the pieces that there are of a file, in order."""
    pattern = re.compile(re.escape(path.name) + r"(?:\.([0-9]{4,}))?")
    found = map(pattern.fullmatch, objects.list_names(path.parent))
    return sorted(int(match[1] or 0) for match in found if match is not None)


class Appended:
    """Appends pieces to a file, each whole or not at all.

    Pieces that cannot be written stay here, in their order, until there is room.
    """

    def __init__(self, path: epath.Path):
        # Without a buffer, so that it is known what was written.
        self._file = open(path, "ab", buffering=0)
        self._pending: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Writes a piece, now or with a later one."""
        self._pending.append(piece)
        with contextlib.suppress(OSError):  # There may be room at the next one, or at `flush`.
            self._write()

    def flush(self) -> None:
        """Returns when all pieces are on disk.

        Raises:
          OSError: they are not.
        """
        self._write()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes and closes the file, unless it is closed already.

        Raises:
          OSError: as `flush`.
        """
        if self._file.closed:
            return
        try:
            self.flush()
        finally:
            self._file.close()

    def _write(self) -> None:
        if self._pending:
            before, data = os.fstat(self._file.fileno()).st_size, b"".join(self._pending)
            try:
                if self._file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._file.truncate(before)
                raise
            self._pending = []


class Pieces:
    """Appends to a file in a bucket, where nothing grows: its newest piece is written again.

    That happens in the background, now and then. A piece that is large enough stays as it is, and
    another one begins. So a run of a million lines writes each of them a few times, not a million
    times, and holds one piece in memory.
    """

    def __init__(self, path: epath.Path, number: int, content: bytes, header: bytes):
        self._path, self._number, self._header = path, number, header
        self._content, self._uploaded = bytearray(content), len(content)
        self._lock, self._one_upload = threading.Lock(), threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pieces")
        self._running: Future[None] | None = None
        self._last = time.monotonic()

    def add(self, piece: bytes) -> None:
        """Takes a piece; now and then, the newest ones are uploaded."""
        with self._lock:
            self._content += piece
        is_idle = self._running is None or self._running.done()
        if is_idle and time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            # What fails is tried again at the next one, or at `flush`.
            self._running = self._pool.submit(self._upload)

    def flush(self) -> None:
        """Returns when all pieces are in the bucket.

        Raises:
          StorageError: they are not.
        """
        self._upload()

    def close(self) -> None:
        """Flushes, and ends the thread.

        Raises:
          StorageError: as `flush`.
        """
        self._pool.shutdown()
        self.flush()

    def _upload(self) -> None:
        with self._one_upload:
            with self._lock:
                data = bytes(self._content)
            if len(data) == self._uploaded:
                return
            objects.write_bytes(piece_name(self._path, self._number), data)
            with self._lock:
                if len(data) < _PIECE:
                    self._uploaded = len(data)
                    return
                self._content[: len(data)] = self._header
                self._uploaded = len(self._header)
                self._number += 1
