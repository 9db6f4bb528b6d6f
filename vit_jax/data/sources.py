"""Opens a data set by name: a folder of images or a TFDS data set."""

from __future__ import annotations

from vit_jax.data.records import Source
from vit_jax.errors import UserError


def open_source(
    dataset: str,
    split: str,
    *,
    data_dir: str | None = None,
    test_fraction: float | None = None,
) -> Source:
    """Opens part of a data set.

    Args:
      dataset: a folder of images (see `is_folder` for what counts as one and `folder.py` for its
          layouts), or a TFDS name such as "cifar10" or "imagenet_v2/matched-frequency:3.0.0".
      split: in TFDS syntax: "train", "train[:98%]", "train[100:200]+test", "all".
      data_dir: where TFDS keeps its data sets; None is TFDS's default (`TFDS_DATA_DIR`, else
          ~/tensorflow_datasets). Folders do not read it.
      test_fraction: the share of each class, above 0 and below 1, that becomes the split "test"
          of a folder which has no splits of its own.

    Raises:
      UserError: if there is no such data set or split, or no record in it, or if `test_fraction`
          would be ignored.
    """
    if is_folder(dataset):
        from vit_jax.data.folder import FolderSource

        return FolderSource(dataset, split, test_fraction)
    if test_fraction is not None:
        raise UserError(
            f"test_fraction={test_fraction} would be ignored: data set {dataset!r} is not a folder "
            "of classes; leave it out and slice a split instead, such as train[:90%]"
        )
    from vit_jax.data.tfds_source import open_tfds

    return open_tfds(dataset, split, data_dir)


def is_folder(dataset: str) -> bool:
    """Whether `dataset` names a folder: it starts with "/", "./", "../" or "~"."""
    return dataset.startswith(("/", "./", "../", "~"))
