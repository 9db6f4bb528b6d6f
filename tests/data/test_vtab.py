"""VTAB's splits and labels, against `shared/PROTOCOLS.md` section 3 and TFDS's builders."""

import importlib
import io
import pickle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.data import vtab_data
from tests.data.listed import records_of
from tests.small_models import refusal
from vit_jax.analysis.published.results import VTAB_GROUPS
from vit_jax.data.images.decoding import decode
from vit_jax.data.preparation.prepare import prepare
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.splits import split_names
from vit_jax.data.sources.tfds_rules import COMPUTED_LABELS
from vit_jax.data.sources.vtab import TASKS, task_splits

# Examples in the train split of each data set, by TFDS's catalogue, and what PROTOCOLS.md then has
# for the 200 and the test split. Where the 200 are of another split, their number does not matter.
SPLITS = {
    "caltech101": (3057, "train[2751:2951]", "test"),
    "cifar100": (50_000, "train[45000:45200]", "test"),
    "dtd": (1880, "validation[:200]", "test"),
    "flowers": (1020, "validation[:200]", "test"),
    "pets": (3680, "train[2944:3144]", "test"),
    "sun397": (76_128, "validation[:200]", "test"),
    "svhn": (73_257, "train[65931:66131]", "test"),
    "camelyon": (262_144, "validation[:200]", "test"),
    "eurosat": (27_000, "train[16200:16400]", "train[80%:]"),
    "resisc45": (31_500, "train[18900:19100]", "train[80%:]"),
    "retinopathy": (35_126, "validation[:200]", "test"),
    "clevr_count": (70_000, "train[63000:63200]", "validation"),
    "clevr_distance": (70_000, "train[63000:63200]", "validation"),
    "dmlab": (65_550, "validation[:200]", "test"),
    "dsprites_location": (737_280, "train[589824:590024]", "train[90%:]"),
    "dsprites_orientation": (737_280, "train[589824:590024]", "train[90%:]"),
    "kitti_distance": (6347, "validation[:200]", "test"),
    "smallnorb_azimuth": (24_300, "test[:200]", "test[50%:]"),
    "smallnorb_elevation": (24_300, "test[:200]", "test[50%:]"),
}


def test_the_tasks_and_groups_are_those_of_table_9() -> None:
    groups: dict[str, tuple[str, ...]] = {}
    for name, task in TASKS.items():
        groups[task.group] = (*groups.get(task.group, ()), name)
    assert groups == VTAB_GROUPS
    assert list(TASKS) == list(SPLITS) == list(vtab_data.CLASSES)


@pytest.mark.parametrize("name", SPLITS)
def test_splits_are_those_of_the_authors(name: str) -> None:
    examples, held_out, test = SPLITS[name]
    assert task_splits(TASKS[name], examples) == {
        "train800": "train[:800]",
        "val200": held_out,
        "train800val200": f"train[:800]+{held_out}",
        "test": test,
    }


# BiT, appendix F.
def test_exceptions_of_augmentation_are_those_of_bit() -> None:
    assert {name for name, task in TASKS.items() if not task.flips} == {
        *("dsprites_orientation", "smallnorb_azimuth", "dsprites_location")
    }
    assert {name for name, task in TASKS.items() if not task.crops} == {
        *("clevr_count", "clevr_distance", "dmlab", "kitti_distance", "dsprites_location")
    }


def builder_splits(builder: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The splits that a builder would make, without downloads and without TensorFlow."""
    module = importlib.import_module(type(builder).__module__)
    for name, stand_in in (
        ("tf", mock.MagicMock()),
        ("_build_splits", lambda devkit: ([], [], [])),
    ):
        monkeypatch.setattr(module, name, stand_in, raising=False)
    monkeypatch.setattr(builder, "_get_tfds_subsets_images", mock.MagicMock(), raising=False)
    (folder / "cifar-100-binary").mkdir()
    for key, count in (("fine", 100), ("coarse", 20)):
        names = "\n".join(map(str, range(count)))
        (folder / f"cifar-100-binary/{key}_label_names.txt").write_text(names)
    manager = mock.MagicMock(manual_dir=str(folder))
    if builder.name == "cifar100":
        manager.download_and_extract.return_value = str(folder)
    made = builder._split_generators(manager)
    return set(map(str, made)) if isinstance(made, dict) else {str(each.name) for each in made}


@pytest.mark.parametrize("name", TASKS)
def test_builders_of_tfds_have_the_splits_and_classes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TASKS[name]
    builder: Any = tfds.builder(task.dataset, data_dir=str(tmp_path))
    splits = task_splits(task, 10_000).values()
    needed = {split for spec in splits for split in split_names(spec)}
    assert needed <= builder_splits(builder, tmp_path, monkeypatch)
    computed = COMPUTED_LABELS.get(builder.name, {}).get(task.label or "")
    if computed is not None:
        classes = len(computed.class_names)
    else:
        classes = builder.info.features[task.label or "label"].num_classes
    assert classes == vtab_data.CLASSES[name]
    assert task.by_hand == bool(builder.MANUAL_DOWNLOAD_INSTRUCTIONS)


def test_what_the_rules_take_for_granted_of_tfds(tmp_path: Path) -> None:
    kitti, dsprites = (tfds.builder(name, data_dir=str(tmp_path)) for name in ("kitti", "dsprites"))
    types = kitti.info.features["objects"].feature["type"]
    assert types.names[:4] == ["Car", "Van", "Truck", "Pedestrian"]
    assert dsprites.info.features["label_x_position"].num_classes == 32
    assert dsprites.info.features["label_orientation"].num_classes == 40


def label(dataset: str, name: str, *values: Any) -> int:
    return COMPUTED_LABELS[dataset][name].rule(*(np.array(value) for value in values))


def coordinates(*distances: float) -> np.ndarray:
    """Objects whose other coordinates would be other classes."""
    return np.array([[90.0, 300.0, each] for each in distances], np.float32).reshape(-1, 3)


@pytest.mark.parametrize(("objects", "expected"), [(3, 0), (4, 1), (9, 6), (10, 7)])
def test_clevr_count(objects: int, expected: int) -> None:
    assert label("clevr", "count", coordinates(*range(objects))) == expected


# A distance on a bound does not lie above it.
@pytest.mark.parametrize(
    ("nearest", "expected"),
    [
        *((0.01, 0), (8.0, 0), (8.0001, 1), (8.5, 1), (8.5001, 2), (9.0, 2), (9.0001, 3)),
        *((9.5, 3), (9.5001, 4), (10.0, 4), (10.0001, 5), (99.0, 5)),
    ],
)
def test_clevr_distance(nearest: float, expected: int) -> None:
    assert label("clevr", "distance", coordinates(nearest)) == expected
    assert label("clevr", "distance", coordinates(nearest + 50, nearest, nearest + 1)) == expected


CAR, VAN, TRUCK, PEDESTRIAN = range(4)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [(-2.0, 0), (0.0, 0), (8.0, 0), (8.001, 1), (20.0, 1), (20.001, 2), (900.0, 2)],
)
@pytest.mark.parametrize("kind", [CAR, VAN, TRUCK])
def test_kitti_distance(kind: int, distance: float, expected: int) -> None:
    assert label("kitti", "distance", [kind], coordinates(distance)) == expected
    others = coordinates(-50, distance, distance + 100)
    assert label("kitti", "distance", [PEDESTRIAN, kind, CAR], others) == expected


def test_kitti_without_a_vehicle() -> None:
    assert label("kitti", "distance", [PEDESTRIAN, 7], coordinates(3, 15)) == 3
    assert label("kitti", "distance", np.zeros(0, np.int64), np.zeros(0, np.float32)) == 3


def test_dsprites_in_sixteen_classes() -> None:
    location = [label("dsprites", "location", value) for value in range(32)]
    assert location == [value for value in range(16) for _ in range(2)]
    orientation = [label("dsprites", "orientation", value) for value in range(40)]
    # Every 2.5 values: classes of three and of two take turns.
    assert orientation == [value for value in range(16) for _ in range(3 - value % 2)]
    names = COMPUTED_LABELS["dsprites"]["orientation"].class_names
    assert names[:3] == ("0 to 2", "3 to 4", "5 to 7")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vtab")
    with mock.patch.dict(vtab_data.SIZES, {"train": 2000, "validation": 20, "test": 404}):
        vtab_data.prepare("clevr", folder, ("train", "validation", "test"))
        vtab_data.prepare("dsprites", folder, ("train",))
        vtab_data.prepare("smallnorb", folder, ("train", "test"))
    return str(folder)


def test_an_image_of_dsprites_is_black_and_white_in_three_channels(data_dir: str) -> None:
    record = open_source("vtab:dsprites_location", "train800", data_dir=data_dir)[0]
    pixels = np.asarray(decode(record.image))
    assert pixels.shape == (16, 16, 3)
    assert (pixels == pixels[..., :1]).all()
    source = tfds.builder("dsprites", data_dir=data_dir).as_data_source("train")
    stored = np.asarray(source[0]["image"])
    assert np.unique(stored).tolist() == [0, 1]
    np.testing.assert_array_equal(pixels[..., :1], stored * 255)


def test_an_image_of_smallnorb_has_three_channels(data_dir: str) -> None:
    record = open_source("vtab:smallnorb_azimuth", "test", data_dir=data_dir)[0]
    assert Image.open(io.BytesIO(record.image)).mode == "L"
    pixels = np.asarray(decode(record.image))
    assert pixels.shape == (16, 16, 3) and (pixels == pixels[..., :1]).all()


def test_splits_are_opened_by_the_authors_names(data_dir: str) -> None:
    def names(split: str) -> list[str]:
        source = open_source("vtab:clevr_count", split, data_dir=data_dir)
        return [record.name for record in records_of(source)]

    train, held_out = range(800), range(1800, 2000)
    assert names("train800") == [f"clevr/train[{i}]" for i in train]
    assert names("val200") == [f"clevr/train[{i}]" for i in held_out]
    assert names("train800val200") == [f"clevr/train[{i}]" for i in [*train, *held_out]]
    assert names("test") == [f"clevr/validation[{i}]" for i in range(20)]
    assert names("train800[:2]+test[:1]") == [
        *("clevr/train[0]", "clevr/train[1]", "clevr/validation[0]")
    ]


def test_a_task_travels_to_a_worker(data_dir: str) -> None:
    source = open_source("vtab:clevr_distance", "test", data_dir=data_dir)
    records = records_of(source)
    assert [record.label for record in records] == [i % 6 for i in range(20)]
    assert records_of(pickle.loads(pickle.dumps(source))) == records


def test_a_computed_label_is_chosen_by_name(data_dir: str) -> None:
    source = open_source("clevr", "validation", data_dir=data_dir, label="count")
    assert source.class_names == (*tuple("3456789"), "10")
    assert [record.label for record in records_of(source)] == [i % 8 for i in range(20)]
    text = refusal(open_source, "clevr", "validation", data_dir=data_dir, label="counts")
    assert "no label 'counts'" in text and "did you mean 'count'" in text
    text = refusal(open_source, "clevr", "validation", data_dir=data_dir)
    assert "choose the label with --config.data.label among count, distance, objects/" in text


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_prepared_by_its_name(name: str) -> None:
    with mock.patch("vit_jax.data.preparation.prepare.prepare_tfds") as prepare_tfds:
        prepare(f"vtab:{name}", "/data")
    prepare_tfds.assert_called_once_with(TASKS[name].dataset, "/data")
    assert "no task 'tv'" in refusal(prepare, "vtab:tv")


def test_mistakes_in_names(data_dir: str, tmp_path: Path) -> None:
    text = refusal(open_source, "vtab:clevr_cuont", "test", data_dir=data_dir)
    assert "VTAB has no task 'clevr_cuont'; did you mean 'clevr_count'" in text
    text = refusal(open_source, "vtab:clevr_count", "validation", data_dir=data_dir)
    assert "no split 'validation', but train800, val200, train800val200, test" in text
    text = refusal(open_source, "vtab:pets", "test", data_dir=str(tmp_path))
    assert "python -m vit_jax prepare --dataset=oxford_iiit_pet" in text
    assert "did you mean 'vtab'" in refusal(open_source, "vtap:pets", "test")
