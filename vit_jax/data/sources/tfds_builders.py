"""Finds the builder of a TFDS name, and where it has written its data set."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging as absl_logging

# TFDS finds the builders that have been imported.
from vit_jax.data.sources import digits, long_tail  # noqa: F401
from vit_jax.data.sources.tfds_known import only_known_features
from vit_jax.errors import NoDataError, UserError
from vit_jax.spelling import nearest
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket

# What `prepare` writes, and what is read besides.
FORMAT = tfds.core.FileFormat.ARRAY_RECORD
# What `prepare` makes though TFDS does not know it.
_OWN = ("imagenet21k",)
TFRECORD = tfds.core.FileFormat.TFRECORD


def find_builder(dataset: str, data_dir: str | None) -> Any:
    """The TFDS builder of a name such as "cifar10" or "imagenet_v2/matched-frequency:3.0.0".

    Raises:
      NoDataError: TFDS has no data set of this name.
      UserError: the name is of a wrong form, or a package is missing.
    """
    try:
        if tfds.core.naming.parse_builder_name_kwargs(dataset)[0].namespace:
            # TFDS would fetch the code of such a data set and run it.
            raise UserError(
                f"data set {dataset!r}: data sets of TFDS's community, NAMESPACE:NAME, are not read"
            )
        if data_dir is not None:
            objects.require_library(data_dir)
        _require_ordinary_files(dataset, _local_absolute(data_dir))
        return tfds.builder(dataset, data_dir=_local_absolute(data_dir))
    except UserError:
        raise
    except ImportError as error:
        raise UserError(missing_package(dataset, error)) from error
    except (ValueError, AssertionError, TypeError) as error:  # what TFDS raises for bad names
        if os.path.isdir(dataset):
            raise UserError(
                f"{dataset!r} is not a TFDS data set but a folder here: write ./{dataset}"
            ) from None
        if isinstance(error, tfds.core.DatasetNotFoundError):
            if re.split("[:/]", dataset)[0] in _OWN:
                place = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
                raise NoDataError(
                    f"data set {dataset!r} is not prepared in {place}",
                    f"download its archive to a directory DIR and run: "
                    f"{prepare_command(dataset, place)} --archives=DIR",
                    is_registered=True,
                ) from None
            known = [*tfds.list_builders(with_community_datasets=False), *_OWN]
            raise NoDataError(
                f"unknown TFDS data set {dataset!r}",
                f"{nearest(dataset, known).removeprefix('; ')} "
                "(a folder is written with ./, ../, / or ~)",
                is_registered=False,
            ) from None
        raise UserError(f"data set {dataset!r}: {one_line(error)}") from None
    except Exception as error:
        if not _is_about_a_description(error):
            raise
        raise UserError(
            f"data set {dataset!r}: what describes it cannot be read ({one_line(error)}); prepare "
            "it again"
        ) from error


def readable_directory(dataset: str, builder: Any) -> str:
    """Where a prepared data set lies.

    Raises:
      UserError: it is prepared in another format, or names files outside of it.
    """
    info = open_directory(str(builder.data_dir)).info
    if info.file_format not in (FORMAT, TFRECORD):
        raise UserError(
            f"data set {dataset!r} in {builder.data_dir_root} is prepared as "
            f"{info.file_format.value}, which is not read; prepare it as array_record elsewhere: "
            f"{prepare_command(dataset, 'OTHER_DIRECTORY')}"
        )
    directory = os.path.abspath(builder.data_dir)
    for split in info.splits.values():
        for path in split.filepaths:
            if "://" not in str(path) and os.path.dirname(os.path.abspath(path)) != directory:
                raise UserError(
                    f"data set {dataset!r} in {directory}: its dataset_info.json names the file "
                    f"{path} outside of it, which is not read; prepare the data set again"
                )
    return str(builder.data_dir)


def open_directory(directory: str) -> Any:
    """The builder of what lies in a directory, which is read as data; nothing is imported for it.

    Raises:
      UserError: its description is damaged.
    """
    if not is_bucket(directory):
        return _open_directory(directory)
    # From a bucket that takes some twenty requests, one after the other.
    return _opened_in_bucket(directory, objects.version(f"{directory}/dataset_info.json"))


@functools.lru_cache(8)
def _opened_in_bucket(directory: str, version: str | None) -> Any:
    del version  # A data set that was written again is another one.
    return _open_directory(directory)


def _open_directory(directory: str) -> Any:
    try:
        with quiet():
            return tfds.builder_from_directory(directory)
    except UserError:  # A bucket tells by itself what is wrong.
        raise
    except Exception as error:
        if not _is_about_a_description(error):
            raise
        raise UserError(
            f"{directory}: its dataset_info.json or features.json cannot be read "
            f"({one_line(error)}); prepare the data set again"
        ) from error


def _require_ordinary_files(dataset: str, data_dir: str | None) -> None:
    """Refuses a pipe or a device among a data set's files: TFDS would read it without end."""
    name = re.split("[:/]", dataset)[0]
    root = os.path.join(data_dir or os.path.expanduser("~/tensorflow_datasets"), name)
    for folder, _, files in os.walk(root):
        for file in files:
            path = os.path.join(folder, file)
            if os.path.exists(path) and not os.path.isfile(path):
                raise UserError(f"{path} is no ordinary file; prepare the data set again")


def _is_about_a_description(error: Exception) -> bool:
    """Whether an error is what TFDS raises for a damaged or strange file of a data set."""
    kinds = (ValueError, TypeError, KeyError, AttributeError, AssertionError, OSError)
    own = ("google.protobuf", "tensorflow_datasets")
    return isinstance(error, kinds) or type(error).__module__.startswith(own)


def prepare_command(dataset: str, data_dir: str) -> str:
    """What to type to prepare a data set."""
    return f"python -m vit_jax prepare --dataset={dataset} --data_dir={data_dir}"


def missing_package(dataset: str, error: ImportError) -> str:
    """What to install when a builder cannot import a package."""
    if error.name and error.name.partition(".")[0] == "tensorflow":
        return (
            f"TFDS needs TensorFlow to prepare data set {dataset!r} (not to read it); "
            "run: pip install 'vit_jax[prepare]'"
        )
    return f"data set {dataset!r} needs the Python package {error.name!r}; install it with pip"


def one_line(error: Exception) -> str:
    """The text of an error without its line breaks."""
    return " ".join(str(error).split())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps TFDS from logging what it does, and from importing what a data set names."""
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        with only_known_features():
            yield
    finally:
        absl_logging.set_verbosity(verbosity)


def _local_absolute(data_dir: str | None) -> str | None:
    if data_dir is None:
        if "TFDS_DATA_DIR" not in os.environ:
            Path.home()  # If there is none, this says so; TFDS would make a folder called `~`.
        return None
    return data_dir if "://" in data_dir else str(Path(data_dir).expanduser().absolute())
