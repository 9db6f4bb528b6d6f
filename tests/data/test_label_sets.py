"""Data sets whose records have any number of labels, from TFDS's files to batches."""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.data.listed import Listed, records_of
from tests.small_models import refusal
from vit_jax.data.batches import Chunks
from vit_jax.data.config import DataConfig
from vit_jax.data.preparation.prepare import prepare
from vit_jax.data.sources.built_in import png
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Record

Examples = Iterator[tuple[int, dict[str, Any]]]

COLOURS = ("red", "green", "blue")
# By the red of the image, which tells the records apart.
LABELS = {0: [2], 1: [], 2: [0, 2], 3: [1, 0, 2], 4: [1, 1, 2, 1]}
SETS = {i: tuple(dict.fromkeys(labels)) for i, labels in LABELS.items()}


class LabelSets(tfds.core.GeneratorBasedBuilder):
    """Labels in TFDS's sequences, in one of objects, and in a nested data set."""

    VERSION = tfds.core.Version("1.0.0")
    SUPERVISED_KEYS: tuple[str, str] | None = ("image", "labels")

    def _info(self) -> tfds.core.DatasetInfo:
        colour = tfds.features.ClassLabel(names=COLOURS)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(4, 4, 3)),
                    "labels": tfds.features.Sequence(colour),
                    "objects": tfds.features.Sequence(
                        {"label": colour, "size": tfds.features.Scalar(np.float32)}
                    ),
                    "nested": tfds.features.Dataset({"label": colour}),
                    "nested_labels": tfds.features.Dataset(colour),
                    "three": tfds.features.Sequence(colour, length=3),
                    "sizes": tfds.features.Sequence(np.float32),
                }
            ),
            supervised_keys=self.SUPERVISED_KEYS,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Examples]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Examples:
        for i, labels in LABELS.items():
            objects = [{"label": label, "size": 0.5} for label in labels]
            yield (
                i,
                {
                    "image": png(np.full((4, 4, 3), [i, 0, 0], np.uint8)),
                    "labels": labels,
                    "objects": objects,
                    "nested": [{"label": label} for label in labels],
                    "nested_labels": labels,
                    "three": [0, 1, 2],
                    "sizes": [0.5] * len(labels),
                },
            )


class UnnamedSets(LabelSets):
    VERSION = tfds.core.Version("1.0.0")
    SUPERVISED_KEYS = None


class OneSet(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    LABELS: tuple[int, ...] = (-1,)

    def _info(self) -> tfds.core.DatasetInfo:
        colour = tfds.features.ClassLabel(num_classes=20)
        features = {"image": tfds.features.Image(), "right": tfds.features.Sequence(colour)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict[str, Examples]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Examples:
        yield 0, {"image": png(np.zeros((4, 4, 3), np.uint8)), "right": list(self.LABELS)}


class ManyLabels(OneSet):
    VERSION = tfds.core.Version("1.0.0")
    LABELS = tuple(range(7)) * 2


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = str(tmp_path_factory.mktemp("tfds"))
    for name in ("label_sets", "unnamed_sets", "one_set", "many_labels"):
        prepare(name, directory)
    return directory


def number(record: Record) -> int:
    return int(np.asarray(Image.open(io.BytesIO(record.image)))[0, 0, 0])


@pytest.mark.parametrize(
    "label", [None, "labels", "objects/label", "nested/label", "nested_labels"]
)
def test_labels_are_those_of_each_record_once_and_in_order(
    data_dir: str, label: str | None
) -> None:
    source = open_source("label_sets", "train", data_dir=data_dir, label=label)
    assert source.class_names == COLOURS
    assert {number(record): record.label for record in records_of(source)} == SETS
    assert source.max_labels == 64
    travelled = pickle.loads(pickle.dumps(source))
    assert records_of(travelled) == records_of(source)


def test_a_sequence_of_fixed_length(data_dir: str) -> None:
    source = open_source("label_sets", "train", data_dir=data_dir, label="three")
    assert {record.label for record in records_of(source)} == {(0, 1, 2)}


def test_classes_without_names_are_counted(data_dir: str) -> None:
    source = open_source("many_labels", "train", data_dir=data_dir)
    assert source.class_names == tuple(str(i) for i in range(20))
    assert source[0].label == tuple(range(7))


def test_what_to_read_must_be_clear(data_dir: str) -> None:
    message = refusal(open_source, "unnamed_sets", "train", data_dir=data_dir)
    candidates = "labels, nested/label, nested_labels, objects/label, three"
    assert f"--config.data.label among {candidates}" in message
    for label in ("label", "sizes", "objects", "image"):
        message = refusal(open_source, "label_sets", "train", data_dir=data_dir, label=label)
        assert f"has no label {label!r}" in message


def test_an_option_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    assert "would be ignored" in refusal(open_source, str(tmp_path), "train", label="labels")


def test_labels_that_are_no_class_or_too_many_name_the_record(data_dir: str) -> None:
    message = refusal(open_source, "one_set", "train", data_dir=data_dir)
    assert message.startswith("one_set/train[0]: label -1 is not one of the 20 classes")
    message = refusal(open_source, "many_labels", "train", data_dir=data_dir, max_labels=6)
    assert message.startswith("many_labels/train[0] has 7 labels, above config.data.max_labels=6")
    assert len(open_source("many_labels", "train", data_dir=data_dir, max_labels=7)) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_labels": 0}, "max_labels must be between 1"),
        ({"subset": 0}, "subset must be at least 1"),
        ({"subset_seed": 1}, "subset_seed would be ignored"),
        ({"subset": 1, "subset_seed": -1}, "subset_seed must be between 0"),
    ],
)
def test_mistakes_in_the_config(values: dict[str, int], message: str) -> None:
    assert message in refusal(DataConfig, "label_sets", **values)


# Batches.


def chunks(records: list[Record]) -> Chunks:
    return Chunks(
        Listed(records, max_labels=3),
        lambda data, rng: np.full((2, 2, 3), data[0], np.uint8),
        size=(2, 2),
        rows=np.arange(4),
        batch_size=4,
        seed=0,
        shuffle=False,
    )


RECORDS = [Record(bytes([i]), labels, f"set/{i}") for i, labels in SETS.items()]


def test_a_batch_pads_with_minus_one() -> None:
    first, second = (chunks(RECORDS)[i] for i in range(2))
    assert first["labels"].dtype == np.int32
    assert first["labels"].tolist() == [[2, -1, -1], [-1, -1, -1], [0, 2, -1], [1, 0, 2]]
    # The last one, and rows that fill up the batch.
    assert second["labels"].tolist() == [[1, 2, -1], *[[-1, -1, -1]] * 3]
    assert second["weights"].tolist() == [1, 0, 0, 0]


def test_rows_without_a_label_count() -> None:
    batch = chunks(RECORDS)[0]
    assert batch["weights"].tolist() == [1, 1, 1, 1] and batch["errors"] == ()
