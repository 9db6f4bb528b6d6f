"""Whole shards of a bucket, copied once to a disk of this host.

ArrayRecord's reader opens files of a disk only. What it shall read from a bucket is copied first,
into the cache that the config names or that of the user (`VIT_JAX_CACHE`), where all runs of the
host find it. A copy carries the generation of its object in its name, so one of an object that was
written again is not used.

Copies of data sets that no process of the host has open make room for others: those first that
were opened longest ago. A file `in_use` beside the copies tells this: whoever has the data set open
holds a lock on it together with others, and whoever removes copies holds it alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO

from vit_jax import atomic
from vit_jax.data.sources.index_file import Shard
from vit_jax.errors import UserError
from vit_jax.locks import lock, lock_with_others, try_lock
from vit_jax.storage import objects
from vit_jax.storage.cache import CACHE_GIB, Cache
from vit_jax.user_cache import user_cache

_THREADS = 16
_PIECE = 2**24  # Bytes of a request.
_IN_USE, _LOCK = "in_use", "lock"
_SAY_EVERY = 10.0  # Seconds between two lines of progress.

_log = logging.getLogger(__name__)


def local_copies(
    directory: str, shards: Sequence[Shard], cache: Cache | None
) -> tuple[list[str], IO[bytes]]:
    """The paths of copies of shards; those that are missing are made.

    Processes of one host wait for the first of them. Copies that were finished before a kill stay.

    Args:
      directory: that the shards lie in, in a bucket.
      cache: in whose directory and limit they are; None is the user's cache, and 100 GiB. What is
        in use may pass the limit.

    Returns:
      The paths, and a file: while it is open, nobody removes the copies.

    Raises:
      UserError: the disk has too little room, a copy cannot be written, a shard changes while it
        is copied, or the bucket cannot be used.
    """
    digest = hashlib.blake2b(directory.encode(), digest_size=8).hexdigest()
    if cache is None:
        place, limit, place_set_by = user_cache().absolute(), CACHE_GIB * 2**30, "VIT_JAX_CACHE"
    else:
        place, limit, place_set_by = cache.directory, cache.limit, "config.data.cache_dir"
    root = place / "shards" / digest
    copies = {shard: root / f"{shard.name}.{shard.version}" for shard in shards}
    try:
        root.mkdir(parents=True, exist_ok=True)
        in_use = _open_in_use(root)
        if try_lock(in_use):  # Nobody else has it open.
            _remove_old(root, set(copies.values()))
        lock_with_others(in_use)
        if _missing(copies.items()):
            with open(root / _LOCK, "ab") as file:
                if not try_lock(file):
                    _log.info("waiting for another process that copies %s", directory)
                    lock(file)
                missing = _missing(copies.items())
                _require_room(directory, root, missing, limit, place_set_by)
                _copy_all(directory, root, missing)
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"{directory}: its shards cannot be copied to {root} ({error.strerror or error}); "
            f"set {place_set_by} to another directory"
        ) from error
    return [str(copies[shard]) for shard in shards], in_use


def _open_in_use(root: Path) -> IO[bytes]:
    """The file that is locked by whoever uses the copies; its time is that of the last opening."""
    try:
        (root / _IN_USE).touch()
    except OSError:  # It may be another user's.
        if not (root / _IN_USE).exists():
            raise
    return open(root / _IN_USE, "rb")


def _missing(copies: Iterable[tuple[Shard, Path]]) -> dict[Shard, Path]:
    return {
        shard: path
        for shard, path in copies
        if not path.exists() or path.stat().st_size != shard.size
    }


def _require_room(
    directory: str, root: Path, missing: Iterable[Shard], limit: float, place_set_by: str
) -> None:
    for left in root.glob(".*"):  # By a process that was killed.
        left.unlink()
    size = sum(shard.size for shard in missing)
    _make_room(root, size, limit)
    free = shutil.disk_usage(root).free
    if size > free:
        raise UserError(
            f"{directory}: {size / 2**30:,.1f} GiB of ArrayRecord must be copied to this host, and "
            f"{root} has room for {free / 2**30:,.1f} GiB; set {place_set_by} to a larger disk, or "
            "keep the data in the bucket as tars, which are read in place"
        )


def _copy_all(directory: str, root: Path, missing: dict[Shard, Path]) -> None:
    if not missing:
        return
    size = sum(shard.size for shard in missing)
    _log.info(
        "copying %d shards of %s to %s, once: %.1f GiB",
        *(len(missing), directory, root, size / 2**30),
    )
    began = said = time.monotonic()
    done = 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="copies") as pool:
        waiting = {pool.submit(_copy, *each): each[0] for each in missing.items()}
        try:
            for future in as_completed(waiting):
                future.result()
                done += waiting[future].size
                if time.monotonic() - said > _SAY_EVERY:
                    said = time.monotonic()
                    speed = done / 2**20 / (said - began)
                    _log.info(
                        "copied %.1f of %.1f GiB, %.0f MiB/s", done / 2**30, size / 2**30, speed
                    )
        finally:
            for future in waiting:
                future.cancel()


def _remove_old(root: Path, wanted: Set[Path]) -> None:
    """Removes copies of what was written again, if this user may."""
    names = {path.name.rpartition(".")[0] for path in wanted}
    for old in _copies_in(root):
        if old.name.rpartition(".")[0] in names and old not in wanted:
            with contextlib.suppress(PermissionError):
                old.unlink()


def _make_room(root: Path, size: int, limit: float) -> None:
    """Removes copies of data sets that nobody has open, until `size` more bytes fit."""
    sizes = {
        each: sum(map(_size, _copies_in(each)))
        for each in root.parent.iterdir()
        if (each / _IN_USE).exists()
    }
    total = sum(sizes.values())
    for each in sorted(sizes, key=lambda each: (each / _IN_USE).stat().st_mtime_ns):
        if total + size <= limit and size <= shutil.disk_usage(root).free:
            return
        with contextlib.suppress(PermissionError), open(each / _IN_USE, "rb") as file:
            if sizes[each] and try_lock(file):
                _log.info("%s: removing copies of a data set that is not in use", each)
                for copy in _copies_in(each):
                    copy.unlink()
                total -= sizes[each]


def _copies_in(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.name not in (_IN_USE, _LOCK)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # Another process has just written it, or removed it.
        return 0


def _copy(shard: Shard, path: Path) -> None:
    def write(file: IO[bytes]) -> None:
        for start in range(0, shard.size, _PIECE):
            file.write(objects.read_bytes(shard.path, start, min(start + _PIECE, shard.size)))
        if objects.version(shard.path) != shard.version:
            raise UserError(
                f"{shard.path} was written again while it was copied; type the same command again"
            )

    atomic.write_all({path: write})
