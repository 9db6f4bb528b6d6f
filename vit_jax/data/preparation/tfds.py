"""Data sets of TensorFlow Datasets, downloaded and written as ArrayRecord."""

import os
from typing import Any

import tensorflow_datasets as tfds

from vit_jax.data.sources.built_in import BuiltIn, prepare_built_in
from vit_jax.data.sources.tfds_builders import (
    FORMAT,
    find_builder,
    missing_package,
    one_line,
    quiet,
    readable_directory,
)
from vit_jax.errors import UserError


def prepare_tfds(dataset: str, data_dir: str | None = None) -> str:
    """Prepares a TFDS data set; returns its directory. Some builders need TensorFlow.

    Raises:
      NoDataError: TFDS has no data set of this name.
      UserError: a package or the network is missing, files must be fetched by hand, or the
        directory holds the data set in another format.
    """
    with quiet():
        builder = find_builder(dataset, data_dir)
        if isinstance(builder, BuiltIn):
            prepare_built_in(builder)
        prepared = builder.is_prepared()
    if not prepared:  # With TFDS's progress bars.
        _download(dataset, builder)
    return readable_directory(dataset, builder)


def default_data_dir() -> str:
    """Where TFDS keeps its data sets if nobody says where."""
    return os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"


def tfds_names() -> list[str]:
    """The names of all data sets that TFDS can make."""
    return list(tfds.list_builders(with_community_datasets=False))


def _download(dataset: str, builder: Any) -> None:
    try:
        builder.download_and_prepare(file_format=FORMAT)
    except ImportError as error:
        raise UserError(missing_package(dataset, error)) from error
    except (OSError, tfds.download.DownloadError) as error:  # requests' errors are OSErrors
        raise UserError(
            f"data set {dataset!r} could not be downloaded to {builder.data_dir_root}: "
            f"{one_line(error)}; check the network and the disk, then run again"
        ) from error
    except AssertionError as error:
        if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise
        raise UserError(
            f"data set {dataset!r} has files that you must fetch yourself: {one_line(error)}"
        ) from error
