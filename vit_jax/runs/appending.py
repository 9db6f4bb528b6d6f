"""Files that grow while a run goes on, on a disk that may be full for a while."""

import contextlib
import errno
import os
from pathlib import Path


class Appended:
    """Appends pieces to a file, each whole or not at all.

    Pieces that cannot be written stay here, in their order, until there is room.
    """

    def __init__(self, path: Path):
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
        """Flushes and closes the file.

        Raises:
          OSError: as `flush`.
        """
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
