"""The list of a run's data: what was trained and scored on, to compare at each start."""

import gzip
import os
import zlib
from collections.abc import Mapping

from vit_jax.errors import StorageError, UserError
from vit_jax.storage import objects

# One line of a list: the key of a file or shard, and what must not change of it.
Lists = Mapping[str, Mapping[str, str]]

_SHOWN = 3


def write(path: str | os.PathLike[str], lists: Lists) -> None:
    """Replaces the list.

    Args:
      lists: by source, such as `train`, and by file.

    Raises:
      OSError: the file cannot be written.
    """
    lines = (
        "\t".join(map(_escaped, (source, name, value)))
        for source, files in lists.items()
        for name, value in files.items()
    )
    # Without the time, so that equal lists are equal files.
    objects.write_bytes(path, gzip.compress("\n".join(lines).encode(), mtime=0))


def read(path: str | os.PathLike[str]) -> dict[str, dict[str, str]] | None:
    """The list; None if there is none, as in runs of version 0.1.0.

    Raises:
      UserError: it is damaged.
    """
    lists: dict[str, dict[str, str]] = {}
    try:
        content = objects.read_bytes(path)
        if not content:
            raise EOFError("it is empty")
        for line in gzip.decompress(content).decode().split("\n"):
            if line:
                source, name, value = line.split("\t")
                lists.setdefault(_unescaped(source), {})[_unescaped(name)] = _unescaped(value)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, FileNotFoundError) and not os.path.islink(path):
            return None
        if isinstance(error, StorageError):
            raise
        raise UserError(
            f"{path} cannot be read ({error}), so nothing tells whether the data has changed; "
            "restore it, or add --accept_changed_data"
        ) from error
    return lists


def differences(old: Lists, new: Lists) -> tuple[int, list[str]]:
    """How many files differ, and the first few in words."""
    found = []
    for source in [*old, *(each for each in new if each not in old)]:
        before, after = old.get(source, {}), new.get(source, {})
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                found.append(f"{source}: {_words(name, before.get(name), after.get(name))}")
    return len(found), found[:_SHOWN]


def _words(name: str, before: str | None, after: str | None) -> str:
    if before is None:
        return f"{name} was added"
    if after is None:
        return f"{name} is missing"
    return f"{name} was {before} and is {after}"


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode()


def _unescaped(text: str) -> str:
    return text.encode().decode("unicode_escape")
