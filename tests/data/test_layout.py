"""Layouts of public data sets: splits and classes as a person reads them, or one line."""

import io
import logging
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from tests.data.listed import label_of, records_of
from vit_jax.data.sources.folder import FolderSource
from vit_jax.data.sources.listing import list_images
from vit_jax.data.sources.own_splits import own_splits, split_to_score
from vit_jax.errors import UserError


def put(root: Path, *folders: str, count: int = 2) -> Path:
    """Puts files named like images into folders."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number}.jpg").write_text(f"{folder}/{number}")
    return root


def found(root: Path, split: str) -> dict[str, int]:
    """The number of images of each class."""
    source = FolderSource(str(root), split)
    names = [source.class_names[label_of(record)] for record in records_of(source)]
    return {name: names.count(name) for name in source.class_names}


def refusal(root: Path, split: str = "train") -> str:
    with pytest.raises(UserError) as raised:
        FolderSource(str(root), split)
    assert "\n" not in str(raised.value)
    return str(raised.value)


BOTH = {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("train", "test", "split"),
    [
        ("Training", "Testing", "test"),
        ("Train", "Test", "test"),
        ("TRAIN", "VAL", "val"),
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
        ("train_set", "test-set", "test"),
        ("training_images", "validation_images", "val"),
        ("train", "val", "val"),
        ("train", "valid", "valid"),
        ("train", "validation", "validation"),
        ("train/train", "dev/dev", "dev"),
    ],
)
def test_known_names_are_splits(tmp_path: Path, train: str, test: str, split: str) -> None:
    put(tmp_path, *(f"{folder}/{name}" for folder in (train, test) for name in BOTH))
    assert set(own_splits(str(tmp_path))) == {"train", split}
    assert found(tmp_path, "train") == found(tmp_path, split) == BOTH
    if split != "dev":
        assert split_to_score(str(tmp_path)) == split
    # Slices, and any other name of the same kind.
    assert sum(found(tmp_path, "train[:50%]").values()) == 2
    other = {"test": "testing"}.get(split, "validation")
    assert found(tmp_path, other) == BOTH


def test_val_takes_the_place_of_a_missing_test_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "train/cat", "train/dog", "valid/cat", "valid/dog")
    with caplog.at_level(logging.INFO):
        assert found(tmp_path, "test") == BOTH
    assert "has no split 'test': 'valid' takes its place" in caplog.text


def test_a_test_folder_alone_is_a_test_split(tmp_path: Path) -> None:
    put(tmp_path, "test/cat", "test/dog")
    assert split_to_score(str(tmp_path)) == "test"
    assert found(tmp_path, "test") == BOTH
    assert "has no split 'train', but test; name one" in refusal(tmp_path)


def test_one_level_too_many_names_the_deeper_path(tmp_path: Path) -> None:
    put(tmp_path / "splits", "photos/train/cat", "photos/test/cat")
    put(tmp_path / "classes", "photos/cat", "photos/dog")
    put(tmp_path / "twice", "a/b/train/cat", "a/b/train/dog", "a/b/test/cat")
    for name, deeper in {"splits": "photos", "classes": "photos", "twice": "a/b"}.items():
        message = refusal(tmp_path / name)
        assert f"name {tmp_path / name / deeper} as the data set" in message
    put(tmp_path / "in split", "train/photos/cat", "train/photos/dog")
    assert f"move them up into {tmp_path / 'in split/train'}" in refusal(tmp_path / "in split")


def test_splits_within_classes_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "cat/train", "cat/test", "dog/train", "dog/test")
    assert "turn them round, as test/cat/IMAGE.jpg" in refusal(tmp_path)


def test_a_split_beside_what_is_none_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "Testing/cat", "Testing/dog", "more/cat")
    assert "Testing is named like a split and more is not" in refusal(tmp_path)


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    put(tmp_path, "train", "plane", "car")
    assert found(tmp_path, "all") == {"car": 2, "plane": 2, "train": 2}


def test_images_without_labels_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "train/cat", "train/dog", "test", "annotations")
    assert found(tmp_path, "train") == BOTH
    assert "left out annotations, test (no class folders)" in caplog.text
    assert "no split 'test'" in refusal(tmp_path, "test")


def test_images_to_predict_beside_the_splits_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(
        tmp_path,
        *(f"seg_{split}/seg_{split}/{name}" for split in ("train", "test") for name in BOTH),
    )
    put(tmp_path, "seg_pred/seg_pred")
    assert found(tmp_path, "train") == found(tmp_path, "test") == BOTH
    assert "left out seg_pred (none of the classes of train)" in caplog.text


def test_splits_without_classes_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path, "train", "test1")
    assert "holds no images" in refusal(tmp_path) and "lay them out as CLASS" in refusal(tmp_path)


def test_clutter_is_no_class(tmp_path: Path) -> None:
    put(
        tmp_path, "train/cat", "train/dog", "__MACOSX/train/cat", "train/@eaDir", "train/cat/@eaDir"
    )
    put(tmp_path, "train/.ipynb_checkpoints", "System Volume Information")
    assert found(tmp_path, "train") == BOTH


def test_two_spellings_of_an_accent_are_one_class(tmp_path: Path) -> None:
    composed, taken_apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    put(tmp_path, f"train/{composed}", "train/dog", f"test/{taken_apart}", "test/dog")
    assert found(tmp_path, "test") == {composed: 2, "dog": 2}
    # As after copies from two systems.
    put(tmp_path / "both", composed, "dog")
    put(tmp_path / "both", taken_apart, count=3)
    assert found(tmp_path / "both", "all") == {composed: 5, "dog": 2}


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(buffer, form)
    return buffer.getvalue()


def test_an_image_is_what_its_bytes_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "train/cat"
    folder.mkdir(parents=True)
    forms = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
    for name in ("", ".jfif", ".data", ".txt", ".tar"):
        for form in forms:
            (folder / f"{form}{name}").write_bytes(encoded(form))
    wanted = 5 * len(forms)
    for name in (
        "notes.txt",
        "table.csv",
        "other.csv",
        "README",
        "photo.nef",
        "empty",
        "x.\x1b[31m",
    ):
        (folder / name).write_bytes(
            encoded("TIFF") if name == "photo.nef" else b"BMs, P1: no image"
        )
    (folder / "empty").write_bytes(b"")
    put(tmp_path, "train/dog")
    assert found(tmp_path, "train")["cat"] == wanted
    (line,) = (r.getMessage() for r in caplog.records if "left out" in r.getMessage())
    assert "7 files without an image (" in line
    for part in ("2 .csv", "1 .txt", "1 .nef", "3 without a usual suffix"):
        assert part in line
    assert "\x1b" not in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_devices_and_loops_end_as_their_own_line(tmp_path: Path) -> None:
    folder = tmp_path / "train/cat"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "gone.jpg").symlink_to("/nowhere/x.jpg")
    with open(folder / "huge.tif", "wb") as file:
        file.truncate(2**40)  # A terabyte of holes.
    put(tmp_path, "train/dog")
    source = FolderSource(str(tmp_path), "train")
    problems = {
        os.path.basename(record.name): record.problem
        for record in records_of(source)
        if record.problem is not None
    }
    wanted = {
        "pipe.jpg": "a pipe and not a file",
        "zero.png": "a device and not a file",
        "loop.png": "Too many levels of symbolic links",
        "gone.jpg": "No such file or directory",
        "huge.tif": "1,024.0 GiB, more than an image may take",
    }
    assert problems == {name: f"cannot read the file ({why})" for name, why in wanted.items()}
    assert len(list_images(str(folder))) == len(wanted)
