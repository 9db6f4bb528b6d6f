"""One data set as TFRecord, ArrayRecord, WebDataset and Parquet: equal batches for one seed."""

import gc
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.bucket_api import Bucket
from tests.data.listed import records_of
from tests.data.test_parquet_source import write as write_parquet
from tests.data.test_webdataset import write_tar
from tests.data.tfrecord_data import as_array_record, copy_tfrecord
from vit_jax.data.batches import Chunks
from vit_jax.data.config import DataConfig
from vit_jax.data.images.transforms import make_transform
from vit_jax.data.loader import Loader
from vit_jax.data.sources import bucket_folder
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import batch_sharding
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.storage import objects, retrying
from vit_jax.storage.cache import Cache

SIZE, BATCH, STEPS = (12, 12), 6, 5
FORMATS = ("tfrecord", "array_record", "tars", "parquet")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What TensorFlow has prepared, in every format, with the same records in the same order."""
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "user_cache"))
    # Each test has a bucket of its own, under the same name.
    monkeypatch.setattr(bucket_folder, "_listed", {})
    root = tmp_path / "data"
    copy_tfrecord(root / "tfrecord")
    as_array_record(root / "array_record")
    source = opened(str(root), "tfrecord")
    records = records_of(source)
    names = source.class_names
    write_tar(
        root / "tars/train-000.tar",
        {
            f"{i:05}": {"png": record.image, "cls": str(record.label).encode()}
            for i, record in enumerate(records)
        },
    )
    (root / "tars/classnames.txt").write_text("\n".join(names))
    write_parquet(
        root / "parquet/data/train-00000-of-00001.parquet",
        0,
        len(records),
        [record.label for record in records],
        {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}},
        image=[{"bytes": record.image, "path": None} for record in records],
    )
    return root


def opened(root: str, form: str, split: str = "train") -> Source:
    if form in ("tars", "parquet"):
        return open_source(f"{root}/{form}", split)
    return open_source("swatches", split, data_dir=f"{root}/{form}")


def batches(source: Source, workers: int) -> list[dict[str, bytes]]:
    """Shuffled over two epochs and cropped at random."""
    transform = make_transform(SIZE, PreprocessingConfig(), DataConfig("./x"))
    chunks = Chunks(source, transform, SIZE, np.arange(BATCH), BATCH, seed=3, shuffle=True)
    sharding = batch_sharding(make_mesh(MeshConfig(), jax.devices()[:1]))
    with Loader(
        chunks, sharding, start=1, stop=1 + STEPS, workers=workers, on_error="stop"
    ) as loader:
        return [{key: np.asarray(each[key]).tobytes() for key in each} for each in loader]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_all_formats_on_a_disk_and_in_a_bucket_give_equal_batches(
    workers: int, root: Path, bucket: Bucket
) -> None:
    bucket.objects.add_folder(root, "bkt", "data")
    expected = batches(opened(str(root), "tfrecord"), workers=0)
    assert len(expected) == STEPS and len({each["images"] for each in expected}) == STEPS
    for place in (str(root), "gs://bkt/data"):
        for form in FORMATS:
            assert batches(opened(place, form), workers) == expected, (place, form)


def test_workers_read_the_copies_of_a_bucket(root: Path, bucket: Bucket) -> None:
    bucket.objects.add_folder(root, "bkt", "data")
    expected = batches(opened(str(root), "array_record"), workers=0)
    assert batches(opened("gs://bkt/data", "array_record"), workers=2) == expected


def test_array_record_of_a_bucket_is_copied_once_and_by_shards(root: Path, bucket: Bucket) -> None:
    bucket.objects.add_folder(root, "bkt", "data")
    local = opened(str(root), "array_record", "train[:2]+test+train[4:]")
    remote = opened("gs://bkt/data", "array_record", "train[:2]+test+train[4:]")
    assert records_of(remote) == records_of(local)
    assert remote.fingerprint() == local.fingerprint()
    shutil.rmtree(root.parent / "user_cache")
    one = opened("gs://bkt/data", "array_record", "train[:1]")
    copies = list((root.parent / "user_cache/shards").rglob("*train*"))
    assert len(copies) == 1
    before = copies[0].stat().st_mtime_ns
    assert records_of(opened("gs://bkt/data", "array_record", "train[:1]")) == records_of(one)
    assert copies[0].stat().st_mtime_ns == before


def test_a_shard_that_was_written_again_is_copied_again(root: Path, bucket: Bucket) -> None:
    bucket.objects.add_folder(root, "bkt", "data")
    opened("gs://bkt/data", "array_record")
    folder = root / "array_record/swatches/1.0.0"
    broken = next(folder.glob("*train*00000-of*"))
    broken.write_bytes(broken.read_bytes()[:-100])
    bucket.objects.add_folder(folder, "bkt", "data/array_record/swatches/1.0.0")
    with pytest.raises(UserError, match="train.*00000-of-00002.*: not a whole shard"):
        opened("gs://bkt/data", "array_record")


def test_records_of_a_damaged_shard_have_weight_0_and_are_named(root: Path) -> None:
    source = opened(str(root), "array_record")
    (second,) = (root / "array_record/swatches/1.0.0").glob("*train*00001-of*")
    second.write_bytes(second.read_bytes()[:-100])
    transform = make_transform(SIZE, PreprocessingConfig(), DataConfig("./x"))
    chunks = Chunks(source, transform, SIZE, np.arange(15), 15, seed=3, shuffle=True)
    made = [chunks[i] for i in range(2 * chunks.chunks_per_batch)]  # Two epochs of 8 and 7.
    errors = [error for each in made for error in each["errors"]]
    assert sum(each["weights"].sum() for each in made) == 2 * 8 and len(errors) == 2 * 7
    assert len(set(errors)) == 7
    assert all(f"{second}: not a whole shard" in error for error in errors)


def test_a_shard_that_changes_while_it_is_copied_is_told_and_nothing_is_left(
    root: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.objects.add_folder(root, "bkt", "data")
    copies = root.parent / "user_cache/shards"
    monkeypatch.setattr(objects, "version", lambda path: "another")
    with pytest.raises(UserError, match="was written again while it was copied"):
        opened("gs://bkt/data", "array_record")
    assert {path.name for path in copies.rglob("*") if path.is_file()} == {"in_use", "lock"}


def test_what_a_process_that_was_killed_has_left_is_removed(root: Path, bucket: Bucket) -> None:
    bucket.objects.add_folder(root, "bkt", "data")
    opened("gs://bkt/data", "array_record")
    (copy,) = (root.parent / "user_cache/shards").rglob("*train*00000-of*")
    left = copy.rename(copy.with_name(f".{copy.name}.123.tmp"))
    opened("gs://bkt/data", "array_record")
    assert copy.exists() and not left.exists()


def test_copies_that_are_not_in_use_make_room(root: Path, bucket: Bucket, tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        bucket.objects.add_folder(root / "array_record", "bkt", name)
    cache = Cache(tmp_path / "cache", 1)  # Only what is in use stays.

    def open_copied(name: str) -> Source:
        return open_source("swatches", "train", data_dir=f"gs://bkt/{name}", cache=cache)

    def copies() -> set[Path]:
        return set((tmp_path / "cache/shards").rglob("*.array_record*"))

    first = open_copied("first")
    assert len(copies()) == 2 and not (root.parent / "user_cache/shards").exists()
    (in_use,) = (tmp_path / "cache/shards").rglob("in_use")
    of_first, expected = copies(), records_of(first)
    second = open_copied("second")
    assert copies() > of_first and len(copies()) == 4  # Both are in use, above the limit.
    program = (
        "import sys, time; from vit_jax.locks import lock_with_others as lock; "
        "file = open(sys.argv[1]); lock(file); print('holds', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(in_use)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"holds\n"
        del first, second
        gc.collect()
        third = open_copied("third")
        assert copies() > of_first and len(copies()) == 4  # `second` has made room.
        other.kill()
    assert open_copied("second").class_names == third.class_names
    assert not copies() & of_first and len(copies()) == 4
    assert records_of(open_copied("first")) == expected


def test_a_bucket_that_does_not_answer_is_told(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying.retrying, "patience", retrying.Patience(total=0.1))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="gs://.*: no good answer in .* check the network"):
        opened("gs://silent/data", "array_record")


def test_what_a_bucket_lacks_and_what_a_disk_cannot_hold_is_told(
    root: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    next((root / "array_record/swatches/1.0.0").glob("*test*00001-of*")).unlink()
    bucket.objects.add_folder(root, "bkt", "data")
    with pytest.raises(UserError, match="gs://bkt/data/.*test.*00001-of-00002: .* is missing"):
        opened("gs://bkt/data", "array_record", "test")
    full = shutil.disk_usage("/")._replace(free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(UserError, match="must be copied to this host.*set VIT_JAX_CACHE"):
        opened("gs://bkt/data", "array_record")
