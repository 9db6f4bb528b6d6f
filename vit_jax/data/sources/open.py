"""Opens a data set by name: a folder of images or a TFDS data set."""

from __future__ import annotations

from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError


def open_source(
    dataset: str,
    split: str,
    *,
    data_dir: str | None = None,
    test_fraction: float | None = None,
    label: str | None = None,
    max_labels: int | None = None,
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
      label: which feature of a TFDS data set is the label, as in `tfds_features.py`.
      max_labels: the most labels that a record may have where it has any number of them; None is
          64. A record with more is an error when it is read.

    Raises:
      NoDataError: there is no such TFDS data set, or it is not prepared.
      UserError: there is no such folder or split, or no record in it, or `test_fraction` or
          `label` would be ignored.
    """
    if is_folder(dataset):
        if label is not None:
            raise UserError(
                f"label={label!r} would be ignored: the classes of {dataset} are its folders; "
                "leave it out"
            )
        from vit_jax.data.sources.folder import FolderSource

        return FolderSource(dataset, split, test_fraction)
    if test_fraction is not None:
        raise UserError(
            f"test_fraction={test_fraction} would be ignored: data set {dataset!r} is not a folder "
            "of classes; leave it out and slice a split instead, such as train[:90%]"
        )
    from vit_jax.data.sources.tfds import open_tfds

    return open_tfds(dataset, split, data_dir, label=label, max_labels=max_labels)


def is_folder(dataset: str) -> bool:
    """Whether `dataset` names a folder: it starts with "/", "./", "../" or "~"."""
    return dataset.startswith(("/", "./", "../", "~"))
