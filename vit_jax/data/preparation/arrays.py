"""Images in a NumPy file `.npz`, as a source.

The keys are `images` and `labels`, which become the split `train`; or a pair for each split,
`train_images` and `train_labels`, or `x_train` and `y_train` as in Keras' files. Images are uint8
[N, H, W, 3], [N, H, W, 1] or [N, H, W]; labels are integers [N] from 0, or [N, 1]. The key
`class_names` may hold the names of the classes, strings [classes]; otherwise they are numbers.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.data.preparation.shards import full_disk
from vit_jax.data.sources.built_in import png
from vit_jax.data.sources.records import Record
from vit_jax.errors import UserError

_KEYS = (r"(?P<split>[a-z]\w*)_{0}s", r"(?P<split>)(?:{0}s)", r"{1}_(?P<split>[a-z]\w*)")
_FORMS = (("image", "x"), ("label", "y"))
_NAMES = "class_names"


class ArrayImages:
    """One split. Images are encoded as PNG, so nothing is lost.

    Args:
      directory: holds `images.npy` and `labels.npy`.
    """

    max_labels = None

    def __init__(self, name: str, directory: Path, class_names: tuple[str, ...]) -> None:
        self.name, self.class_names = name, class_names
        self._directory = directory
        self._labels = np.load(directory / "labels.npy").reshape(-1).astype(np.int32)
        # In the file, classes often follow each other; a slice of a split must have all of them.
        self._order = np.random.default_rng(0).permutation(len(self._labels))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        at = int(self._order[index])
        pixels = np.asarray(self._images[at])
        image = png(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)
        return Record(image, int(self._labels[at]), f"{self.name}[{at}]")

    def labels(self) -> np.ndarray:
        """The label of each record, int32 [records]."""
        return self._labels[self._order]

    def fingerprint(self) -> str:
        """A hash of the labels and the images."""
        digest = hashlib.blake2b(self._labels.tobytes(), digest_size=8)
        for image in self._images:
            digest.update(image.tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def _images(self) -> np.ndarray:
        return np.load(self._directory / "images.npy", mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        # A mapped file is not pickled: a worker maps its own.
        return {name: value for name, value in self.__dict__.items() if name != "_images"}


def open_arrays(path: Path, work: Path) -> dict[str, ArrayImages]:
    """The splits of an `.npz` file. Its arrays are unpacked to `work`, to be mapped into memory.

    Raises:
      UserError: the file is missing or damaged, its arrays are not of the form above, or the disk
        is full.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            keys = _keys(path, [name.removesuffix(".npy") for name in archive.namelist()])
            for split, (images, labels) in keys.items():
                (work / split).mkdir(parents=True, exist_ok=True)
                for key, name in ((images, "images"), (labels, "labels")):
                    with (
                        archive.open(f"{key}.npy") as packed,
                        open(work / split / f"{name}.npy", "wb") as file,
                    ):
                        shutil.copyfileobj(packed, file, 2**22)
        for split, keys_of in keys.items():
            _check(path, work / split, *keys_of)
        names = _class_names(path, [work / split for split in keys])
    except FileNotFoundError as error:
        raise UserError(f"--dataset={path}: there is no such file") from error
    except OSError as error:
        if isinstance(error, UserError) or error.errno != errno.ENOSPC:
            raise
        raise full_disk(work) from error
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--dataset={path}: not a whole .npz file of arrays ({error})") from error
    return {split: ArrayImages(f"{path.stem}/{split}", work / split, names) for split in keys}


def _keys(path: Path, names: list[str]) -> dict[str, tuple[str, str]]:
    """The keys of images and labels of each split."""
    found: list[dict[str, str]] = []
    for form in _FORMS:
        of_form = {}
        for name in names:
            matches = (re.fullmatch(pattern.format(*form), name) for pattern in _KEYS)
            if (match := next((m for m in matches if m is not None), None)) is not None:
                of_form[match["split"] or "train"] = name
        found.append(of_form)
    images, labels = found
    if not images or images.keys() != labels.keys():
        raise UserError(
            f"--dataset={path}: its keys are {', '.join(names) or 'none'}; needed are images and "
            "labels, or for each split train_images and train_labels, or x_train and y_train"
        )
    return {split: (images[split], labels[split]) for split in images}


def _check(path: Path, directory: Path, images_key: str, labels_key: str) -> None:
    images = np.load(directory / "images.npy", mmap_mode="r")
    labels = np.load(directory / "labels.npy", mmap_mode="r")
    is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if images.dtype != np.uint8 or not is_image or 0 in images.shape:
        raise UserError(
            f"--dataset={path}: {images_key} is {images.dtype} {list(images.shape)}; needed is "
            "uint8 [N, H, W, 3], [N, H, W, 1] or [N, H, W]"
        )
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)):
        raise UserError(
            f"--dataset={path}: {labels_key} is {labels.dtype} {list(labels.shape)}; needed are "
            f"integers [{len(images)}], one for each of {images_key}"
        )


def _class_names(path: Path, directories: list[Path]) -> tuple[str, ...]:
    labels = [np.load(directory / "labels.npy", mmap_mode="r") for directory in directories]
    least, most = min(int(x.min()) for x in labels), max(int(x.max()) for x in labels)
    if least < 0:
        raise UserError(f"--dataset={path}: label {least} is below 0; number classes from 0")
    with np.load(path) as archive:
        if _NAMES not in archive.files:
            return tuple(str(label) for label in range(most + 1))
        names = tuple(str(name) for name in archive[_NAMES])
    if len(set(names)) != len(names) or len(names) <= most:
        raise UserError(
            f"--dataset={path}: {_NAMES} has {len(set(names))} different names for labels up to "
            f"{most}; give each class its own"
        )
    return names
