"""The data sets of the paper by name: their splits, and their published sizes.

The sizes serve whoever computes without the data; training counts what it finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, NoReturn

from vit_jax.data.sources.records import MAX_LABELS
from vit_jax.data.sources.splits import split_ranges


class Dataset(NamedTuple):
    """A data set, in splits of TFDS's syntax.

    Attributes:
      tfds: its name in TFDS, or that of the authors' own builder.
      classes: their number; None is not known.
      sizes: examples of each split.
      train: what fine-tuning trains on.
      test: where the paper reports accuracies.
      pretrain: what pre-training trains on.
      held_out: what is scored meanwhile, by name.
      side: of its images in pixels, where that is one for all.
      many_labels: whether an image may have several.
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


# Sizes: of ImageNet-21k and JFT-300M as papers round them, else TFDS's. Splits of pre-training:
# those of the authors' code (big_vision). Resisc45 has one split, of which the last fifth is the
# test set, as in VTAB. ImageNet-21k is not in TFDS, and JFT-300M is private.
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
    """A data set above, or any other TFDS name or folder, with the splits `train` and `test`."""
    return DATASETS.get(name, Dataset(name))


class PublishedSource:
    """Stands in for a data set that is not there: its number of examples and of classes.

    Raises:
      UserError: there is no such split.
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
        """The name of what it stands in for."""
        return self.name


def published_source(tfds: str, split: str) -> PublishedSource | None:
    """The stand-in of a data set with a published size; None for any other."""
    dataset = _by_tfds_name(tfds)
    return None if dataset is None else PublishedSource(dataset, split)


def check_split(tfds: str, split: str) -> bool:
    """Checks a split against the published ones; False where none are.

    Raises:
      UserError: there is no such split.
    """
    dataset = _by_tfds_name(tfds)
    # The size of JFT's own held-out split is not published.
    if dataset is not None and split not in dataset.held_out.values():
        PublishedSource(dataset, split)
    return dataset is not None


def _by_tfds_name(tfds: str) -> Dataset | None:
    return next((dataset for dataset in DATASETS.values() if dataset.tfds == tfds), None)
