"""What is stored of a record, and the files with which TFDS describes a data set."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_info import DatasetIdentity
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from vit_jax.data.sources.tfds_builders import FORMAT, quiet

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


class Form:
    """How records are stored.

    Args:
      has_several: whether a record may have any number of labels.
    """

    def __init__(self, class_names: tuple[str, ...], *, has_several: bool) -> None:
        self.class_names = class_names
        self.label = "labels" if has_several else "label"
        self._has_several = has_several

    def serialize(self, image: bytes, label: int | tuple[int, ...], file_name: str) -> bytes:
        """A record as TFDS stores it, a serialized `tf.train.Example`.

        Equal records give equal bytes. TFDS's own `serialize_example` leaves the order of the
        features to chance.
        """
        value = list(label) if isinstance(label, tuple) else label
        # TFDS stores UTF-8; a disk may have names in other encodings.
        name = os.fsencode(file_name).decode(errors="backslashreplace")
        example = {"image": image, self.label: value, "file_name": name}
        message = self._serializer.get_tf_example(self.features.encode_example(example))
        return bytes(message.SerializeToString(deterministic=True))

    @functools.cached_property
    def _serializer(self) -> ExampleSerializer:
        return ExampleSerializer(self.features.get_serialized_info())

    @functools.cached_property
    def features(self) -> Any:
        """The features in TFDS's terms."""
        label: Any = tfds.features.ClassLabel(names=list(self.class_names))
        return tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                self.label: tfds.features.Sequence(label) if self._has_several else label,
                "file_name": tfds.features.Text(),
            }
        )

    def __getstate__(self) -> dict[str, Any]:
        # A worker makes its own features from the names, which are smaller.
        lazy = ("features", "_serializer")
        return {name: value for name, value in self.__dict__.items() if name not in lazy}


class Written(NamedTuple):
    """What was written of a split: records and bytes of images in each shard."""

    records: list[int]
    image_bytes: int


def description_files(
    dataset: str, version: str, form: Form, splits: Mapping[str, Written], text: str
) -> dict[str, bytes]:
    """The files that describe a data set, by name. TFDS takes it for whole once the last is there.

    Args:
      text: what it is, for people.
    """
    with tempfile.TemporaryDirectory() as directory, quiet():
        info = tfds.core.DatasetInfo(
            builder=DatasetIdentity(dataset, tfds.core.Version(version), directory, ""),
            description=text,
            features=form.features,
            supervised_keys=("image", form.label),
        )
        info.set_file_format(FORMAT)
        template = tfds.core.ShardedFileTemplate(
            directory, _TEMPLATE, dataset_name=dataset, filetype_suffix=FORMAT.file_suffix
        )
        info.set_splits(
            tfds.core.splits.SplitDict(
                [
                    tfds.core.SplitInfo(
                        name=name,
                        shard_lengths=written.records,
                        num_bytes=written.image_bytes,
                        filename_template=template.replace(split=name),
                    )
                    for name, written in splits.items()
                ]
            )
        )
        info.write_to_directory(directory)
        files = {path.name: path.read_bytes() for path in sorted(Path(directory).iterdir())}
    files["features.json"] = files.pop("features.json")  # TFDS looks for it; it comes last.
    return files
