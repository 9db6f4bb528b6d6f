"""Whole shards of a bucket, copied once to a disk of this host.

ArrayRecord's reader opens files of a disk only. What it shall read from a bucket is copied first,
into the user's cache (`VIT_JAX_CACHE`), where all runs of the host find it. A copy carries the
generation of its object in its name, so one of an object that was written again is not used.
"""

from __future__ import annotations

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
from vit_jax.locks import lock, try_lock
from vit_jax.storage import objects
from vit_jax.user_cache import user_cache

_THREADS = 16
_PIECE = 2**24  # Bytes of a request.
_SAY_EVERY = 10.0  # Seconds between two lines of progress.

_log = logging.getLogger(__name__)


def local_copies(directory: str, shards: Sequence[Shard]) -> list[str]:
    """The paths of copies of shards; those that are missing are made.

    Processes of one host wait for the first of them. Copies that were finished before a kill stay.

    Args:
      directory: that the shards lie in, in a bucket.

    Raises:
      UserError: the disk has too little room, a copy cannot be written, a shard changes while it
        is copied, or the bucket cannot be used.
    """
    digest = hashlib.blake2b(directory.encode(), digest_size=8).hexdigest()
    root = user_cache().absolute() / "shards" / digest
    copies = {shard: root / f"{shard.name}.{shard.version}" for shard in shards}
    if _missing(copies.items()):
        try:
            root.mkdir(parents=True, exist_ok=True)
            with open(root / "lock", "ab") as file:
                if not try_lock(file):
                    _log.info("waiting for another process that copies %s", directory)
                    lock(file)
                _copy_all(directory, root, _missing(copies.items()))
        except UserError:
            raise
        except OSError as error:
            raise UserError(
                f"{directory}: its shards cannot be copied to {root} ({error.strerror or error}); "
                "set VIT_JAX_CACHE to another directory"
            ) from error
    return [str(copies[shard]) for shard in shards]


def _missing(copies: Iterable[tuple[Shard, Path]]) -> dict[Shard, Path]:
    return {
        shard: path
        for shard, path in copies
        if not path.exists() or path.stat().st_size != shard.size
    }


def _copy_all(directory: str, root: Path, missing: dict[Shard, Path]) -> None:
    if not missing:
        return
    _remove_old(root, {shard.name for shard in missing})
    size, free = sum(shard.size for shard in missing), shutil.disk_usage(root).free
    if size > free:
        raise UserError(
            f"{directory}: {size / 2**30:,.1f} GiB of ArrayRecord must be copied to this host, and "
            f"{root} has room for {free / 2**30:,.1f} GiB; set VIT_JAX_CACHE to a larger disk, or "
            "keep the data in the bucket as tars, which are read in place"
        )
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


def _remove_old(root: Path, names: Set[str]) -> None:
    """Removes copies of what was written again, and what a process that was killed has left."""
    for old in root.iterdir():
        parts = old.name.removeprefix(".").split(".")
        if any(".".join(parts[:end]) in names for end in range(1, len(parts))):
            old.unlink()


def _copy(shard: Shard, path: Path) -> None:
    def write(file: IO[bytes]) -> None:
        for start in range(0, shard.size, _PIECE):
            file.write(objects.read_bytes(shard.path, start, min(start + _PIECE, shard.size)))
        if objects.version(shard.path) != shard.version:
            raise UserError(
                f"{shard.path} was written again while it was copied; type the same command again"
            )

    atomic.write_all({path: write})
