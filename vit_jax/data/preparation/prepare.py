"""Prepares a data set by name: chooses what its kind of source needs."""

from vit_jax.data.preparation.tfds import prepare_tfds
from vit_jax.data.sources.open import is_folder, is_table
from vit_jax.errors import UserError


def prepare(dataset: str, data_dir: str | None = None) -> str:
    """Downloads a data set if needed and writes it as ArrayRecord; returns its directory.

    Does nothing if the data set is prepared already.

    Args:
      dataset: a TFDS name, or `vtab:TASK` for that of a task of VTAB.
      data_dir: where TFDS keeps its data sets; None is TFDS's default, ~/tensorflow_datasets.

    Raises:
      UserError: the data set needs no preparation, or cannot be prepared.
    """
    if is_table(dataset):
        raise UserError(f"--dataset={dataset}: a table needs no preparation; train on it directly")
    if is_folder(dataset):
        raise UserError(f"--dataset={dataset}: a folder needs no preparation; train on it directly")
    if dataset.startswith("vtab:"):
        from vit_jax.data.sources.vtab import task_named

        dataset = task_named(dataset.removeprefix("vtab:")).dataset
    return prepare_tfds(dataset, data_dir)
