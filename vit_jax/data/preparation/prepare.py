"""Prepares a data set by name: chooses what its kind of source needs."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from vit_jax.data.preparation import imagenet, imagenet21k
from vit_jax.data.preparation.arrays import open_arrays
from vit_jax.data.preparation.plan import Options, require_same_input
from vit_jax.data.preparation.target import PLAN, Input, Target, only_one
from vit_jax.data.preparation.tfds import default_data_dir, prepare_tfds, tfds_names
from vit_jax.data.preparation.writing import write
from vit_jax.data.sources.open import is_folder, is_table, open_source
from vit_jax.data.sources.own_splits import own_splits
from vit_jax.data.sources.records import Source
from vit_jax.data.sources.shard_paths import is_parquet, is_tars
from vit_jax.errors import UserError
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path, is_bucket

# What is prepared from archives that each user downloads.
_ARCHIVES = {
    imagenet.NAME: (imagenet.VERSION, imagenet.open_imagenet),
    imagenet21k.NAME: (imagenet21k.VERSION, imagenet21k.open_imagenet21k),
}
_VERSION = "1.0.0"
# Where TFDS wants files that people download themselves.
_MANUAL = "downloads/manual"
# A shard is redone after a kill, and is sent to a bucket from memory.
_SHARD_BYTES = 2**28


def prepare(
    dataset: str,
    data_dir: str | None = None,
    *,
    archives: str | None = None,
    name: str | None = None,
    short_side: int | None = None,
    exclude: Sequence[str] = (),
    workers: int = 0,
    shard_bytes: int = _SHARD_BYTES,
) -> str:
    """Writes a data set as ArrayRecord, as TFDS lays it out; returns its directory.

    Does nothing if the data set is prepared already. After a kill it goes on with the shards that
    are finished, and the result is the same, byte for byte.

    Args:
      dataset: `imagenet2012` or `imagenet21k`, from downloaded archives; a folder or a table of
        images; an `.npz` file (`arrays.py` states its keys); another TFDS name, which is
        downloaded; or `vtab:TASK` for that of a task of VTAB.
      data_dir: where data sets lie, on a disk or in a bucket; None is TFDS's default,
        ~/tensorflow_datasets.
      archives: the directory of downloaded archives; None is `downloads/manual` in `data_dir`.
      name: of the data set that a folder, a table or an `.npz` file becomes; None is its own.
      short_side: images whose shorter side is longer are reduced to it, in pixels.
      exclude: test sets, as DATASET/SPLIT, whose images are left out (`twins.py`).
      workers: processes; 0 is this one.
      shard_bytes: about how large a shard becomes.

    Raises:
      UserError: the data set cannot be prepared, or an option would be ignored.
    """
    options = Options(short_side, tuple(exclude))
    if short_side is not None and short_side < 1:
        raise UserError(f"--short_side={short_side}: choose at least 1 pixel, such as 256")
    if is_tars(dataset) or is_parquet(dataset):
        raise UserError(
            f"--dataset={dataset}: such files need no preparation; train on them directly"
        )
    is_own = _is_arrays(dataset) or is_folder(dataset) or is_table(dataset)
    if is_own:
        _refuse(archives is not None, "--archives", f"{dataset} holds the images itself")
        name, version = _own_name(dataset, name), _VERSION
    else:
        _refuse(name is not None, "--name", f"{dataset!r} has a name")
        if dataset not in _ARCHIVES:
            given = {"--archives": archives, "--short_side": short_side, "--exclude": exclude}
            for option, value in given.items():
                _refuse(bool(value), option, f"TFDS writes {dataset!r} as it is")
            return _prepare_tfds(dataset, data_dir)
        name, version = dataset, _ARCHIVES[dataset][0]
    root = as_path(data_dir or default_data_dir())
    target = Target(name, version, root / name / version)
    if target.is_prepared(options):
        if is_own:
            _require_same(dataset, target)
        target.clear_after_a_kill()
        return os.fspath(target.directory)
    test_sets = {each: _test_set(each, data_dir) for each in exclude}
    found = None if dataset in _ARCHIVES or _is_arrays(dataset) else _files(dataset)
    with only_one(target):
        if dataset in _ARCHIVES:
            place = _archives(dataset, root, archives)
            found = Input(_ARCHIVES[dataset][1](place, target.work, workers))
        elif found is None:
            found = Input(open_arrays(Path(dataset).expanduser().absolute(), target.work))
        write(target, found, options, test_sets, workers=workers, shard_bytes=shard_bytes)
    return os.fspath(target.directory)


def _prepare_tfds(dataset: str, data_dir: str | None) -> str:
    if dataset.startswith("vtab:"):
        from vit_jax.data.sources.vtab import task_named

        dataset = task_named(dataset.removeprefix("vtab:")).dataset
    return prepare_tfds(dataset, data_dir)


def _require_same(dataset: str, target: Target) -> None:
    """Refuses a name that belongs to a data set of other images."""
    with tempfile.TemporaryDirectory() as work:
        if _is_arrays(dataset):
            splits: Mapping[str, Source] = open_arrays(
                Path(dataset).expanduser().absolute(), Path(work)
            )
        else:
            splits = _files(dataset).splits
        plan = objects.read_bytes(target.directory / PLAN)
        require_same_input(plan, splits, target.directory)


def _is_arrays(dataset: str) -> bool:
    return dataset.lower().endswith(".npz")


def _files(dataset: str) -> Input:
    """The splits of a folder or a table."""
    # What has no splits gets these two, as in training.
    splits = own_splits(dataset) or ("train", "test")
    root = os.path.abspath(os.path.expanduser(dataset))
    root = os.path.dirname(root) if is_table(dataset) else root
    sources: dict[str, Source] = {name: open_source(dataset, name) for name in splits}
    return Input(sources, os.path.join(root, ""))


def _own_name(dataset: str, name: str | None) -> str:
    """The name in TFDS of what has none yet."""
    if name is None:
        stem = Path(dataset).expanduser().absolute().name.partition(".")[0]
        name = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")
    if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None:
        raise UserError(
            f"--dataset={dataset}: {name!r} is no name for a data set; give it one with --name, of "
            "lower-case letters, digits and _, beginning with a letter"
        )
    if name in tfds_names():
        raise UserError(
            f"--dataset={dataset}: {name!r} is the name of a data set of TFDS; give this one "
            f"another with --name, such as --name=my_{name}"
        )
    return name


def _archives(dataset: str, root: os.PathLike[str], archives: str | None) -> Path:
    if archives is None and is_bucket(root):
        raise UserError(
            f"--dataset={dataset}: name the directory of the downloaded archives on this machine "
            "with --archives=DIR"
        )
    place = Path(root, _MANUAL) if archives is None else Path(archives).expanduser().absolute()
    if is_bucket(archives or ""):
        raise UserError(f"--archives={archives}: archives are read from disks and mounts only")
    return place


def _test_set(text: str, data_dir: str | None) -> Source:
    dataset, _, split = text.rpartition("/")
    if not dataset:
        raise UserError(f"--exclude={text}: write DATASET/SPLIT, such as cifar10/test")
    return open_source(dataset, split, data_dir=data_dir)


def _refuse(is_given: bool, option: str, reason: str) -> None:
    if is_given:
        raise UserError(f"{option} would be ignored: {reason}; leave it out")
