"""Folders and tables of images in a bucket: what a disk would give, with few requests."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bucket_api import Bucket
from tests.small_models import refusal
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.own_splits import own_splits
from vit_jax.data.sources.records import Source, fetch


@pytest.fixture
def photos(tmp_path: Path, bucket: Bucket) -> Path:
    """Photographs of two classes, on a disk and in the bucket."""
    rng = np.random.default_rng(0)
    for name in ("train/cat/1.png", "train/cat/deep/2.png", "train/dog/3.png", "test/dog/4.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos/train/cat/.hidden.png").write_bytes(b"")
    (tmp_path / "photos/train/notes.txt").write_text("no image")
    bucket.objects.add_folder(tmp_path / "photos", "bkt", "photos")
    return tmp_path / "photos"


def contents(source: Source) -> list[tuple[bytes, object]]:
    return [(record.image, record.label) for record in fetch(source, range(len(source)))]


@pytest.mark.parametrize("split", ["train", "test", "train[:50%]+test"])
def test_a_folder_is_read_as_on_a_disk(split: str, photos: Path, bucket: Bucket) -> None:
    local, remote = open_source(str(photos), split), open_source("gs://bkt/photos", split)
    assert contents(remote) == contents(local)
    assert remote.class_names == local.class_names == ("cat", "dog")
    assert remote.fingerprint() == local.fingerprint()
    assert own_splits("gs://bkt/photos") == own_splits(str(photos))
    assert bucket.faults.counts["list", "well"] == 1  # For both splits and all questions.


def test_images_without_labels(photos: Path) -> None:
    local = open_source(f"images:{photos}", "train")
    assert contents(open_source("images:gs://bkt/photos/", "train")) == contents(local)


def test_a_missing_image_keeps_its_row(photos: Path, bucket: Bucket) -> None:
    source = open_source("gs://bkt/photos", "train")
    del bucket.objects.buckets["bkt"]["photos/train/dog/3.png"]
    problems = [record.problem for record in fetch(source, range(3))]
    assert sorted(map(str, problems)) == [
        *("None", "None", "cannot read the file (there is no such object)"),
    ]


def test_what_is_wrong_is_told_in_one_line(photos: Path, bucket: Bucket) -> None:
    assert "gs://bkt/no does not exist" in refusal(open_source, "gs://bkt/no", "train")
    message = refusal(open_source, "gs://nowhere/photos", "train")
    assert "there is no such bucket" in message
    bucket.objects.write("bkt", "empty/train/cat/readme.txt", b"", "text/plain", {})
    bucket.objects.write("bkt", "empty/train/dog/1.png", b"", "image/png", {})
    message = refusal(open_source, "gs://bkt/empty", "train")
    assert "class folder gs://bkt/empty/train/cat holds no images" in message


def test_tables_in_the_bucket_and_of_it(photos: Path, bucket: Bucket, tmp_path: Path) -> None:
    rows = ["path,label,split"]
    for path in sorted((photos / "train").rglob("[0-9].png")):
        rows.append(f"{path.relative_to(photos)},{path.parts[-2]},train")
    rows.append("test/dog/4.png,dog,val")
    (photos / "labels.csv").write_text("\n".join(rows))
    local = open_source(str(photos / "labels.csv"), "train")
    bucket.objects.write("bkt", "photos/labels.csv", "\n".join(rows).encode(), "text/csv", {})
    remote = open_source("gs://bkt/photos/labels.csv", "train")
    assert contents(remote) == contents(local)
    # A table on a disk with addresses of images.
    moved = tmp_path / "moved.csv"
    heading, *others = rows
    moved.write_text("\n".join([heading, *(f"gs://bkt/photos/{row}" for row in others)]))
    shutil.rmtree(photos)
    found = open_source(str(moved), "train")
    assert sorted(map(repr, contents(found))) == sorted(map(repr, contents(remote)))
    moved.write_text("path,label\ngs://bkt/photos/9.png,cat\nhttp://a/b.png,cat\n")
    assert "only addresses of buckets are taken" in refusal(open_source, str(moved), "train")
    moved.write_text("path,label\ngs://bkt/photos/9.png,cat\n")
    assert "there is no file gs://bkt/photos/9.png" in refusal(open_source, str(moved), "train")
