"""ImageNet-1k from the tars of ILSVRC2012, as TFDS's `imagenet2012` has it.

The train tar holds a tar for each class, named by its WordNet id. The validation tar is flat: the
labels of its images are in the development kit, as ILSVRC's numbers, whose order is not that of
the classes. Classes are numbered by sorted WordNet ids, as in TFDS, torchvision and the released
weights.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from vit_jax.data.preparation.archives import (
    class_tars,
    index_class_tars,
    index_flat_tar,
    missing_archives,
)
from vit_jax.data.preparation.tarred import TarredImages
from vit_jax.errors import UserError

NAME = "imagenet2012"
# That of TFDS's builder of this name, which finds what is written here.
VERSION = "5.1.0"
TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_CLASSES = 1000
_DEVKIT_LABELS = "ILSVRC2012_validation_ground_truth.txt"


def open_imagenet(archives: Path, work: Path, workers: int) -> dict[str, TarredImages]:
    """The splits train and validation.

    Args:
      archives: where the three files lie.
      work: for the indexes.
      workers: processes that make them; 0 is this one.

    Raises:
      UserError: a file is missing or damaged, or files do not belong together.
    """
    missing = [n for n in (TRAIN, VALIDATION, DEVKIT) if not (archives / n).is_file()]
    if missing:
        raise missing_archives(
            NAME, missing, archives, "https://image-net.org/download (sign in there)"
        )
    tars = class_tars(archives / TRAIN, work)
    if len(tars) != _CLASSES:
        raise UserError(
            f"{archives / TRAIN} holds {len(tars):,} class tars and not {_CLASSES:,}; "
            "complete its download"
        )
    classes = tuple(tar.name for tar in tars)
    labels = validation_labels(archives / DEVKIT, classes)
    index_class_tars(work / "train", tars, workers)
    index_flat_tar(work / "validation", archives / VALIDATION, labels)
    return {
        split: TarredImages(f"{NAME}/{split}", work / split, classes)
        for split in ("train", "validation")
    }


def validation_labels(devkit: Path, classes: tuple[str, ...]) -> dict[str, int]:
    """The label of each validation image by its file name.

    The development kit numbers classes in ILSVRC's order, from 1; `meta.mat` has the WordNet id of
    each number.

    Args:
      classes: sorted WordNet ids.

    Raises:
      UserError: the kit is damaged, or has other classes.
    """
    try:
        with tarfile.open(devkit) as archive:
            inside = {Path(member.name).name: member for member in archive if member.isreg()}
            meta, truth = (
                archive.extractfile(inside[name]).read()  # type: ignore[union-attr]
                for name in ("meta.mat", _DEVKIT_LABELS)
            )
        wordnet_ids = _wordnet_ids(meta)
        numbers = [int(line) for line in truth.split()]
        label_of = {name: label for label, name in enumerate(classes)}
        return {
            f"ILSVRC2012_val_{image:08d}.JPEG": label_of[wordnet_ids[number]]
            for image, number in enumerate(numbers, 1)
        }
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{devkit}: not the development kit of these images "
            f"({type(error).__name__}: {error}); download it again"
        ) from error


def _wordnet_ids(meta: bytes) -> dict[int, str]:
    """The WordNet ids by ILSVRC's numbers; those above 1,000 are inner nodes of the tree."""
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    return {int(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in synsets.reshape(-1)}
