"""Finds the builder of a TFDS name, and where it has written its data set."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from absl import logging as absl_logging

# TFDS finds the builders that have been imported.
from vit_jax.data.sources import digits, long_tail  # noqa: F401
from vit_jax.errors import NoDataError, UserError
from vit_jax.spelling import nearest

FORMAT = tfds.core.FileFormat.ARRAY_RECORD


def find_builder(dataset: str, data_dir: str | None) -> Any:
    """The TFDS builder of a name such as "cifar10" or "imagenet_v2/matched-frequency:3.0.0".

    Raises:
      NoDataError: TFDS has no data set of this name.
      UserError: the name is of a wrong form, or a package is missing.
    """
    try:
        return tfds.builder(dataset, data_dir=_local_absolute(data_dir))
    except ImportError as error:
        raise UserError(missing_package(dataset, error)) from error
    except (ValueError, AssertionError, TypeError) as error:  # what TFDS raises for bad names
        if os.path.isdir(dataset):
            raise UserError(
                f"{dataset!r} is not a TFDS data set but a folder here: write ./{dataset}"
            ) from None
        if isinstance(error, tfds.core.DatasetNotFoundError):
            known = tfds.list_builders(with_community_datasets=False)
            raise NoDataError(
                f"unknown TFDS data set {dataset!r}",
                f"{nearest(dataset, known).removeprefix('; ')} "
                "(a folder is written with ./, ../, / or ~)",
                is_registered=False,
            ) from None
        raise UserError(f"data set {dataset!r}: {one_line(error)}") from None


def array_record_directory(dataset: str, builder: Any) -> str:
    """Where a prepared data set lies.

    Raises:
      UserError: it is prepared in another format.
    """
    info = tfds.builder_from_directory(builder.data_dir).info
    formats = info.available_file_formats()
    if FORMAT not in formats:
        raise UserError(
            f"data set {dataset!r} in {builder.data_dir_root} is prepared as "
            f"{', '.join(sorted(f.value for f in formats))}, which has no random access; prepare "
            f"it as array_record elsewhere: {prepare_command(dataset, 'OTHER_DIRECTORY')}"
        )
    return str(builder.data_dir)


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
    """Keeps TFDS from logging what it does."""
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(verbosity)


def _local_absolute(data_dir: str | None) -> str | None:
    if data_dir is None or "://" in data_dir:
        return data_dir
    return os.path.abspath(os.path.expanduser(data_dir))
