"""Which shards a data set is made of: those in a folder, or those that a pattern names.

Shards are tars or Parquet files. A pattern has braces as in a shell, and wildcards in its last
part: `shards/train-{000000..001281}.tar`, `imagenet/{train,val}-*.tar`. A shard belongs to the
split that its folder is named after, otherwise to the one that a part of its name says
(`imagenet1k-validation-07.tar`). If no shard says any, all are `train`.
"""

from __future__ import annotations

import fnmatch
import functools
import itertools
import logging
import os
import re
from collections.abc import Collection, Iterable

from vit_jax.data.images.formats import SUFFIXES
from vit_jax.data.sources import bucket_folder
from vit_jax.data.sources.split_words import kind_of, split_name
from vit_jax.errors import UserError
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path, is_bucket

TAR, PARQUET = ".tar", ".parquet"
_COMPRESSED = {TAR: (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")}
_WORDS = {TAR: "tars", PARQUET: "Parquet files"}
_WILD = re.compile(r"[*?\[]")
# Where repositories of the Hugging Face Hub have their files.
_DATA = "data"
# A pattern may name no more files than this.
_MOST_FILES = 10**6

_log = logging.getLogger(__name__)


def is_tars(dataset: str) -> bool:
    """Whether a data set is given as tars: by a pattern, or as a folder that holds some."""
    return _is_shards(dataset, TAR)


def is_parquet(dataset: str) -> bool:
    """Whether a data set is given as Parquet files, as by `is_tars`."""
    return _is_shards(dataset, PARQUET)


def _is_shards(dataset: str, suffix: str) -> bool:
    if dataset.endswith((suffix, *_COMPRESSED.get(suffix, ()))):
        # Otherwise it is of a registered kind.
        return is_bucket(dataset) or ":" not in dataset.partition("/")[0]
    is_path = dataset.startswith(("/", "./", "../", "~")) or is_bucket(dataset)
    folder = _absolute(dataset)
    # An archive or a table that was left in a folder of images does not hide them.
    return is_path and bool(_in_folder(folder, suffix)) and not _has_images_below(folder, suffix)


def shards_by_split(dataset: str, suffix: str) -> dict[str, list[str]]:
    """The shards of each split, by their numbers.

    Args:
      suffix: `TAR` or `PARQUET`.

    Raises:
      UserError: there are none, some are missing, or some belong to no split.
    """
    if dataset.endswith(_COMPRESSED.get(suffix, ())):
        raise UserError(f"data set {dataset}: compressed tars have no random access; unpack them")
    if dataset.endswith(suffix):
        paths = _named(dataset, _WORDS[suffix])
    else:
        paths = _in_folder(_absolute(dataset), suffix)
        _warn_of_gaps(paths)
    splits = _splits(dataset, paths)
    return {name: sorted(splits[name], key=_by_numbers) for name in sorted(splits)}


def _named(pattern: str, words: str) -> list[str]:
    """The files that a pattern names; all that it writes out must be there.

    Args:
      words: what they are, for messages.
    """
    import bracex

    try:
        expanded = list(bracex.iexpand(_absolute(pattern), limit=_MOST_FILES))
    except bracex.ExpansionLimitException as error:
        raise UserError(f"data set {pattern}: names more than {_MOST_FILES:,} files") from error
    names = functools.cache(_names_in)
    found: list[str] = []
    missing = []
    for each in expanded:
        folder, name = os.path.split(each)
        if _WILD.search(name):
            matching = [f"{folder}/{n}" for n in names(folder) if fnmatch.fnmatchcase(n, name)]
        else:
            matching = [each] if name in names(folder) else []
        found += matching
        if not matching:
            missing.append(each)
    if missing:
        more = f" (and {len(missing) - 1:,} more are missing)" if len(missing) > 1 else ""
        raise UserError(
            f"data set {pattern}: there is no {missing[0]}{more}; bring the {words} there, "
            "or name those that are"
        )
    return list(dict.fromkeys(found))


def _in_folder(folder: str, suffix: str) -> list[str]:
    """The shards in a folder, in its `data`, and in its folders that are named like a split."""
    names = _listed(folder)
    inner = [f"{folder}/{name}" for name in names if name == _DATA or kind_of(name) is not None]
    return [
        f"{place}/{name}"
        for place in (folder, *inner)
        for name in (names if place == folder else _listed(place))
        if name.endswith(suffix)
    ]


def _has_images_below(folder: str, suffix: str) -> bool:
    """Whether folders in a folder, or those in them, hold files with an image's suffix."""

    def inner(place: str) -> list[str]:
        others = (name for name in _listed(place) if not name.startswith("."))
        return [f"{place}/{name}" for name in others if not name.endswith(suffix)]

    def has_images(place: str) -> bool:
        return any(os.path.splitext(name)[1].lower() in SUFFIXES for name in _listed(place))

    return any(has_images(one) or any(map(has_images, inner(one))) for one in inner(folder))


def _listed(folder: str) -> Collection[str]:
    """As `_names_in`; what lies below a folder of a bucket is listed once, whatever it holds."""
    if is_bucket(folder):
        return [entry.name for entry in bucket_folder.entries(folder)]
    return _names_in(folder)


def _names_in(folder: str) -> Collection[str]:
    """What lies in a folder; nothing if it cannot be listed, which others tell."""
    try:
        return dict.fromkeys(objects.list_names(folder))
    except UserError:  # A bucket tells by itself what is wrong.
        raise
    except OSError:
        return ()


def _absolute(path: str) -> str:
    # Worker processes need not share the current directory.
    return os.fspath(as_path(path.rstrip("/") or path))


def _splits(dataset: str, paths: Iterable[str]) -> dict[str, list[str]]:
    words: dict[str | None, list[str]] = {}
    for path in paths:
        words.setdefault(_split_word(path), []).append(path)
    none = words.pop(None, [])
    if not words:
        return {"train": none}
    if none:
        raise UserError(
            f"data set {dataset}: {none[0]} belongs to no split, and others to "
            f"{', '.join(map(str, words))}; name it like them, or name the others alone"
        )
    kinds = {word: kind for word in words if word and (kind := kind_of(word)) is not None}
    splits: dict[str, list[str]] = {}
    for word, found in words.items():
        assert word is not None
        splits.setdefault(split_name(word, kinds), []).extend(found)
    return splits


def _split_word(path: str) -> str | None:
    """What names the split of a shard: its folder, otherwise a part of its name."""
    folder, name = os.path.split(path)
    parts = [os.path.basename(folder), *re.split(r"[-_.]", name)]
    return next((part for part in parts if kind_of(part) is not None), None)


def _by_numbers(path: str) -> list[tuple[int, str]]:
    """Sorts `2.tar` before `10.tar`."""
    parts = re.split(r"(\d+)", path)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _warn_of_gaps(paths: Iterable[str]) -> None:
    """Says which shards of a folder seem to be missing, by their numbers."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for path in paths:
        match = re.fullmatch(r"(.*?)(\d+)(\.\w+)", path, re.DOTALL)
        if match:
            numbers.setdefault((match[1], str(len(match[2]))), set()).add(int(match[2]))
    for (start, _), found in numbers.items():
        missing = sorted(set(range(max(found) + 1)) - found) if min(found) in (0, 1) else []
        missing = [number for number in missing if number > min(found)]
        if missing:
            listed = ", ".join(map(str, itertools.islice(missing, 8)))
            _log.warning(
                "%s…: %d of its numbers are missing between %d and %d (%s%s)",
                *(start, len(missing), min(found), max(found), listed),
                ", …" if len(missing) > 8 else "",
            )
