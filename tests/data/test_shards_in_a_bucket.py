"""Shards in a bucket: the same records as on a disk, by ranged reads and a shared index."""

import logging
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.listed import records_of
from tests.data.test_webdataset import found, numbered, write_tar
from tests.data.tfrecord_data import copy_tfrecord
from tests.s3_server import s3_bucket
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.own_splits import own_splits
from vit_jax.data.sources.records import Source, fetch
from vit_jax.errors import StorageError, UserError
from vit_jax.storage import objects
from vit_jax.storage.cache import Cache


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    yield from s3_bucket()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "user_cache"))
    return tmp_path / "user_cache"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """TFRecord that TensorFlow has prepared, and tars of two splits, on a disk."""
    copy_tfrecord(tmp_path / "local")
    for number, (first, stop) in enumerate([(0, 4), (4, 8), (8, 10)]):
        write_tar(tmp_path / f"local/tars/train-{number:03}.tar", numbered(first, stop))
    write_tar(tmp_path / "local/tars/val-000.tar", numbered(50, 54))
    (tmp_path / "local/tars/classnames.txt").write_text("cat\ndog\nhen\n")
    return tmp_path / "local"


@pytest.fixture
def bucket(s3: str, local: Path, cache: Path, tmp_path: Path) -> str:
    """The same in a bucket."""
    root = f"{s3}/{tmp_path.name}"
    for path in local.rglob("*"):
        if path.is_file():
            objects.write_bytes(f"{root}/{path.relative_to(local)}", path.read_bytes())
    return root


def swatches(data_dir: str | Path, split: str = "train", cache: Cache | None = None) -> Source:
    return open_source("swatches", split, data_dir=str(data_dir), cache=cache)


def test_tfrecord_in_a_bucket_gives_the_records_of_the_disk(bucket: str, local: Path) -> None:
    split = "train[3:12]+test"
    here, there = swatches(local, split), swatches(bucket, split)
    assert records_of(here) == list(fetch(there, range(len(there))))
    assert here.fingerprint() == there.fingerprint()
    assert records_of(pickle.loads(pickle.dumps(there))) == records_of(here)


@pytest.mark.parametrize(
    "dataset", ["tars", "tars/", "tars/{train-{000..002},val-000}.tar", "tars/*-*.tar"]
)
def test_tars_in_a_bucket_give_the_records_of_the_disk(
    dataset: str, bucket: str, local: Path
) -> None:
    here = open_source(f"{local}/{dataset}", "val+train[2:]")
    there = open_source(f"{bucket}/{dataset}", "val+train[2:]")
    assert own_splits(f"{bucket}/{dataset}") == ("train", "val")
    assert found(here) == found(there)
    assert here.class_names == there.class_names == ("cat", "dog", "hen")
    assert here.fingerprint() == there.fingerprint()


def test_another_host_takes_the_index_that_lies_in_the_bucket(
    bucket: str, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = records_of(swatches(bucket))
    assert "swatches-train.tfrecord.index" in objects.list_names(f"{bucket}/swatches/1.0.0")
    shutil.rmtree(cache)  # As on another host.
    caplog.clear()
    caplog.set_level(logging.INFO)
    assert records_of(swatches(bucket)) == before
    assert "indexing" not in caplog.text


def test_a_shard_that_was_written_again_is_indexed_again(
    bucket: str, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = found(open_source(f"{bucket}/tars", "train"))
    tar = write_tar(cache / "train-001.tar", numbered(4, 8) | numbered(60, 61))
    objects.write_bytes(f"{bucket}/tars/train-001.tar", tar.read_bytes())
    caplog.set_level(logging.INFO)
    assert found(open_source(f"{bucket}/tars", "train")) == [*before[:8], (60, 0), *before[8:]]
    assert "the index is older than train-001.tar" in caplog.text
    assert "indexing 1 shard of" in caplog.text


def test_a_bucket_that_may_be_read_and_not_written_is_told_and_used(
    bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_access(path: object, data: bytes) -> None:
        raise StorageError(f"{path}: no access")

    monkeypatch.setattr(objects, "write_bytes", no_access)
    assert len(found(open_source(f"{bucket}/tars", "train"))) == 10
    assert "stays on this host" in caplog.text and "no access" in caplog.text
    caplog.clear()
    caplog.set_level(logging.INFO)
    assert len(found(open_source(f"{bucket}/tars", "train"))) == 10
    assert "indexing" not in caplog.text


def test_what_is_missing_in_a_bucket_is_named(bucket: str, s3: str) -> None:
    with pytest.raises(UserError, match=r"there is no s3://bkt/.*train-003.tar \(and 1 more"):
        open_source(f"{bucket}/tars/train-{{000..004}}.tar", "train")
    objects.delete(f"{bucket}/swatches/1.0.0/swatches-test.tfrecord-00001-of-00002")
    with pytest.raises(UserError, match="s3://bkt/.*test.tfrecord-00001-of-00002: .* is missing"):
        swatches(bucket, "test")
    with pytest.raises(UserError, match="there is no such bucket"):
        open_source("s3://other-bkt/train-000.tar", "train")


def test_a_bucket_that_fails_while_it_is_read_ends_the_run(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(f"{bucket}/tars", "train")

    def no_answer(path: object, start: int, stop: int) -> bytes:
        raise StorageError(f"{path}: no good answer in 120 s and 12 tries; check the network")

    monkeypatch.setattr(objects, "read_bytes", no_answer)
    with pytest.raises(UserError, match="no good answer"):
        list(fetch(source, range(3)))  # No record of weight 0: the data is not damaged.


def test_an_object_that_vanished_is_told_with_its_record(bucket: str) -> None:
    source = open_source(f"{bucket}/tars", "train")
    objects.delete(f"{bucket}/tars/train-001.tar")
    problems = [record.problem for record in fetch(source, range(10))]
    assert [problem is not None for problem in problems] == [False] * 4 + [True] * 4 + [False] * 2


def test_what_was_read_is_kept_and_read_once(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Cache(tmp_path / "cache", 2**20)
    source = open_source(f"{bucket}/tars", "train", cache=kept)
    before = list(fetch(source, range(10)))
    monkeypatch.setattr(objects, "read_bytes", None)
    assert list(fetch(source, range(10))) == before
    assert os.listdir(tmp_path / "cache")
