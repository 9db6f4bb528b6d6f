"""Parquet files of images, written by pyarrow as `datasets` writes them."""

import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tests.bucket_api import Bucket
from tests.small_models import refusal
from vit_jax.data.sources import parquet as source_module
from vit_jax.data.sources import parquet_columns
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.own_splits import own_splits
from vit_jax.data.sources.records import Source, fetch
from vit_jax.storage.cache import Cache

NAMES = ["cat", "dog", "owl"]


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path,
    first: int,
    stop: int,
    labels: Sequence[Any] | None = None,
    features: Any = "datasets",
    **columns: Any,
) -> None:
    """Images whose value is their number, in groups of three rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(first, stop)
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in numbers]
    found = {"image": images, "label": labels or [i % 3 for i in numbers], **columns}
    table = pa.table({name: each for name, each in found.items() if each is not None})
    if features == "datasets":
        label = {"names": NAMES, "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "label": label}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(table.replace_schema_metadata(metadata), path, row_group_size=3)


def seen(source: Source, indices: Sequence[int] | None = None) -> list[tuple[int, Any]]:
    records = list(fetch(source, range(len(source)) if indices is None else indices))
    assert [record.problem for record in records] == [None] * len(records)
    return [
        (Image.open(io.BytesIO(record.image)).getpixel((0, 0))[0], record.label)
        for record in records
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the Hub serves a data set: `data/train-00000-of-00002.parquet`, …"""
    write(tmp_path / "photos/data/train-00000-of-00002.parquet", 0, 10)
    write(tmp_path / "photos/data/train-00001-of-00002.parquet", 10, 17)
    write(tmp_path / "photos/data/test-00000-of-00001.parquet", 20, 24)
    return tmp_path / "photos"


def test_rows_of_all_files_in_any_order(folder: Path) -> None:
    source = open_source(str(folder / "data"), "train")
    assert (len(source), source.class_names) == (17, ("cat", "dog", "owl"))
    assert seen(source) == [(i, i % 3) for i in range(17)]
    order = [16, 0, 9, 10, 3, 3, 12]
    assert seen(source, order) == [(i, i % 3) for i in order]
    assert seen(open_source(str(folder / "data"), "train[8:12]+test[:1]")) == [
        *((i, i % 3) for i in range(8, 12)),
        (20, 2),
    ]
    assert own_splits(str(folder / "data")) == ("test", "train")
    with pytest.raises(IndexError):
        source[17]


def test_a_pattern_names_files(folder: Path) -> None:
    pattern = f"{folder}/data/train-{{00000..00001}}-of-00002.parquet"
    assert len(open_source(pattern, "train")) == 17
    message = refusal(open_source, f"{folder}/data/train-0000{{0..2}}-of-00002.parquet", "train")
    assert "train-00002-of-00002.parquet" in message and "bring the Parquet files there" in message


@pytest.mark.parametrize(
    ("labels", "features", "classes", "expected"),
    [
        ([2, 0, 1, 2], {}, ("0", "1", "2"), [2, 0, 1, 2]),
        (["owl", "cat", None, "owl"], {}, ("cat", "owl"), [1, 0, -1, 1]),
        ([[0, 2], [], [1], None], {}, ("0", "1", "2"), [(0, 2), (), (1,), ()]),
        (
            [[0, 2], [], [1], [2]],
            {"label": {"feature": {"names": NAMES, "_type": "ClassLabel"}, "_type": "Sequence"}},
            tuple(NAMES),
            [(0, 2), (), (1,), (2,)],
        ),
        (
            [[1], [0, 1], [2], []],
            {"label": [{"names": NAMES, "_type": "ClassLabel"}]},
            tuple(NAMES),
            [(1,), (0, 1), (2,), ()],
        ),
    ],
)
def test_labels_as_people_have_them(
    labels: Any, features: Any, classes: tuple[str, ...], expected: Any, tmp_path: Path
) -> None:
    write(tmp_path / "a/train.parquet", 0, 4, labels, features)
    source = open_source(str(tmp_path / "a"), "train")
    assert source.class_names == classes
    assert [label for _, label in seen(source)] == expected
    assert (source.max_labels is None) == (not isinstance(expected[0], tuple))


def test_another_column_is_the_label(tmp_path: Path) -> None:
    write(tmp_path / "a/train.parquet", 0, 3, None, "datasets", kind=["x", "y", "x"])
    source = open_source(str(tmp_path / "a"), "train", label="kind")
    assert source.class_names == ("x", "y") and [label for _, label in seen(source)] == [0, 1, 0]
    message = refusal(open_source, str(tmp_path / "a"), "train", label="kidn")
    assert "has no column 'kidn'; did you mean 'kind'?" in message


def test_groups_come_from_the_cache(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    read: list[int] = []
    columns = parquet_columns.Columns.read_images

    def counted(own: Any, file: Any, group: int) -> list[bytes]:
        read.append(group)
        return columns(own, file, group)

    monkeypatch.setattr(parquet_columns.Columns, "read_images", counted)
    monkeypatch.setattr(source_module, "_KEPT_BYTES", 1)  # One group at a time.
    cache = Cache(tmp_path / "cache", 2**24)
    order = np.random.default_rng(0).permutation(17).tolist()
    for _ in range(2):
        source_module._groups.cache_clear()
        source = open_source(str(folder / "data"), "train", cache=cache)
        assert seen(source, order) == [(i, i % 3) for i in order]
    assert len(read) == 7  # Each group once: 4 of the first file, 3 of the second.


def test_identity_and_pickling(folder: Path, tmp_path: Path) -> None:
    source = open_source(str(folder / "data"), "train")
    copied = pickle.loads(pickle.dumps(source))
    assert seen(copied) == seen(source) and copied.fingerprint() == source.fingerprint()
    assert source.fingerprint() != open_source(str(folder / "data"), "train[:16]").fingerprint()
    assert len(source.listing()) == 3  # type: ignore[attr-defined]


def test_what_is_damaged_is_named(folder: Path) -> None:
    file = folder / "data/train-00001-of-00002.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    message = refusal(open_source, str(folder / "data"), "train")
    assert f"{file}: cannot be read as Parquet" in message and "restore it" in message
    # A broken page shows when its group is read: the row keeps its place.
    broken = bytearray(whole)
    start = whole.index(png(10)[:20])
    broken[start - 12 : start + 30] = bytes(42)
    file.write_bytes(broken)
    source = open_source(str(folder / "data"), "train")
    records = [source[index] for index in range(17)]
    assert [record.label for record in records] == [i % 3 for i in range(17)]
    problems = [record.problem for record in records]
    assert problems[:10] == [None] * 10 and any(problems[10:])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": None}, "has no column of images, but label"),
        ({"image": [1, 2, 3]}, "column 'image' of"),
        ({"label": [0, 7, 1]}, "row 1 of train has label 7, which is none of the 3 classes"),
    ],
)
def test_other_contents_are_refused(columns: Any, message: str, tmp_path: Path) -> None:
    features = {"label": {"names": NAMES, "_type": "ClassLabel"}}
    write(tmp_path / "a/train.parquet", 0, 3, None, features, **columns)
    assert message in refusal(open_source, str(tmp_path / "a"), "train")


def test_an_image_outside_of_the_file(tmp_path: Path) -> None:
    images = [{"bytes": None, "path": "elsewhere.png"}, {"bytes": png(1), "path": None}]
    write(tmp_path / "a/train.parquet", 0, 2, image=images)
    first, second = (open_source(str(tmp_path / "a"), "train")[index] for index in range(2))
    assert first.problem == "the row holds no bytes of an image" and second.problem is None


def test_files_in_a_bucket(folder: Path, bucket: Bucket) -> None:
    bucket.objects.add_folder(folder, "bkt", "photos")
    source = open_source("gs://bkt/photos/data", "train")
    assert seen(source) == [(i, i % 3) for i in range(17)]
    assert source.fingerprint() == open_source(str(folder / "data"), "train").fingerprint()
    bucket.faults.inject("ranged read", "503", "cut", every=3)
    source_module._groups.cache_clear()
    assert seen(open_source("gs://bkt/photos/data", "test")) == [(i, i % 3) for i in range(20, 24)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([10.0, None, 2.0], pa.float64()), [10, -1, 2]),
        (pa.array([[0, 1], [1, 2], [2, 0]], pa.list_(pa.int64(), 2)), [(0, 1), (1, 2), (2, 0)]),
        (pa.array([[0.0, 1.0], None, [2.0]], pa.list_(pa.float32())), [(0, 1), (), (2,)]),
    ],
)
def test_numbers_as_pandas_keeps_them_and_lists_of_one_length(
    labels: Any, expected: list[Any], tmp_path: Path
) -> None:
    table = pa.table({"image": [png(i) for i in range(3)], "label": labels})
    parquet.write_table(table, tmp_path / "train-0.parquet")
    source = open_source(str(tmp_path), "train")
    assert [source[i].label for i in range(3)] == expected
    assert source.class_names == tuple(map(str, range(11 if source.max_labels is None else 3)))


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ([0.0, 1.5, 2.0], "1.5"),
        ([0.0, float("inf"), 2.0], "inf"),
        ([0.0, 1e300, None], "1e+300"),
        ([[0.0], [1.0, 0.25], []], "0.25"),
    ],
)
@pytest.mark.parametrize("names", [True, False])
def test_a_number_with_a_fraction_is_no_class(
    labels: list[Any], shown: str, names: bool, tmp_path: Path
) -> None:
    write(tmp_path / "a/train.parquet", 0, 3, labels, "datasets" if names else {})
    message = refusal(open_source, str(tmp_path / "a"), "train")
    assert f"train.parquet: row 1 has label={shown}, which is no number of a class" in message


def test_a_split_without_labels_is_named(tmp_path: Path) -> None:
    more: dict[str, Any]
    for split, more in (("train", {"label": [0, 1]}), ("test", {})):
        table = pa.table({"image": [png(0), png(1)], **more})
        parquet.write_table(table, tmp_path / f"{split}-0.parquet")
    assert "test-0.parquet: has no column 'label'" in refusal(open_source, str(tmp_path), "test")
