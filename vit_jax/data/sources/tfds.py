"""Data sets of TensorFlow Datasets, read from ArrayRecord or TFRecord without TensorFlow."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from vit_jax.data.sources.built_in import BuiltIn, prepare_built_in
from vit_jax.data.sources.records import MAX_LABELS, Record
from vit_jax.data.sources.splits import locate, split_ranges
from vit_jax.data.sources.tfds_builders import (
    TFRECORD,
    find_builder,
    one_line,
    open_directory,
    prepare_command,
    quiet,
    readable_directory,
)
from vit_jax.data.sources.tfds_features import labelled_images
from vit_jax.data.sources.tfds_records import ArrayRecords, SerialisedExamples, TfRecords
from vit_jax.errors import NoDataError, UserError
from vit_jax.storage.cache import Cache
from vit_jax.storage.paths import is_bucket


def open_tfds(
    dataset: str,
    split: str,
    data_dir: str | None,
    *,
    label: str | None = None,
    max_labels: int | None = None,
    cache: Cache | None = None,
) -> TfdsSource:
    """Opens a prepared data set. One that needs no download is prepared on first use.

    Args:
      label: the feature that is the label, as in `tfds_features.labelled_images`.
      max_labels, cache: as in `TfdsSource`.

    Raises:
      NoDataError: the name is unknown, or the data set is not prepared.
      UserError: it is damaged, it is prepared in another format than ArrayRecord and TFRecord, it
        is not one of labelled images, or the split does not exist or hides its labels.
    """
    with quiet():
        builder = _prepared_builder(dataset, data_dir, label)
        directory = readable_directory(dataset, builder)
        source = TfdsSource(dataset, split, directory, label, max_labels, cache)
        # If a split hides its labels, the first record shows it before anything is trained.
        source[0]
        return source


def tfds_split_sizes(dataset: str, data_dir: str | None) -> dict[str, int]:
    """The number of examples in each split of a prepared data set.

    Raises:
      NoDataError: the name is unknown, or the data set is not prepared.
    """
    with quiet():
        splits = _prepared_builder(dataset, data_dir).info.splits
        return {name: split.num_examples for name, split in splits.items()}


def _prepared_builder(dataset: str, data_dir: str | None, label: str | None = None) -> Any:
    builder = find_builder(dataset, data_dir)
    if isinstance(builder, BuiltIn):
        prepare_built_in(builder)
    if not builder.is_prepared():
        with contextlib.suppress(TypeError):  # The class names may be in the data alone.
            labelled_images(dataset, builder.info, label)
        raise NoDataError(
            f"data set {dataset!r} is not prepared in {builder.data_dir_root}",
            f"run: {prepare_command(dataset, str(builder.data_dir_root))}",
            is_registered=True,
        )
    return builder


class TfdsSource:
    """The images and labels of one split, or slices of splits, of a prepared data set.

    Args:
      directory: where the prepared data set lies.
      label: the feature that is the label, as in `tfds_features.labelled_images`.
      max_labels: if a record may have any number of labels, the most that one may have; None is 64.
      cache: keeps what is read of TFRecord files, and copies of ArrayRecord in a bucket.
    """

    def __init__(
        self,
        dataset: str,
        split: str,
        directory: str,
        label: str | None = None,
        max_labels: int | None = None,
        cache: Cache | None = None,
    ) -> None:
        info = open_directory(directory).info
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
        is_tfrecord = info.file_format == TFRECORD
        self.reads_pieces = is_tfrecord or is_bucket(directory)
        self._examples: SerialisedExamples = (
            TfRecords(directory, self._ranges, self.name, cache)
            if is_tfrecord
            else ArrayRecords(directory, self._ranges, self.name, cache)
        )
        self._examples.open()

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self._ranges)

    def __getitem__(self, index: int) -> Record:
        return next(self.fetch([index]))

    def fetch(self, indices: Sequence[int]) -> Iterator[Record]:
        """The records at some indices, in that order; from TFRecord, several are read at once."""
        places = [locate(self._ranges, index) for index in indices]
        for (split, position), data in zip(places, self._examples.read(indices), strict=True):
            yield self._record(f"{self._dataset}/{split}[{position}]", data)

    def _record(self, name: str, data: bytes | Exception) -> Record:
        try:
            if isinstance(data, Exception):
                raise data
            example = self._features.deserialize_example_np(
                data, decoders={self._keys.image: tfds.decode.SkipDecoding()}
            )
            image, labels = self._keys.encoded(example), self._keys.labels(example)
        except UserError:
            raise
        except Exception as error:  # What parses a damaged example raises nearly anything.
            no_label = () if self._keys.is_sequence else -1
            return Record(b"", no_label, name, f"cannot read the record ({one_line(error)})")
        for label in labels:
            if not 0 <= label < len(self.class_names):
                raise UserError(
                    f"{name}: label {label} is not one of the {len(self.class_names)} classes; use "
                    "a split that has labels, or mend the data"
                )
        if self.max_labels is not None and len(labels) > self.max_labels:
            raise UserError(
                f"{name} has {len(labels)} labels, above config.data.max_labels={self.max_labels}; "
                "raise it (a run that resumes may do so too)"
            )
        return Record(image, labels if self._keys.is_sequence else labels[0], name)

    def fingerprint(self) -> str:
        """The name with version and TFDS config, and the ranges of its splits."""
        ranges = "+".join(f"{split}[{start}:{stop}]" for split, start, stop in self._ranges)
        return f"{self._full_name}/{ranges}"

    def listing(self) -> dict[str, str]:
        """The sizes of the shards by their names, and the fingerprint."""
        splits = tfds.builder_from_directory(self._directory).info.splits
        sizes = {}
        for split in dict.fromkeys(split for split, _, _ in self._ranges):
            for path in splits[split].filepaths:
                size = f"{path.stat().length} bytes" if path.exists() else "missing"
                sizes[path.name] = size
        return {"records": self.fingerprint(), **sizes}

    @functools.cached_property
    def _features(self) -> Any:
        """The features that are read, so that no other is parsed."""
        return self._keys.partial(open_directory(self._directory).info.features)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_features"}
