"""Data sets of VTAB as TFDS would write them, with pictures from which the labels can be read."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vit_jax.data.sources.vtab import TASKS

SIDE = 16
# Examples of each split; 2,000 leave 200 beyond 90 %, as real data does.
SIZES = {"train": 2000, "validation": 220, "test": 440}
_CLEVR_DISTANCES = (5.0, 8.25, 8.75, 9.25, 9.75, 50.0)
_KITTI_DISTANCES = (4.0, 14.0, 60.0)
_CAR, _PEDESTRIAN = 0, 3


def prepare(dataset: str, data_dir: Path, splits: tuple[str, ...]) -> None:
    """Writes a data set with the features, name and version of its real builder."""
    builder: Any = tfds.builder(dataset, data_dir=str(data_dir))
    # As they come, so that each class is among the 1,000 examples.
    builder.info.as_proto.disable_shuffling = True
    builder._split_generators = lambda manager: {s: _examples(builder, s) for s in splits}
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(file_format=tfds.core.FileFormat.ARRAY_RECORD)


def classes_of(task: str, index: int) -> int:
    """The class of an example by its number in a split: each class comes in turn."""
    return index % CLASSES[task]


CLASSES = {
    **{"caltech101": 102, "cifar100": 100, "dtd": 47, "flowers": 102, "pets": 37},
    **{"sun397": 397, "svhn": 10, "camelyon": 2, "eurosat": 10, "resisc45": 45},
    **{"retinopathy": 5, "clevr_count": 8, "clevr_distance": 6, "dmlab": 6},
    **{"dsprites_location": 16, "dsprites_orientation": 16, "kitti_distance": 4},
    **{"smallnorb_azimuth": 18, "smallnorb_elevation": 9},
}


def picture(tasks: dict[str, int], channels: int, top: int = 255) -> bytes:
    """A PNG that shows a class of each task in a band of its own; mirroring changes nothing."""
    bands = []
    for task, label in tasks.items():
        rng = np.random.default_rng([sum(map(ord, task)), label])
        half = rng.integers(0, 2, (SIDE // len(tasks), SIDE // 2, channels), np.uint8) * top
        bands.append(np.concatenate([half, half[:, ::-1]], axis=1))
    pixels = np.concatenate(bands)
    buffer = io.BytesIO()
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def _examples(builder: Any, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    tasks = [name for name, task in TASKS.items() if task.dataset.split("/")[0] == builder.name]
    features = builder.info.features
    channels = features["image"].shape[-1]
    for index in range(SIZES[split]):
        labels = {task: classes_of(task, index) for task in tasks}
        example = {key: _filler(feature, index) for key, feature in features.items()}
        example["image"] = picture(labels, channels, 1 if builder.name == "dsprites" else 255)
        yield index, example | _features(builder.name, labels, features)


def _features(dataset: str, labels: dict[str, int], features: Any) -> dict[str, Any]:
    """The features that make an example of each of some classes."""
    if dataset == "clevr":
        nearest = _CLEVR_DISTANCES[labels["clevr_distance"]]
        distances = nearest + np.arange(labels["clevr_count"] + 3)[::-1]
        return {"objects": [_clevr_object(features, distance) for distance in distances]}
    if dataset == "kitti":
        objects = [(_PEDESTRIAN, 1.0)]
        if labels["kitti_distance"] < 3:
            near = _KITTI_DISTANCES[labels["kitti_distance"]]
            objects += [(_CAR, near + 30), (_CAR, near)]
        return {"objects": [_kitti_object(features, *each) for each in objects]}
    if dataset == "dsprites":
        # The first value of each class of 16: of 32 every second, of 40 every 2.5th, rounded up.
        return {
            "label_x_position": 2 * labels["dsprites_location"],
            "label_orientation": -(-5 * labels["dsprites_orientation"] // 2),
        }
    if dataset == "smallnorb":
        return {
            "label_azimuth": labels["smallnorb_azimuth"],
            "label_elevation": labels["smallnorb_elevation"],
        }
    (label,) = labels.values()
    return {"label": label}


def _clevr_object(features: Any, distance: float) -> dict[str, Any]:
    values = {key: _filler(each, 0) for key, each in features["objects"].feature.items()}
    return values | {"pixel_coords": [100.0, 100.0, distance]}


def _kitti_object(features: Any, kind: int, distance: float) -> dict[str, Any]:
    values = {key: _filler(each, 0) for key, each in features["objects"].feature.items()}
    return values | {"type": kind, "location": [0.0, 0.0, distance]}


def _filler(feature: Any, index: int) -> Any:
    """A value for a feature that nothing reads."""
    if isinstance(feature, tfds.features.Image):
        return picture({"caltech101": index % 7}, feature.shape[-1])
    if isinstance(feature, tfds.features.Text):
        return f"example {index}"
    if isinstance(feature, tfds.features.BBoxFeature):
        return tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
    if isinstance(feature, tfds.features.ClassLabel):
        return 0
    if isinstance(feature, tfds.features.Sequence):
        return []
    return np.zeros(feature.shape, feature.np_dtype)
