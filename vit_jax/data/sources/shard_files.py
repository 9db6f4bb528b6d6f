"""The shards of a data set as they are now, with what tells whether one has changed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from vit_jax.data.sources.index_file import Shard
from vit_jax.errors import UserError
from vit_jax.reading import other_kind
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket

_STAT_THREADS = 32


def shards_at(directory: str, paths: Sequence[str], name: str, remedy: str) -> list[Shard]:
    """The shards at some paths, all on disks or all in one bucket.

    Args:
      directory: that they lie in or below.
      name: of the data set, for messages.
      remedy: what to do about a missing one.

    Raises:
      UserError: one is missing, is no file or cannot be read; or the bucket cannot be used.
    """
    look = _in_bucket(paths) if is_bucket(directory) else _on_disk
    with ThreadPoolExecutor(_STAT_THREADS) as pool:  # Over a network, each takes a while.
        found = list(pool.map(functools.partial(look, directory), paths))
    missing = [path for path, shard in zip(paths, found, strict=True) if isinstance(shard, str)]
    if missing:
        more = f" (as are {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        reason = next(shard for shard in found if isinstance(shard, str))
        raise UserError(f"{missing[0]}: this shard of {name} is {reason}{more}; {remedy}")
    return [shard for shard in found if isinstance(shard, Shard)]


def common_directory(paths: Sequence[str]) -> str:
    """The directory that some files lie in or below."""
    scheme, _, _ = paths[0].rpartition("://")
    bare = [os.path.dirname(path.removeprefix(f"{scheme}://")) for path in paths]
    return f"{scheme}://{os.path.commonpath(bare)}" if scheme else os.path.commonpath(bare)


def _on_disk(directory: str, path: str) -> Shard | str:
    """A shard, or why there is none."""
    try:
        state = os.stat(path)
    except OSError as error:
        return f"missing or no file ({error.strerror})"
    if (kind := other_kind(state.st_mode)) is not None:
        return f"missing or no file ({kind})"
    return Shard(os.path.relpath(path, directory), path, state.st_size, str(state.st_mtime_ns))


def _in_bucket(paths: Sequence[str]) -> Callable[[str, str], Shard | str]:
    """As `_on_disk`, from one list of each directory: a request for each shard takes long."""
    states = {
        folder: objects.list_states(folder) for folder in dict.fromkeys(map(os.path.dirname, paths))
    }

    def look(directory: str, path: str) -> Shard | str:
        folder, name = os.path.split(path)
        state = states[folder].get(name)
        if state is None:
            return "missing"
        return Shard(path.removeprefix(f"{directory}/"), path, *state)

    return look
