"""The shards of a data set as they are now, with what tells whether one has changed."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from vit_jax.data.sources.index_file import Shard
from vit_jax.errors import UserError
from vit_jax.reading import other_kind

_STAT_THREADS = 32


def shards_at(directory: str, paths: Sequence[str], name: str, remedy: str) -> list[Shard]:
    """The shards at some paths on a disk.

    Args:
      directory: that they lie in or below.
      name: of the data set, for messages.
      remedy: what to do about a missing one.

    Raises:
      UserError: one is missing, is no file or cannot be read.
    """
    with ThreadPoolExecutor(_STAT_THREADS) as pool:  # Over a network, each takes a while.
        found = list(pool.map(functools.partial(_shard, directory), paths))
    missing = [path for path, shard in zip(paths, found, strict=True) if isinstance(shard, str)]
    if missing:
        more = f" (as are {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        reason = next(shard for shard in found if isinstance(shard, str))
        raise UserError(f"{missing[0]}: this shard of {name} is {reason}{more}; {remedy}")
    return [shard for shard in found if isinstance(shard, Shard)]


def _shard(directory: str, path: str) -> Shard | str:
    """A shard, or why there is none."""
    try:
        state = os.stat(path)
    except OSError as error:
        return f"missing or no file ({error.strerror})"
    if (kind := other_kind(state.st_mode)) is not None:
        return f"missing or no file ({kind})"
    return Shard(os.path.relpath(path, directory), path, state.st_size, str(state.st_mtime_ns))
