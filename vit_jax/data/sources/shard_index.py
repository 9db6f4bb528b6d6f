"""An index of shards without random access: built once, kept beside them, and shared.

What an index states of a shard holds while the shard has the same size and the same time of its
last change (in a bucket: the same generation). Otherwise that shard is read again. So an index is
built on where it was left, also by a process that was killed.

An index lies beside its shards, or in the user's cache if it cannot be written there."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax import atomic
from vit_jax.data.sources.index_file import (
    Columns,
    IndexFile,
    Scanned,
    Shard,
    open_index_file,
    to_bytes,
)
from vit_jax.errors import UserError
from vit_jax.locks import lock, try_lock
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket
from vit_jax.user_cache import user_cache

# Says what lies in a shard. Raises UserError for one that is not whole.
Scan = Callable[[Shard], Scanned]

_THREADS = 16
# Seconds between two lines of progress, and between two savings of what was found so far.
_SAY_EVERY, _SAVE_EVERY = 10.0, 60.0

_log = logging.getLogger(__name__)


class ShardIndex:
    """Where the records of some shards lie, by their position over all of them.

    Data workers get it pickled, as the path of its file and the list of shards.
    """

    def __init__(self, file: Path, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        self._file = file

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.shards else 0

    def locate(self, position: int) -> tuple[int, int]:
        """The number of the shard that holds a record, and the record's row in `columns`."""
        if not 0 <= position < len(self):
            raise IndexError(f"record {position} of {len(self)}")
        number = int(np.searchsorted(self._ends, position, side="right"))
        return number, int(self._last_rows[number]) - int(self._ends[number]) + position

    def is_last(self, number: int, row: int) -> bool:
        """Whether a row is the last one of a shard."""
        return row + 1 == self._last_rows[number]

    @property
    def rows_of_shards(self) -> list[int]:
        """The number of records in each shard."""
        return [stop - first for first, stop in self.row_ranges()]

    @property
    def columns(self) -> Columns:
        """The arrays of the index file, which may have the rows of other shards as well."""
        return self._opened.columns

    @property
    def names(self) -> tuple[str, ...]:
        """What the values of the column `labels` number."""
        return self._opened.names

    def row_ranges(self) -> list[tuple[int, int]]:
        """The rows `first <= row < stop` of each shard."""
        of_shards = [self._opened.shards[shard.name] for shard in self.shards]
        return [(each.first, each.first + each.rows) for each in of_shards]

    def rows(self) -> np.ndarray:
        """The row of each record, int64 [records]."""
        ranges = [np.arange(first, stop) for first, stop in self.row_ranges()]
        return np.concatenate(ranges or [np.zeros(0, np.int64)])

    @functools.cached_property
    def _opened(self) -> IndexFile:
        index = open_index_file(self._file, verify=False)
        if index is None or not all(map(index.covers, self.shards)):
            raise UserError(
                f"{self._file}: this index was changed while it was in use; start again"
            )
        return index

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.rows_of_shards)

    @functools.cached_property
    def _last_rows(self) -> np.ndarray:
        """The row behind the last one of each shard."""
        return np.array([stop for _, stop in self.row_ranges()])

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "_file": self._file}


def open_index(directory: str, name: str, shards: Sequence[Shard], scan: Scan) -> ShardIndex:
    """Opens an index, and builds what it lacks. Processes of one host wait for the first of them.

    Args:
      directory: where the shards lie, and the index beside them.
      name: of the index file.
      scan: of a shard that the index does not know, or knew before it was changed.

    Raises:
      UserError: a shard is not whole, or the index can be kept nowhere.
    """
    places = _Places(directory, name)
    file = _that_covers(places.local, shards)
    if file is None:
        with places.locked():
            # Another process may have built it meanwhile.
            places.copy_from_bucket()
            file = _that_covers(places.local, shards) or _build(places, shards, scan)
    return ShardIndex(file, shards)


class _Places:
    """Where an index may lie.

    Attributes:
      local: on disks, the first choice first.
    """

    def __init__(self, directory: str, name: str) -> None:
        self.directory = directory
        digest = hashlib.blake2b(directory.encode(errors="surrogateescape"), digest_size=8)
        self._own = user_cache().absolute() / "indexes" / digest.hexdigest() / name
        self._in_bucket = f"{directory}/{name}" if is_bucket(directory) else None
        beside = [] if self._in_bucket else [Path(directory, name)]
        self.local = (*beside, self._own)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes of this host from building the same index."""
        path = self._own.with_name(f"{self._own.name}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "ab")
        except OSError as error:
            raise self._unwritable(error) from error
        with file:
            if not try_lock(file):
                _log.info("waiting for another process that indexes %s", self.directory)
                lock(file)
            yield

    def copy_from_bucket(self) -> None:
        """Copies the index that lies in a bucket, if there is one."""
        if self._in_bucket is None:
            return
        with contextlib.suppress(FileNotFoundError):
            data = objects.read_bytes(self._in_bucket)
            try:
                _write(self._own, data)
            except OSError as error:
                raise self._unwritable(error) from error

    def share(self, data: bytes) -> None:
        """Writes a whole index into the bucket, for other hosts; a line tells if that fails."""
        if self._in_bucket is None:
            return
        try:
            objects.write_bytes(self._in_bucket, data)
        except UserError as error:
            _log.warning("the index of %s stays on this host: %s", self.directory, error)

    def write(self, data: bytes) -> Path:
        """Keeps an index; returns where it lies."""
        for path in self.local:
            try:
                _write(path, data)
            except OSError as error:
                if path == self._own:
                    raise self._unwritable(error) from error
                continue
            break
        return path

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"the index of {self.directory} can be written neither there nor to "
            f"{self._own.parent} ({error.strerror or error}); set VIT_JAX_CACHE to a directory "
            "that can be written"
        )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, data)


def _that_covers(paths: Sequence[Path], shards: Sequence[Shard]) -> Path | None:
    for path in paths:
        index = open_index_file(path, verify=True)
        if index is not None and all(map(index.covers, shards)):
            return path
    return None


def _build(places: _Places, shards: Sequence[Shard], scan: Scan) -> Path:
    """Indexes the shards that no index knows, and keeps what is known of others."""
    wanted = {shard.name: shard for shard in shards}
    known: dict[str, tuple[Shard, Scanned]] = {}
    stale = []
    for path in places.local:
        index = open_index_file(path, verify=True)
        for name, entry in index.shards.items() if index is not None else ():
            assert index is not None
            if name in wanted and not index.covers(wanted[name]):
                stale.append(name)
            elif name not in known:
                shard = wanted.get(name, entry.shard)
                known[name] = shard, index.scanned(name)
    if stale := [name for name in dict.fromkeys(stale) if name not in known]:
        _log.info(
            "%s: the index is older than %s%s, which is indexed again",
            *(places.directory, stale[0], f" and {len(stale) - 1:,} more" if stale[1:] else ""),
        )
    missing = [shard for shard in shards if shard.name not in known]
    began = said = saved = time.monotonic()
    _log.info("indexing %s of %s, once", _counted(len(missing)), places.directory)
    for number, (shard, scanned) in enumerate(_side_by_side(scan, missing), 1):
        known[shard.name] = shard, scanned
        now = time.monotonic()
        if now - said > _SAY_EVERY:
            said = now
            _log.info("indexed %d of %s of %s", number, _counted(len(missing)), places.directory)
        if now - saved > _SAVE_EVERY:
            places.write(_in_order(known))
            saved = time.monotonic()
    data = _in_order(known)
    path = places.write(data)
    places.share(data)
    records = sum(known[shard.name][1].rows for shard in shards)
    _log.info(
        "%s: indexed %s records in %.1f s; the index is %s",
        *(places.directory, f"{records:,}", time.monotonic() - began, path),
    )
    return path


def _in_order(known: Mapping[str, tuple[Shard, Scanned]]) -> bytes:
    return to_bytes([known[name] for name in sorted(known)])


def _side_by_side(scan: Scan, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Scanned]]:
    """What lies in each shard, as soon as it is known. The first shard that fails ends it."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="index") as pool:
        waiting = {pool.submit(scan, shard): shard for shard in shards}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            for future in waiting:
                future.cancel()


def _counted(shards: int) -> str:
    return f"{shards:,} shard" + ("" if shards == 1 else "s")
