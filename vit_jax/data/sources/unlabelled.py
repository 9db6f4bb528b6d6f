"""`images:FOLDER`: all images of a folder, at any depth, without labels."""

from __future__ import annotations

import logging
import os

from vit_jax.data.images.formats import NAMES
from vit_jax.data.sources import bucket_folder
from vit_jax.data.sources.labelled_files import File, FoundFiles, LabelledFiles, shuffled
from vit_jax.data.sources.listing import LeftOut, images_below, subfolders
from vit_jax.data.sources.open import register_source
from vit_jax.data.sources.split_words import kind_of, split_name
from vit_jax.errors import UserError
from vit_jax.storage.paths import as_path, is_bucket

_NO_LABEL = -1
_log = logging.getLogger(__name__)


@register_source("images")
def open_unlabelled(folder: str, split: str, data_dir: str | None) -> LabelledFiles:
    """The images of one split of a folder, in an order that mixes its sub-folders.

    A folder with a sub-folder that is named like `train` has those splits that its sub-folders are
    named like, and what else lies in it is left out; another folder has one split, `train`.

    Raises:
      UserError: the folder is missing or holds no images, or there is no such split.
    """
    del data_dir
    root = os.fspath(as_path(folder)).rstrip("/") or "/"
    if not (bucket_folder.is_folder(root) if is_bucket(root) else os.path.isdir(root)):
        raise UserError(f"data set images:{folder}: there is no folder {root}; name one of images")
    kinds = {name: kind for name in subfolders(root) if (kind := kind_of(name)) is not None}
    if "train" in kinds.values():
        folders = {split_name(name, kinds): name for name in kinds}
    else:
        folders = {"train": ""}
    left_out = LeftOut()
    splits = {
        name: shuffled([File(path, _NO_LABEL) for path in images_below(root, below, left_out)])
        for name, below in folders.items()
    }
    for name, files in splits.items():
        if not files:
            raise UserError(
                f"data set images:{folder}: {os.path.join(root, folders[name])} holds no images "
                f"({NAMES})"
            )
    if text := str(left_out):
        _log.warning("%s: left out %s", root, text)
    found = FoundFiles(root, (), splits, test_fraction=None)
    return LabelledFiles(f"images:{folder}", split, found, f"data set images:{folder}", root)
