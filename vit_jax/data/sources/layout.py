"""Where the splits and the classes of a folder are.

The splits are folders with a known name (`train`, `Training`, `seg_train`, `val`, `test` …), each
with a folder for each class; beside `train`, any other folder of classes is a split as well. A
folder without splits holds the classes themselves. What looks like neither is refused with the
path that was probably meant.
"""

from __future__ import annotations

import os
import unicodedata
from typing import NamedTuple

from vit_jax.data.sources.listing import LeftOut, has_images, subfolders
from vit_jax.data.sources.split_words import kind_of, split_name
from vit_jax.errors import UserError

_LISTED_AT_MOST = 8


class Layout(NamedTuple):
    """What lies where.

    Attributes:
      splits: by name, the folder below the root that holds the classes; empty if the root holds
        the classes itself.
      without_classes: folders beside the splits that hold no folders, and so no classes.
    """

    splits: dict[str, str]
    without_classes: tuple[str, ...] = ()


def find_layout(root: str, left_out: LeftOut | None = None) -> Layout:
    """The splits of a folder.

    Raises:
      UserError: it is not laid out in splits and classes, or in classes; or it cannot be listed.
    """
    folders = subfolders(root, left_out)
    inner = {name: subfolders(os.path.join(root, name)) for name in folders}
    kinds = {name: kind for name in folders if inner[name] and (kind := kind_of(name)) is not None}
    others = [name for name in folders if name not in kinds]
    if "train" in kinds.values():
        with_classes = [name for name in folders if inner[name]]
        splits = {
            split_name(name, kinds): _classes_of_split(root, name, inner[name])
            for name in with_classes
        }
        return Layout(splits, tuple(name for name in folders if name not in with_classes))
    if folders and all(kind_of(name) for name in folders):
        splits = {
            split_name(name, kinds): _classes_of_split(root, name, inner[name])
            for name in kinds or folders
        }
        return Layout(splits, tuple(others) if kinds else ())
    if kinds:
        raise UserError(
            f"data set folder {root}: {_list(kinds)} is named like a split and {_list(others)} "
            f"is not; name {os.path.join(root, next(iter(kinds)))} as the data set, or move all "
            "classes into splits, as train/CLASS/IMAGE.jpg"
        )
    _refuse_one_level_too_many(root, folders, inner)
    _refuse_splits_in_classes(root, inner)
    return Layout({})


def class_name(folder: str) -> str:
    """The class of a folder: accents may be stored in two ways that look the same."""
    return unicodedata.normalize("NFC", folder)


def _classes_of_split(root: str, split: str, folders: list[str]) -> str:
    """The folder below the root that holds the classes of a split: it, or one in it of its kind."""
    path = os.path.join(root, split)
    if len(folders) != 1:
        return split
    inner = os.path.join(path, folders[0])
    deeper = subfolders(inner)
    if not deeper or has_images(inner) or has_images(path):
        return split
    if kind_of(folders[0]) == kind_of(split) is not None:
        return os.path.join(split, folders[0])
    raise UserError(
        f"data set folder {path} holds one folder, {folders[0]}, and its classes ({_list(deeper)}) "
        f"seem to lie in there; move them up into {path}"
    )


def _refuse_one_level_too_many(root: str, folders: list[str], inner: dict[str, list[str]]) -> None:
    if len(folders) != 1:
        return
    (only,) = folders
    path, deeper = os.path.join(root, only), inner[only]
    if not deeper or has_images(path):
        return
    while len(deeper) == 1 and not has_images(below := os.path.join(path, deeper[0])):
        if not (next_deeper := subfolders(below)):
            break
        path, deeper = below, next_deeper
    raise UserError(
        f"data set folder {root} holds one folder, {only}, and its splits or classes "
        f"({_list(deeper)}) seem to lie in there; name {path} as the data set"
    )


def _refuse_splits_in_classes(root: str, inner: dict[str, list[str]]) -> None:
    for name, folders in inner.items():
        if "train" in map(kind_of, folders) and all(map(kind_of, folders)) and len(folders) > 1:
            raise UserError(
                f"data set folder {root}: its folder {name} holds splits ({_list(folders)}); turn "
                f"them round, as {folders[0]}/{name}/IMAGE.jpg"
            )


def _list(names: list[str] | dict[str, str]) -> str:
    more = ", …" if len(names) > _LISTED_AT_MOST else ""
    return ", ".join(list(names)[:_LISTED_AT_MOST]) + more
