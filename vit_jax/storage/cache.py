"""Pieces of remote files, kept on a local disk up to a limit.

Any number of threads, processes and runs share a directory. An entry appears whole or not at all,
and carries a checksum, so one that a crash or a disk has damaged is read from its source again.

The entries lie in 64 folders by a hash of their key, each with an equal share of the limit. A
folder has a file `used` that counts its bytes and is locked by whoever adds an entry. A process
that is killed in between leaves a count that is too high, which is set right when the folder is
full.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vit_jax.errors import UserError
from vit_jax.locks import lock

CACHE_GIB = 100.0  # The limit unless a user sets another.

_FOLDERS = 64
# A full folder is emptied to this share of its room, so that not every entry has to list it.
_EMPTIED_TO = 0.9
_CRC_BYTES = 4
_COUNT_BYTES = 8
_UNFINISHED = "unfinished"
_COUNT = "used"

_log = logging.getLogger(__name__)


class Cache:
    """Bytes by key. The oldest entries make room for new ones.

    Args:
      directory: made if missing; `pieces` in it holds the entries.
      limit: most bytes of all entries. An entry above a 64th of it is not kept.

    Attributes: as the arguments, for what is kept beside `pieces` within a limit of the same size.

    Raises:
      UserError: the directory cannot be written.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory, self.limit = directory.expanduser().absolute(), limit
        self._root = self.directory / "pieces"
        self._share = limit // _FOLDERS
        self._is_full = False  # The disk, not the cache.
        try:
            for number in range(_FOLDERS):
                (self._root / f"{number:02x}").mkdir(parents=True, exist_ok=True)
                (self._root / f"{number:02x}" / _COUNT).touch()
        except OSError as error:
            raise UserError(
                f"config.data.cache_dir={directory} cannot be written ({error.strerror}); name "
                "another directory, or leave it out"
            ) from error

    def get(self, key: str) -> bytes | None:
        """The bytes of an entry; None if there is none, or if it is damaged."""
        folder, name = self._place(key)
        try:
            data = (folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say_damaged(folder / name, error.strerror or str(error))
            return None
        entry, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
        if crc != _crc(key, entry):
            self._say_damaged(folder / name, "its checksum differs")
            with contextlib.suppress(OSError):
                (folder / name).unlink()
            return None
        return entry

    def put(self, key: str, data: bytes) -> None:
        """Keeps an entry, unless it is larger than an entry may be. A full disk is told once."""
        size = len(data) + _CRC_BYTES
        if size > self._share or self._is_full:
            return
        folder, name = self._place(key)
        try:
            with self._locked(folder) as count:
                if (folder / name).exists():
                    return
                used = int.from_bytes(os.pread(count.fileno(), _COUNT_BYTES, 0), "little")
                if used + size > self._share:
                    used = self._make_room(folder, size)
                # First the count: a process that is killed here leaves one that is too high.
                os.pwrite(count.fileno(), (used + size).to_bytes(_COUNT_BYTES, "little"), 0)
                unfinished = folder / f"{name}.{_UNFINISHED}"
                unfinished.write_bytes(data + _crc(key, data))
                os.replace(unfinished, folder / name)
        except OSError as error:
            self._is_full = True
            _log.warning(
                "%s: the cache takes no more entries from this process (%s)",
                self._root.parent,
                error.strerror or error,
            )

    def _place(self, key: str) -> tuple[Path, str]:
        name = hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        return self._root / f"{int(name[:2], 16) % _FOLDERS:02x}", name

    @contextlib.contextmanager
    def _locked(self, folder: Path) -> Iterator[BinaryIO]:
        with open(folder / _COUNT, "r+b", buffering=0) as count:
            lock(count)  # Closing the file gives it back.
            yield count

    def _make_room(self, folder: Path, size: int) -> int:
        """Removes the oldest entries until one of `size` bytes fits; returns the bytes left."""
        entries = []
        for entry in os.scandir(folder):
            if entry.name.endswith(f".{_UNFINISHED}"):  # A process that was killed left it.
                os.unlink(entry)
            elif entry.name != _COUNT:
                with contextlib.suppress(FileNotFoundError):  # It was damaged.
                    entries.append((entry.stat().st_mtime_ns, entry.path, entry.stat().st_size))
        used = sum(each for _, _, each in entries)
        room = max(0, int(self._share * _EMPTIED_TO) - size)
        for _, path, each in sorted(entries):
            if used <= room:
                break
            Path(path).unlink(missing_ok=True)
            used -= each
        return used

    def _say_damaged(self, path: Path, reason: str) -> None:
        _log.warning("%s: this entry of the cache is damaged (%s); it is read anew", path, reason)


def _crc(key: str, data: bytes) -> bytes:
    import google_crc32c  # A model and its training step are imported without it.

    crc = google_crc32c.value(key.encode(errors="surrogateescape"))
    return google_crc32c.extend(crc, data).to_bytes(_CRC_BYTES, "little")
