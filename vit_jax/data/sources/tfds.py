"""Data sets of TensorFlow Datasets, read from ArrayRecord files without TensorFlow."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from absl import logging as absl_logging

from vit_jax.data.sources import digits, long_tail  # noqa: F401 (TFDS finds what has been imported)
from vit_jax.data.sources.built_in import BuiltIn, prepare_built_in
from vit_jax.data.sources.records import MAX_LABELS, Record
from vit_jax.data.sources.splits import locate, split_ranges
from vit_jax.data.sources.tfds_features import labelled_images
from vit_jax.errors import NoDataError, UserError
from vit_jax.schema import nearest

_FORMAT = tfds.core.FileFormat.ARRAY_RECORD


def open_tfds(
    dataset: str,
    split: str,
    data_dir: str | None,
    *,
    label: str | None = None,
    max_labels: int | None = None,
) -> TfdsSource:
    """Opens a prepared data set; those that need no download are prepared on first use.

    Raises:
      NoDataError: the name is unknown, or the data set is not prepared.
      UserError: it is not prepared as ArrayRecord or not one of labelled images, or the split is
          unknown or hides its labels.
    """
    with _quiet():
        builder = _builder(dataset, data_dir)
        if isinstance(builder, BuiltIn):
            prepare_built_in(builder)
        if not builder.is_prepared():
            with contextlib.suppress(TypeError):  # The classes' names may be in the data alone.
                labelled_images(dataset, builder.info, label)
            raise NoDataError(
                f"data set {dataset!r} is not prepared in {builder.data_dir_root}; "
                f"run: {_prepare_command(dataset, str(builder.data_dir_root))}",
                is_known=True,
            )
        directory = _array_record_directory(dataset, builder)
        source = TfdsSource(dataset, split, directory, label, max_labels)
        # Where a split hides its labels, the first one shows it, before anything is trained.
        source[0]
        return source


def prepare(dataset: str, data_dir: str | None = None) -> str:
    """Downloads a data set and writes it as ArrayRecord; returns its directory.

    Does nothing if that was done before. Some of TFDS's builders need TensorFlow here.

    Raises:
      UserError: if the name is unknown, a package or the network is missing, files must be
          fetched by hand, or the directory holds the data set in another format.
    """
    with _quiet():
        builder = _builder(dataset, data_dir)
        if isinstance(builder, BuiltIn):
            prepare_built_in(builder)
        prepared = builder.is_prepared()
    if not prepared:
        _download(dataset, builder)
    return _array_record_directory(dataset, builder)


class TfdsSource:
    """The images and labels of one split, or slices of splits, of a prepared data set.

    Args:
      label: the key of the ClassLabel, or of the sequence of them; None is the obvious one.
      max_labels: the most that a record of a sequence may have; None is 64.
    """

    def __init__(
        self,
        dataset: str,
        split: str,
        directory: str,
        label: str | None = None,
        max_labels: int | None = None,
    ) -> None:
        info = tfds.builder_from_directory(directory).info
        self.name = f"{dataset}/{split}"
        self._dataset = dataset
        self._split = split
        self._directory = directory
        self._keys = labelled_images(dataset, info, label)
        self.class_names = self._keys.class_names
        self.max_labels = (max_labels or MAX_LABELS) if self._keys.is_sequence else None
        self._full_name = info.full_name
        self._ranges = split_ranges(
            split, {name: s.shard_lengths for name, s in info.splits.items()}, dataset
        )

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self._ranges)

    def __getitem__(self, index: int) -> Record:
        split, position = locate(self._ranges, index)
        records, features = self._reader
        example = features.deserialize_example_np(
            records[index], decoders={self._keys.image: tfds.decode.SkipDecoding()}
        )
        name, labels = f"{self._dataset}/{split}[{position}]", self._keys.labels(example)
        for label in labels:
            if not 0 <= label < len(self.class_names):
                raise UserError(
                    f"{name}: label {label} is not one of the {len(self.class_names)} classes; use "
                    "a split that has labels, or mend the data"
                )
        if self.max_labels is not None and len(labels) > self.max_labels:
            raise UserError(
                f"{name} has {len(labels)} labels, above config.data.max_labels={self.max_labels}; "
                "raise it, which a run that is under way may do too"
            )
        image = example[self._keys.image]
        return Record(image, labels if self._keys.is_sequence else labels[0], name)

    def fingerprint(self) -> str:
        """The name with version and TFDS config, and the ranges of its splits."""
        ranges = "+".join(f"{split}[{start}:{stop}]" for split, start, stop in self._ranges)
        return f"{self._full_name}/{ranges}"

    @functools.cached_property
    def _reader(self) -> tuple[Any, Any]:
        """The open files, and the two features alone so that no other is parsed."""
        with _quiet():
            builder = tfds.builder_from_directory(self._directory)
            records = builder.as_data_source(
                self._split,
                deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
                file_format=_FORMAT,
            )
        return records, self._keys.partial(builder.info.features)

    def __getstate__(self) -> dict[str, Any]:
        # Open files do not travel; the worker opens its own at the first record.
        return {name: value for name, value in self.__dict__.items() if name != "_reader"}


def _builder(dataset: str, data_dir: str | None) -> Any:
    try:
        return tfds.builder(dataset, data_dir=_local_absolute(data_dir))
    except ImportError as error:
        raise UserError(_missing_package(dataset, error)) from error
    except (ValueError, AssertionError, TypeError) as error:  # what TFDS raises for bad names
        if os.path.isdir(dataset):
            raise UserError(
                f"{dataset!r} is not a TFDS data set but a folder here: write ./{dataset}"
            ) from None
        if isinstance(error, tfds.core.DatasetNotFoundError):
            known = tfds.list_builders(with_community_datasets=False)
            raise NoDataError(
                f"unknown TFDS data set {dataset!r}{nearest(dataset, known)} "
                "(a folder is written with ./, ../, / or ~)",
                is_known=False,
            ) from None
        raise UserError(f"data set {dataset!r}: {_one_line(error)}") from None


def _local_absolute(data_dir: str | None) -> str | None:
    if data_dir is None or "://" in data_dir:
        return data_dir
    return os.path.abspath(os.path.expanduser(data_dir))


def _array_record_directory(dataset: str, builder: Any) -> str:
    info = tfds.builder_from_directory(builder.data_dir).info
    formats = info.available_file_formats()
    if _FORMAT not in formats:
        raise UserError(
            f"data set {dataset!r} in {builder.data_dir_root} is prepared as "
            f"{', '.join(sorted(f.value for f in formats))}, which has no random access; prepare "
            f"it as array_record elsewhere: {_prepare_command(dataset, 'OTHER_DIRECTORY')}"
        )
    return str(builder.data_dir)


def _download(dataset: str, builder: Any) -> None:
    try:
        builder.download_and_prepare(file_format=_FORMAT)
    except ImportError as error:
        raise UserError(_missing_package(dataset, error)) from error
    except (OSError, tfds.download.DownloadError) as error:  # requests' errors are OSErrors
        raise UserError(
            f"data set {dataset!r} could not be downloaded to {builder.data_dir_root}: "
            f"{_one_line(error)}; check the network and the disk, then run again"
        ) from error
    except AssertionError as error:
        if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise
        raise UserError(
            f"data set {dataset!r} has files that you must fetch yourself: {_one_line(error)}"
        ) from error


def _missing_package(dataset: str, error: ImportError) -> str:
    if error.name and error.name.partition(".")[0] == "tensorflow":
        return (
            f"TFDS needs TensorFlow to prepare data set {dataset!r} (not to read it); "
            "run: pip install 'vit_jax[prepare]'"
        )
    return f"data set {dataset!r} needs the Python package {error.name!r}; install it with pip"


def _prepare_command(dataset: str, data_dir: str) -> str:
    return f"python -m vit_jax prepare --dataset={dataset} --data_dir={data_dir}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(verbosity)
