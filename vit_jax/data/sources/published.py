"""The data sets of the paper by name: their splits and published sizes.

The sizes are used when the data is absent, as in `describe`. Training counts records itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, NoReturn

from vit_jax.data.sources.records import MAX_LABELS
from vit_jax.data.sources.splits import split_ranges


class Dataset(NamedTuple):
    """A data set. Splits are in TFDS syntax.

    Attributes:
      tfds: its name in TFDS, or the name of the authors' own builder.
      classes: number of classes; None if it is not known.
      sizes: number of examples of each split.
      train: split for fine-tuning.
      test: split on which the paper reports accuracies.
      pretrain: split for pre-training.
      held_out: splits that are scored during pre-training, by name.
      side: side of the images in pixels, if all have the same.
      many_labels: whether an image may have several labels.
    """

    tfds: str
    classes: int | None = None
    sizes: Mapping[str, int] = MappingProxyType({})
    train: str = "train"
    test: str = "test"
    pretrain: str = "train"
    held_out: Mapping[str, str] = MappingProxyType({"test": "test"})
    side: int | None = None
    many_labels: bool = False


# Sizes are TFDS's, but those of ImageNet-21k and JFT-300M are rounded as in papers. The splits for
# pre-training are those of the authors' code (big_vision). Resisc45 has one split; its last fifth
# is the test set, as in VTAB. ImageNet-21k is not in TFDS, and JFT-300M is private.
DATASETS = {
    "imagenet": Dataset(
        "imagenet2012",
        1000,
        {"train": 1_281_167, "validation": 50_000},
        test="validation",
        pretrain="train[:99%]",
        held_out={"minival": "train[99%:]", "val": "validation"},
    ),
    "imagenet21k": Dataset(
        "imagenet21k",
        21_843,
        {"full": 14_200_000},
        train="full[51200:]",
        test="full[:25600]",
        pretrain="full[51200:]",
        held_out={"val": "full[25600:51200]"},
    ),
    "jft": Dataset("jft_300m", 18_291, {"train": 303_000_000}, many_labels=True),
    "cifar10": Dataset("cifar10", 10, {"train": 50_000, "test": 10_000}, side=32),
    "cifar100": Dataset("cifar100", 100, {"train": 50_000, "test": 10_000}, side=32),
    "pets": Dataset("oxford_iiit_pet", 37, {"train": 3680, "test": 3669}),
    "flowers": Dataset("oxford_flowers102", 102, {"train": 1020, "validation": 1020, "test": 6149}),
    "resisc45": Dataset(
        "resisc45", 45, {"train": 31_500}, train="train[:80%]", test="train[80%:]", side=256
    ),
}


def named(name: str) -> Dataset:
    """The data set of a name in `DATASETS`; otherwise that name, with the splits train and test."""
    return DATASETS.get(name, Dataset(name))


class AbsentSource:
    """Stands in for a data set that is absent: number of examples and classes, but no records.

    Raises:
      UserError: the split does not exist.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        ranges = split_ranges(split, {s: [n] for s, n in dataset.sizes.items()}, dataset.tfds)
        self.name = f"{dataset.tfds}/{split}"
        self.class_names = tuple(str(label) for label in range(dataset.classes or 0))
        self.max_labels = MAX_LABELS if dataset.many_labels else None
        self._length = sum(stop - start for _, start, stop in ranges)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> NoReturn:
        raise IndexError(f"{self.name} has no records here")

    def fingerprint(self) -> str:
        """The name of the data set and split."""
        return self.name


def absent_source(tfds: str, split: str) -> AbsentSource | None:
    """A stand-in for a data set that is not on this machine: published sizes, no records.

    None if the sizes of this data set are not published.
    """
    dataset = _by_tfds_name(tfds)
    return None if dataset is None else AbsentSource(dataset, split)


def check_split(tfds: str, split: str) -> bool:
    """Checks that a data set has a split, if its splits are published; returns whether they are.

    Raises:
      UserError: the split does not exist.
    """
    dataset = _by_tfds_name(tfds)
    # The size of the held-out split of JFT is not published.
    if dataset is not None and split not in dataset.held_out.values():
        AbsentSource(dataset, split)
    return dataset is not None


def _by_tfds_name(tfds: str) -> Dataset | None:
    return next((dataset for dataset in DATASETS.values() if dataset.tfds == tfds), None)
