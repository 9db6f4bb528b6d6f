"""Folders of images, one sub-folder for each class.

There are two layouts. The root holds the splits, and each of them the classes:
`root/train/cat/1.jpg`, `root/val/cat/2.jpg`. Or it holds the classes themselves,
`root/cat/1.jpg`, and the splits `train` and `test` are drawn from every class. `layout.py` tells
them apart.

Hidden files and folders are skipped, symbolic links are followed, and images count at any depth
below their class. `listing.py` states what an image is.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping

from vit_jax.data.images.formats import NAMES
from vit_jax.data.sources import bucket_folder
from vit_jax.data.sources.labelled_files import (
    File,
    FoundFiles,
    LabelledFiles,
    draw_test,
    refuse_fraction,
    require_fraction,
    shuffled,
)
from vit_jax.data.sources.layout import class_name, find_layout
from vit_jax.data.sources.listing import LeftOut, images_below, subfolders
from vit_jax.data.sources.split_words import kind_of
from vit_jax.errors import UserError
from vit_jax.storage.paths import as_path, is_bucket

_log = logging.getLogger(__name__)


class FolderSource(LabelledFiles):
    """The images of one split, or slices of splits, of a folder."""

    def __init__(self, dataset: str, split: str, test_fraction: float | None = None) -> None:
        root = _absolute(dataset)
        found = _scan(root, test_fraction)
        super().__init__(dataset, split, found, f"data set folder {dataset}", root)


def split_folders(dataset: str) -> tuple[str, ...]:
    """Names of the splits that a folder has; none if the root holds the classes themselves.

    Raises:
      UserError: the folder cannot be listed, or is laid out otherwise.
    """
    root = _absolute(dataset)
    _require_folder(root)
    return tuple(find_layout(root).splits)


def _absolute(dataset: str) -> str:
    # Worker processes need not share the current directory.
    return os.fspath(as_path(dataset)).rstrip("/") or "/"


# Listing ImageNet takes seconds on a disk and minutes over a network: do it once for all splits.
@functools.lru_cache(maxsize=8)
def _scan(root: str, test_fraction: float | None) -> FoundFiles:
    _require_folder(root)
    left_out = LeftOut()
    layout = find_layout(root, left_out)
    if layout.splits:
        refuse_fraction(test_fraction, root, layout.splits)
        folder = _with_splits(root, layout.splits, left_out)
    else:
        folder = _without_splits(root, left_out, test_fraction)
    if layout.without_classes:
        _log.warning("%s: left out %s (no class folders)", root, ", ".join(layout.without_classes))
    if text := str(left_out):
        _log.warning("%s: left out %s", root, text)
    return folder


def _require_folder(root: str) -> None:
    is_there = bucket_folder.is_folder(root) if is_bucket(root) else os.path.isdir(root)
    if not is_there:
        reason = "is a file, not a folder" if os.path.exists(root) else "does not exist"
        raise UserError(
            f"data set folder {root} {reason}; name a folder that has one folder for each class"
        )


def _with_splits(root: str, splits: Mapping[str, str], left_out: LeftOut) -> FoundFiles:
    files = {split: _images_by_class(root, folder, left_out) for split, folder in splits.items()}
    train = next((split for split in splits if kind_of(split) == "train"), None)
    if train is not None:
        files = _without_strangers(root, train, files)
        _require_classes_in(root, splits, train, files)
    first = next(iter(splits)) if train is None else train
    _require_images(root, splits[first], files[first])
    # One list of labels for all splits: a class that a split lacks must not shift the others.
    class_names = tuple(sorted(set().union(*files.values())))
    labels = {name: label for label, name in enumerate(class_names)}
    return FoundFiles(
        root,
        class_names,
        {
            split: shuffled(
                [File(path, labels[name]) for name, paths in of_class.items() for path in paths],
                prefix=splits[split],
            )
            for split, of_class in files.items()
        },
        test_fraction=None,
    )


def _without_strangers(
    root: str, train: str, files: dict[str, dict[str, list[bytes]]]
) -> dict[str, dict[str, list[bytes]]]:
    """Leaves out folders beside the splits that hold other things, such as images to predict."""
    strangers = [
        split
        for split, of_class in files.items()
        if kind_of(split) is None and not set(of_class) & set(files[train])
    ]
    if strangers:
        _log.warning("%s: left out %s (none of the classes of train)", root, ", ".join(strangers))
    return {split: of_class for split, of_class in files.items() if split not in strangers}


def _require_classes_in(
    root: str, splits: Mapping[str, str], train: str, files: Mapping[str, Mapping[str, object]]
) -> None:
    """Every class must be one to train on."""
    for split in files:
        missing = sorted(set(files[split]) - set(files[train]))
        if missing:
            extra = os.path.join(root, splits[split], missing[0])
            trained = os.path.join(root, splits[train])
            raise UserError(
                f"class folder {extra} is missing from {trained}; add images of this class to "
                f"{os.path.join(trained, missing[0])}, or remove {extra}"
            )


def _images_by_class(root: str, folder: str, left_out: LeftOut) -> dict[str, list[bytes]]:
    """The paths of the images of each class in a folder below the root."""
    files: dict[str, list[bytes]] = {}
    for name in subfolders(os.path.join(root, folder), left_out if folder else None):
        found = images_below(root, os.path.join(folder, name), left_out)
        files.setdefault(class_name(name), []).extend(found)
    return dict(sorted(files.items()))


def _without_splits(root: str, left_out: LeftOut, test_fraction: float | None) -> FoundFiles:
    test_fraction = require_fraction(test_fraction, root)
    files = _images_by_class(root, "", left_out)
    _require_images(root, "", files)
    classes = [[File(path, label) for path in paths] for label, paths in enumerate(files.values())]
    return FoundFiles(root, tuple(files), draw_test(classes, test_fraction), test_fraction)


def _require_images(root: str, split: str, files: dict[str, list[bytes]]) -> None:
    if not any(files.values()):
        raise UserError(
            f"data set folder {os.path.join(root, split)} holds no images "
            f"({NAMES}) in class folders; lay them out as CLASS/IMAGE.jpg"
        )
    for name, paths in files.items():
        if not paths:
            raise UserError(
                f"class folder {os.path.join(root, split, name)} holds no images; "
                "fill it or remove it"
            )
