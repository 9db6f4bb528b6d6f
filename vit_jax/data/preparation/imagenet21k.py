"""ImageNet-21k from its tar of class tars: the releases of winter 2021 and of fall 2011."""

from __future__ import annotations

from pathlib import Path

from vit_jax.data.preparation.archives import class_tars, index_class_tars, missing_archives
from vit_jax.data.preparation.tarred import TarredImages
from vit_jax.errors import UserError

NAME = "imagenet21k"
VERSION = "1.0.0"
# As `published.py` has it; slices of it are the held-out images.
SPLIT = "full"
# The archive of each release, then the directory that it unpacks to.
_RELEASES = ("winter21_whole.tar.gz", "winter21_whole.tar", "winter21_whole", "fall11_whole.tar")


def open_imagenet21k(archives: Path, work: Path, workers: int) -> dict[str, TarredImages]:
    """The split `full`. Classes are named by their WordNet ids, sorted.

    Args:
      archives: the directory that holds the archive of one release, or its class tars.
      work: for the index.
      workers: processes that make it; 0 is this one.

    Raises:
      UserError: no release is there or several are, or a tar is damaged.
    """
    tars = class_tars(_release(archives), work)
    index_class_tars(work / SPLIT, tars, workers)
    classes = tuple(tar.name for tar in tars)
    return {SPLIT: TarredImages(f"{NAME}/{SPLIT}", work / SPLIT, classes)}


def _release(archives: Path) -> Path:
    found = [archives / name for name in _RELEASES if (archives / name).exists()]
    if not found and next(archives.glob("n*.tar"), None) is not None:
        return archives  # The class tars themselves.
    if not found:
        raise missing_archives(
            NAME,
            ["winter21_whole.tar.gz (19,167 classes) or fall11_whole.tar (21,841 classes)"],
            archives,
            "https://image-net.org/download-images (sign in there)",
        )
    if len({path.name.partition("_")[0] for path in found}) > 1:
        raise UserError(
            f"--dataset={NAME}: {archives} holds two releases, {found[0].name} and "
            f"{found[-1].name}; move one elsewhere"
        )
    return found[-1]  # What is unpacked already, if that is there too.
