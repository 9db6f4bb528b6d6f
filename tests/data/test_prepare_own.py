"""Folders, tables and arrays as prepared data sets."""

import errno
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bucket_api import Bucket
from tests.data import archives
from tests.data.listed import label_of, records_of
from vit_jax.data.preparation import writing
from vit_jax.data.preparation.plan import fingerprint_of
from vit_jax.data.preparation.prepare import prepare
from vit_jax.data.sources.open import open_source
from vit_jax.errors import UserError
from vit_jax.storage import objects


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for split, count in (("train", 8), ("val", 3)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "My Photos" / split / name).mkdir(parents=True)
            for i in range(count):
                file = tmp_path / "My Photos" / split / name / f"{i}.jpg"
                file.write_bytes(archives.photo(100 * label + i + 10 * count))
    return tmp_path / "My Photos"


def test_a_folder_gives_the_same_records_in_the_same_order(photos: Path, tmp_path: Path) -> None:
    directory = prepare(str(photos), str(tmp_path / "data"))
    assert directory == f"{tmp_path}/data/my_photos/1.0.0"
    for split in ("train", "val", "train[:50%]+val[2:]"):
        folder = open_source(str(photos), split)
        ours = open_source("my_photos", split, data_dir=str(tmp_path / "data"))
        assert [r[:2] for r in records_of(ours)] == [r[:2] for r in records_of(folder)]
        assert ours.class_names == folder.class_names == ("cat", "dog")
    # No path of this machine is stored.
    (shard,) = Path(directory).glob("*train.array_record*")
    assert b"train/dog/3.jpg" in shard.read_bytes()
    assert str(tmp_path).encode() not in shard.read_bytes()


def test_a_folder_without_splits_gets_those_of_training(photos: Path, tmp_path: Path) -> None:
    prepare(str(photos / "train"), str(tmp_path / "data"), name="own")
    for split in ("train", "test"):
        folder = open_source(str(photos / "train"), split)
        ours = open_source("own", split, data_dir=str(tmp_path / "data"))
        assert [r[:2] for r in records_of(ours)] == [r[:2] for r in records_of(folder)]


def test_a_table_whose_rows_have_several_labels(photos: Path, tmp_path: Path) -> None:
    rows = ["path,label,split", "train/cat/0.jpg,cat|indoors,train", "train/dog/1.jpg,dog,train"]
    rows += ["train/cat/2.jpg,,train", "val/cat/1.jpg,cat,val"]
    table = photos / "labels.csv"
    table.write_text("\n".join(rows))
    prepare(str(table), str(tmp_path / "data"))
    for split in ("train", "val"):
        theirs = open_source(str(table), split)
        ours = open_source("labels", split, data_dir=str(tmp_path / "data"))
        assert [r[:2] for r in records_of(ours)] == [r[:2] for r in records_of(theirs)]
        assert ours.class_names == ("cat", "dog", "indoors")


@pytest.mark.parametrize("shape", [(6, 9, 3), (6, 9), (6, 9, 1)])
def test_arrays(shape: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, *shape), np.uint8) for n in (20, 5))
    labels = [np.arange(20) % 3, np.array([[2], [0], [1], [1], [0]])]
    np.savez_compressed(
        tmp_path / "sets.npz", x_train=train, y_train=labels[0], x_test=test, y_test=labels[1]
    )
    prepare(str(tmp_path / "sets.npz"), str(tmp_path))
    for split, images, wanted in (("train", train, labels[0]), ("test", test, labels[1])):
        source = open_source("sets", split, data_dir=str(tmp_path))
        found = [(np.asarray(Image.open(io.BytesIO(r.image))), r.label) for r in records_of(source)]
        assert sorted((pixels.tobytes(), label) for pixels, label in found) == sorted(
            (image.tobytes(), int(label)) for image, label in zip(images, wanted.flat, strict=True)
        )
        assert source.class_names == ("0", "1", "2")


def test_arrays_of_one_split_with_names_of_classes(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=[0, 1, 1, 0], class_names=["no", "yes", "?"])
    prepare(str(tmp_path / "a.npz"), str(tmp_path), name="answers")
    assert open_source("answers", "train", data_dir=str(tmp_path)).class_names == ("no", "yes", "?")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((2, 8, 8), np.uint8)}, "its keys are pictures; needed are images"),
        ({"images": np.zeros((2, 8, 8), np.uint8)}, "its keys are images; needed"),
        ({"images": np.zeros((2, 8, 8)), "labels": [0, 1]}, r"images is float64 \[2, 8, 8\]"),
        ({"images": np.zeros((2, 8, 8, 4), np.uint8), "labels": [0, 1]}, "needed is uint8"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": [0]}, r"labels is int64 \[1\]"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": [0.0, 1.0]}, "labels is float64"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": [0, -1]}, "label -1 is below 0"),
        (
            {"images": np.zeros((1, 8, 8), np.uint8), "labels": [1], "class_names": ["a"]},
            "class_names has 1 different names for labels up to 1",
        ),
        (
            {"images": np.array([[{}]], object), "labels": [0]},
            "not a whole .npz file of arrays",
        ),
    ],
)
def test_arrays_of_another_form(arrays: dict[str, object], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        prepare(str(tmp_path / "a.npz"), str(tmp_path))


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="not a whole .npz file of arrays"):
        prepare(str(tmp_path / "a.npz"), str(tmp_path))
    with pytest.raises(UserError, match="there is no such file"):
        prepare(str(tmp_path / "b.npz"), str(tmp_path))


def test_names_of_data_sets(photos: Path, tmp_path: Path) -> None:
    photos.rename(tmp_path / "mnist")
    with pytest.raises(UserError, match="'mnist' is the name of a data set of TFDS; give this one"):
        prepare(str(tmp_path / "mnist"), str(tmp_path))
    with pytest.raises(UserError, match="'2 cats' is no name for a data set; give it one with"):
        prepare(str(tmp_path / "mnist"), str(tmp_path), name="2 cats")
    with pytest.raises(UserError, match="--name would be ignored: 'digits' has a name"):
        prepare("digits", str(tmp_path), name="other")
    with pytest.raises(UserError, match="--archives would be ignored: .* holds the images itself"):
        prepare(str(tmp_path / "mnist"), str(tmp_path), archives=".", name="own")
    with pytest.raises(UserError, match="--short_side=0: choose at least 1 pixel"):
        prepare(str(tmp_path / "mnist"), str(tmp_path), short_side=0)


def test_a_split_of_which_nothing_can_be_used(photos: Path, tmp_path: Path) -> None:
    for path in (photos / "val").rglob("*.jpg"):
        path.write_bytes(b"\xff\xd8\xff no image")
    with pytest.raises(UserError, match="no image of split val can be used; the first is val/"):
        prepare(str(photos), str(tmp_path / "data"))


def test_larger_images_are_reduced_and_others_keep_their_bytes(tmp_path: Path) -> None:
    sizes = {"wide": (90, 200), "tall": (128, 64), "small": (30, 64), "equal": (64, 80)}
    for name, size in sizes.items():
        (tmp_path / "sized" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "sized" / name / f"{i}.jpg").write_bytes(archives.photo(i, *size))
    rotated = Image.open(io.BytesIO(archives.photo(3, 100, 200)))
    exif = rotated.getexif()
    exif[274] = 6  # To be turned by 90 degrees.
    (tmp_path / "sized/turned").mkdir()
    for i in range(2):
        rotated.save(tmp_path / f"sized/turned/{i}.png", exif=exif)
    prepare(str(tmp_path / "sized"), str(tmp_path / "data"), short_side=64)
    source = open_source("sized", "train+test", data_dir=str(tmp_path / "data"))
    found = {source.class_names[label_of(r)]: r.image for r in records_of(source)}
    shapes = {name: Image.open(io.BytesIO(data)).size[::-1] for name, data in found.items()}
    wanted = {"wide": (64, 142), "tall": (128, 64), "small": (30, 64), "equal": (64, 80)}
    assert shapes == wanted | {"turned": (128, 64)}
    for name in ("tall", "small", "equal"):
        assert found[name] in {archives.photo(i, *sizes[name]) for i in range(2)}
    assert found["turned"].startswith(b"\xff\xd8\xff")


def test_other_images_with_the_same_name_are_not_taken_for_prepared(
    photos: Path, tmp_path: Path
) -> None:
    data_dir = str(tmp_path / "data")
    first = prepare(str(photos), data_dir)
    assert prepare(str(photos), data_dir) == first
    others = shutil.copytree(photos, tmp_path / "elsewhere" / photos.name)
    (others / "train" / "dog" / "new.jpg").write_bytes(archives.photo(999))
    with pytest.raises(UserError, match="prepared from other images.*choose another --name"):
        prepare(str(others), data_dir)
    pixels = np.zeros((4, 8, 8), np.uint8)
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
        np.savez(tmp_path / str(number) / "dots.npz", images=pixels + number, labels=[0, 1, 0, 1])
    directory = prepare(str(tmp_path / "0" / "dots.npz"), data_dir)
    assert prepare(str(tmp_path / "0" / "dots.npz"), data_dir) == directory
    with pytest.raises(UserError, match="prepared from other images"):
        prepare(str(tmp_path / "1" / "dots.npz"), data_dir)


def test_an_image_of_another_size_under_the_same_name(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = str(tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(writing, "_finish", None)  # As if it was killed there.
        with pytest.raises(TypeError):
            prepare(str(photos), data_dir)
    image = photos / "train" / "dog" / "0.jpg"
    before = image.read_bytes()
    image.write_bytes(before + b"more")
    with pytest.raises(UserError, match="train differs from what a preparation was begun with"):
        prepare(str(photos), data_dir)
    image.write_bytes(before)
    directory = prepare(str(photos), data_dir)
    assert prepare(str(photos), data_dir) == directory
    image.write_bytes(before + b"more")
    with pytest.raises(UserError, match="was prepared from other images"):
        prepare(str(photos), data_dir)


def test_sizes_in_a_bucket_are_those_of_its_list(
    photos: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.objects.add_folder(photos, "bkt", "sized")
    expected = fingerprint_of(open_source(str(photos), "train"))
    source = open_source("gs://bkt/sized", "train")
    monkeypatch.setattr(objects, "size", None)  # It would make a request for each image.
    assert fingerprint_of(source) == expected


def test_a_file_name_that_is_not_in_utf8(photos: Path, tmp_path: Path) -> None:
    odd = os.path.join(os.fsencode(photos / "train" / "cat"), b"\xff.jpg")
    with open(odd, "wb") as file:
        file.write(archives.photo(998))
    (shard,) = Path(prepare(str(photos), str(tmp_path / "data"))).glob("*train.array_record*")
    assert rb"train/cat/\xff.jpg" in shard.read_bytes()


def test_a_disk_that_is_full_as_arrays_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.arange(2))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(UserError, match="the disk is full; make room and run the same command"):
        prepare(str(tmp_path / "a.npz"), str(tmp_path / "data"))
