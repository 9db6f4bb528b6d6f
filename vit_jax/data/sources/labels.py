"""The label of every record of a source, and how unequal its classes are."""

from __future__ import annotations

import numpy as np

from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError


def labels_of_source(source: Source) -> np.ndarray:
    """The labels in record order, int32 [records]; -1 is no label.

    A source may have a method `labels` that returns them, as folders do. Otherwise every record is
    read.

    Raises:
      UserError: records may have several labels.
    """
    if source.max_labels is not None:
        raise UserError(f"records of {source.name} have several labels; one is needed")
    own = getattr(source, "labels", None)
    if own is not None:
        return np.asarray(own(), np.int32)
    return np.array([source[index].label for index in range(len(source))], np.int32)


def labels_at_hand(source: Source) -> np.ndarray | None:
    """As `labels_of_source`; None if the source cannot tell without reading its records."""
    return labels_of_source(source) if hasattr(source, "labels") else None


def refuse_several_labels(source: Source, option: str) -> None:
    """Refuses an option that needs one label for each record.

    Args:
      option: as in `config.loss_weights`.

    Raises:
      UserError: records may have several labels.
    """
    if source.max_labels is not None:
        raise UserError(f"{option}: records of {source.name} have several labels; leave it out")


def class_counts(source: Source) -> np.ndarray:
    """The number of records of each class, int [classes]; those without a label are left out.

    Raises:
      UserError: as `labels_of_source`.
    """
    labels = labels_of_source(source)
    return np.bincount(labels[labels >= 0], minlength=len(source.class_names))


def balanced_weights(counts: np.ndarray) -> np.ndarray:
    """n / (k n_c) for class c: its weight, with which all k classes count alike.

    n is the number of records and n_c that of class c. It is scikit-learn's
    `compute_class_weight("balanced")`. The mean over the records is 1.

    Args:
      counts: records of each class.

    Returns:
      float32 [classes]; 1 for a class without records, which k leaves out.
    """
    present = counts > 0
    return np.where(
        present, counts.sum() / (max(present.sum(), 1) * np.maximum(counts, 1)), 1
    ).astype(np.float32)
