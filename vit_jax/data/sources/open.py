"""Opens a data set by name: a folder, a table, tars, a TFDS data set, or a registered kind.

A config file can register a source of its own (`register_source`), which is then opened by
`KIND:REST`, such as `--config.data.dataset=shapes:1000`.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from typing import TypeVar

from vit_jax.data.sources.records import Source
from vit_jax.data.sources.shard_paths import is_parquet, is_tars
from vit_jax.data.sources.slices import Slices
from vit_jax.data.sources.splits import split_names, split_ranges
from vit_jax.errors import UserError
from vit_jax.spelling import nearest
from vit_jax.storage.cache import Cache
from vit_jax.storage.paths import SCHEMES, is_bucket

# Takes what follows `KIND:`, the name of one split, and where data sets lie, if that was given.
Opener = Callable[[str, str, str | None], Source]
_O = TypeVar("_O", bound=Opener)

_KIND = r"[a-z][a-z0-9_]+"
# What follows the colon of a TFDS name, such as `mnist:3.0.*/no_config`.
_VERSION = r"(\d+|\*)\.(\d+|\*)\.(\d+|\*)(/|$)"
_openers: dict[str, Opener] = {}
# Modules of this package that register a kind; they are imported when it is asked for.
_OWN_KINDS = {
    "images": "vit_jax.data.sources.unlabelled",
    "vtab": "vit_jax.data.sources.vtab",
}


def register_source(kind: str) -> Callable[[_O], _O]:
    """Makes `KIND:REST` a data set, for this process and its data workers.

    Decorates a function or class that is called with (rest, split, data_dir) and returns a
    `Source`, such as the class of the source itself:

        @register_source("shapes")
        class Shapes:
            class_names, max_labels = ("square", "disc"), None

            def __init__(self, rest: str, split: str, data_dir: str | None) -> None:
                self.name, self.count = f"shapes:{rest}/{split}", int(rest)

            def __len__(self) -> int:
                return self.count

            def __getitem__(self, index: int) -> Record:
                return Record(draw(index), index % 2, f"{self.name}[{index}]")

            def fingerprint(self) -> str:
                return self.name

    `split` is always the name of one split, such as "train". Slices and sums of splits are made
    from the sources that are returned. A mistake in `rest` or `split` is best raised as
    `UserError`. The source is pickled for data workers, its class included: it may stand in a
    config file, a script or a notebook. It should open files in the first `__getitem__`, not
    before.

    A kind that is registered again replaces the former one, as when a config file is read twice.
    Do not register the name of a TFDS data set: `mnist:3.0.1` would no longer open it.

    Args:
      kind: lower-case letters, digits and `_`, at least two.
    """
    if re.fullmatch(_KIND, kind) is None:
        raise ValueError(
            f"kind {kind!r} of a source: use at least two lower-case letters, digits or _"
        )

    def register(opener: _O) -> _O:
        _openers[kind] = opener
        return opener

    return register


def open_source(
    dataset: str,
    split: str,
    *,
    data_dir: str | None = None,
    test_fraction: float | None = None,
    label: str | None = None,
    max_labels: int | None = None,
    cache: Cache | None = None,
) -> Source:
    """Opens part of a data set.

    Args:
      dataset: a folder of images (`is_folder` states what counts as one, `folder.py` its layouts),
        a table of them (`is_table`), WebDataset tars or Parquet files (`shard_paths.py`), a
        registered kind and what its opener takes (`shapes:1000`), or a TFDS name such as "cifar10"
        or "imagenet_v2/matched-frequency:3.0.0".
      split: in TFDS syntax: "train", "train[:98%]", "train[100:200]+test", "all".
      data_dir: where TFDS keeps its data sets; None is TFDS's default (`TFDS_DATA_DIR`, otherwise
        ~/tensorflow_datasets). Folders do not read it.
      test_fraction: share of each class, above 0 and below 1, that becomes the split "test" of a
        folder or a table without splits.
      label: which feature of a TFDS data set is the label (see `tfds_features.py`), or which column
        of a table.
      max_labels: the most labels that a record may have, in data whose records have any number of
        them. A record with more is an error. None is 64, and in a table the most that one has.
      cache: keeps what is read from shards (`records.reads_pieces`); other kinds do not use it.

    Raises:
      NoDataError: there is no such TFDS data set, or it is not prepared.
      UserError: the folder or split does not exist, it holds no record, or `test_fraction` or
        `label` would be ignored.
    """
    if is_table(dataset):
        from vit_jax.data.sources.table import TableSource

        return TableSource(dataset, split, test_fraction, label, max_labels)
    if is_tars(dataset) or is_parquet(dataset):
        _refuse(
            test_fraction,
            "test_fraction",
            f"data set {dataset!r} is made of shards",
            " and slice a split instead, such as train[:90%]",
        )
        return _open_shards(dataset)(dataset, split, label, max_labels, cache)
    if is_folder(dataset):
        _refuse(label, "label", f"the classes of {dataset} are its folders")
        from vit_jax.data.sources.folder import FolderSource

        return FolderSource(dataset, split, test_fraction)
    _refuse(
        test_fraction,
        "test_fraction",
        f"data set {dataset!r} is neither a folder of classes nor a table",
        " and slice a split instead, such as train[:90%]",
    )
    kind, colon, rest = dataset.partition(":")
    if is_registered(dataset):
        _refuse(label, "label", f"{dataset!r} is a source of the registered kind {kind!r}")
        source = _open_registered(kind, rest, split, data_dir)
        if source.max_labels is not None and max_labels not in (None, source.max_labels):
            _refuse(max_labels, "max_labels", f"{source.name} sets it to {source.max_labels}")
        return source
    if re.fullmatch(_KIND, kind) and colon and re.match(_VERSION, rest) is None:
        known = [*_openers, *_OWN_KINDS]
        raise UserError(
            f"data set {dataset!r}: no kind {kind!r} is registered{nearest(kind, known)} (a "
            "config file that calls register_source must be given with --config)"
        )
    from vit_jax.data.sources.tfds import open_tfds

    return open_tfds(dataset, split, data_dir, label=label, max_labels=max_labels, cache=cache)


def _open_shards(dataset: str) -> Callable[..., Source]:
    if is_tars(dataset):
        from vit_jax.data.sources.webdataset import WebDatasetSource

        return WebDatasetSource
    from vit_jax.data.sources.parquet import ParquetSource

    return ParquetSource


def is_registered(dataset: str) -> bool:
    """Whether `dataset` names a source of a registered kind."""
    kind, colon, _ = dataset.partition(":")
    if colon and kind in _OWN_KINDS and kind not in _openers:
        importlib.import_module(_OWN_KINDS[kind])
    return bool(colon) and kind in _openers


def is_folder(dataset: str) -> bool:
    """Whether `dataset` names a folder: it starts with "/", "./", "../", "~" or a bucket."""
    return dataset.startswith(("/", "./", "../", "~", *SCHEMES))


def is_table(dataset: str) -> bool:
    """Whether `dataset` names a table of images: .csv, .tsv, .jsonl or .ndjson, and no folder."""
    named = dataset.lower().endswith((".csv", ".tsv", ".jsonl", ".ndjson"))
    is_kind = ":" in dataset.partition("/")[0] and not is_bucket(dataset)
    return named and not is_kind and not os.path.isdir(os.path.expanduser(dataset))


def has_own_files(dataset: str) -> bool:
    """Whether `dataset` is a path, so that each machine may have files of its own there."""
    return (
        is_folder(dataset)
        or is_table(dataset)
        or is_tars(dataset)
        or is_parquet(dataset)
        or dataset.startswith("images:")
    )


def _open_registered(kind: str, rest: str, split: str, data_dir: str | None) -> Source:
    dataset = f"{kind}:{rest}"
    names = split_names(split)
    splits = {name: _openers[kind](rest, name, data_dir) for name in names}
    for source in splits.values():
        missing = [
            each for each in ("name", "class_names", "max_labels") if not hasattr(source, each)
        ]
        if missing:
            raise UserError(
                f"data set {dataset!r}: {type(source).__name__} has no {missing[0]!r}; a source "
                "needs what vit_jax.data.sources.records.Source lists"
            )
    lengths = {name: [len(source)] for name, source in splits.items()}
    ranges = split_ranges(split, lengths, dataset)
    return splits[split] if split in splits else Slices(f"{dataset}/{split}", splits, ranges)


def _refuse(value: object, option: str, reason: str, more: str = "") -> None:
    if value is not None:
        raise UserError(f"{option}={value!r} would be ignored: {reason}; leave it out{more}")
