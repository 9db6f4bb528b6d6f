"""TFRecord that TensorFlow has prepared, read in place by an index: the same as tf.data reads."""

import hashlib
import logging
import multiprocessing
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from tests.data.listed import records_of
from tests.data.tfrecord_data import EXPECTED, as_array_record, copy_tfrecord
from vit_jax.data.sources import shard_index
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Record, Source, fetch
from vit_jax.errors import UserError
from vit_jax.storage.cache import Cache

INDEX = "swatches-train.tfrecord.index"


def open_swatches(data_dir: Path, split: str = "train", **options: Any) -> Source:
    return open_source("swatches", split, data_dir=str(data_dir), **options)


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return copy_tfrecord(tmp_path)


@pytest.fixture
def data_dir(directory: Path) -> Path:
    return directory.parents[1]


@pytest.fixture
def shard(directory: Path) -> Path:
    return directory / "swatches-train.tfrecord-00001-of-00002"


@pytest.mark.parametrize("split", list(EXPECTED))
def test_records_are_those_that_tensorflow_reads(split: str, data_dir: Path) -> None:
    records = records_of(open_swatches(data_dir, split))
    assert [
        {"sha256": hashlib.sha256(record.image).hexdigest(), "label": record.label}
        for record in records
    ] == [{key: each[key] for key in ("sha256", "label")} for each in EXPECTED[split]]


@pytest.mark.parametrize("split", list(EXPECTED))
def test_lists_of_labels_are_those_that_tensorflow_reads(split: str, data_dir: Path) -> None:
    source = open_swatches(data_dir, split, label="hues")
    assert source.max_labels is not None
    found = [record.label for record in records_of(source)]
    assert found == [tuple(each["hues"]) for each in EXPECTED[split]]


@pytest.mark.parametrize("label", [None, "hues"])
@pytest.mark.parametrize("split", ["train", "test[1:]+train[:30%]", "all"])
def test_array_record_of_the_same_data_gives_the_same_records(
    split: str, label: str | None, data_dir: Path, tmp_path: Path
) -> None:
    as_array_record(tmp_path / "other")
    one = open_swatches(data_dir, split, label=label)
    other = open_swatches(tmp_path / "other", split, label=label)
    assert records_of(one) == records_of(other)
    for name in ("name", "class_names", "max_labels"):
        assert getattr(one, name) == getattr(other, name)
    assert one.fingerprint() == other.fingerprint()


def test_records_come_together_in_any_order(data_dir: Path) -> None:
    source = open_swatches(data_dir, "train[2:]+test")
    indices = [17, 0, 3, 3, 12, 18]
    assert list(fetch(source, indices)) == [source[index] for index in indices]
    for outside in (-1, 19):
        with pytest.raises(IndexError):
            source[outside]


def test_the_index_is_built_once(
    directory: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    open_swatches(data_dir)
    assert f"indexing 2 shards of {directory}, once" in caplog.text
    assert f"indexed 15 records in 0.0 s; the index is {directory / INDEX}" in caplog.text
    caplog.clear()
    before = (directory / INDEX).stat()
    open_swatches(data_dir, "train[:3]")
    assert (directory / INDEX).stat() == before
    assert "index" not in caplog.text


def test_a_data_set_that_was_moved_keeps_its_index(
    directory: Path, data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_swatches(data_dir)
    data_dir.joinpath("swatches").rename(tmp_path / "swatches_")
    (tmp_path / "moved").mkdir()
    (tmp_path / "swatches_").rename(tmp_path / "moved/swatches")
    caplog.clear()
    caplog.set_level(logging.INFO)
    assert records_of(open_swatches(tmp_path / "moved"))[0].label == EXPECTED["train"][0]["label"]
    assert "indexing" not in caplog.text


def test_an_index_older_than_its_shard_is_built_again(
    directory: Path, shard: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = records_of(open_swatches(data_dir))
    first = shard.with_name(shard.name.replace("00001-of", "00000-of"))
    # Seven records again, of other lengths, so that an old index would find nothing.
    shard.write_bytes(b"".join(sorted(frames(shard), reverse=True)))
    caplog.set_level(logging.INFO)
    after = records_of(open_swatches(data_dir))
    told = f"the index is older than {shard.name}, which is indexed again"
    assert told in caplog.text and "indexing 1 shard of" in caplog.text
    assert first.name not in caplog.text
    assert [record.problem for record in after] == [None] * 15
    assert after[:8] == before[:8] and after[8:] != before[8:]
    assert sorted(r.image for r in after) == sorted(r.image for r in before)


def frames(file: Path) -> list[bytes]:
    data, found = file.read_bytes(), []
    while data:
        length = 16 + int.from_bytes(data[:8], "little")
        found.append(data[:length])
        data = data[length:]
    return found


@pytest.mark.parametrize("place", [3, 40, -9, -200, None])
def test_a_damaged_index_is_built_again(place: int | None, directory: Path, data_dir: Path) -> None:
    before = records_of(open_swatches(data_dir))
    index = bytearray((directory / INDEX).read_bytes())
    if place is None:
        del index[-30:]
    else:
        index[place] ^= 4
    (directory / INDEX).write_bytes(index)
    assert records_of(open_swatches(data_dir)) == before
    assert (directory / INDEX).read_bytes() != index


def test_an_index_that_cannot_lie_beside_its_shards(
    directory: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (directory / INDEX).mkdir()  # root may write to read-only directories.
    caplog.set_level(logging.INFO)
    before = records_of(open_swatches(data_dir))
    assert f"the index is {os.environ['VIT_JAX_CACHE']}/indexes/" in caplog.text
    caplog.clear()
    assert records_of(open_swatches(data_dir)) == before
    assert "index" not in caplog.text


def test_no_place_for_the_index_is_one_line(
    directory: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / INDEX).mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"can be written neither there nor to .* VIT_JAX_CACHE"):
        open_swatches(data_dir)


def test_a_build_goes_on_where_it_was_ended(
    directory: Path,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The second of two shards fails, after the first was saved."""
    monkeypatch.setattr(shard_index, "_SAVE_EVERY", -1.0)
    monkeypatch.setattr(shard_index, "_THREADS", 1)
    shard = directory / "swatches-train.tfrecord-00001-of-00002"
    whole = shard.read_bytes()
    modified = shard.stat().st_mtime_ns
    shard.write_bytes(whole[:100])
    with pytest.raises(UserError, match="not a whole shard"):
        open_swatches(data_dir)
    shard.write_bytes(whole)
    os.utime(shard, ns=(modified, modified))
    caplog.clear()
    caplog.set_level(logging.INFO)
    assert len(records_of(open_swatches(data_dir))) == 15
    assert "indexing 1 shard of" in caplog.text


def test_a_damaged_record_is_told_and_the_others_are_read(shard: Path, data_dir: Path) -> None:
    before = records_of(open_swatches(data_dir))
    lengths = [len(frame) for frame in frames(shard)]
    data = bytearray(shard.read_bytes())
    modified = shard.stat().st_mtime_ns
    data[sum(lengths[:3]) + 50] ^= 1  # In the fourth record's payload.
    data[sum(lengths[:5]) + 2] ^= 1  # In the sixth record's length.
    shard.write_bytes(data)
    os.utime(shard, ns=(modified, modified))  # As a disk damages it.
    after = records_of(open_swatches(data_dir))
    told = {i: record.problem for i, record in enumerate(after) if record.problem is not None}
    assert told == {
        8 + 3: "cannot read the record (its checksum differs)",
        8 + 5: "cannot read the record (its length differs: the file was changed, or is damaged)",
    }
    assert after[11].name == "swatches/train[11]" and after[11].image == b""
    assert all(after[i] == before[i] for i in range(15) if i not in told)


def test_a_shard_that_is_cut_while_it_is_read_is_told(shard: Path, data_dir: Path) -> None:
    source = open_swatches(data_dir)
    os.truncate(shard, shard.stat().st_size - 20)
    (last,) = fetch(source, [14])
    assert last.problem is not None and "ends at byte" in last.problem
    assert source[8].problem is None


def damaged(shard: Path, how: str) -> None:
    data = shard.read_bytes()
    if how == "gone":
        shard.unlink()
    elif how == "a pipe":
        shard.unlink()
        os.mkfifo(shard)
    else:
        changed = {
            "cut in a record": data[:-20],
            "cut in a length": data + data[:5],
            "another file": b"\x00" * 400,
            "compressed": b"\x1f\x8b" + data,
            "fewer records": data[: -len(frames(shard)[-1])],
        }
        shard.write_bytes(changed[how])


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("gone", "this shard of swatches/train is missing or no file"),
        ("a pipe", "is no ordinary file"),
        ("cut in a record", r"not a whole shard \(it ends within record 6"),
        ("cut in a length", r"not a whole shard \(it ends within record 7"),
        ("another file", r"not a whole shard \(record 0, at byte 0, is damaged"),
        ("compressed", r"not a whole shard \(it is compressed; unpack it"),
        ("fewer records", "6 records, but dataset_info.json states 7 for this shard"),
    ],
)
def test_a_shard_that_is_not_whole_is_named(
    how: str, told: str, shard: Path, data_dir: Path
) -> None:
    damaged(shard, how)
    with pytest.raises(UserError, match=f"{shard.name}:? {told}") as caught:
        open_swatches(data_dir)
    assert "\n" not in str(caught.value)


def test_the_source_travels_to_a_spawned_process(data_dir: Path) -> None:
    source = open_swatches(data_dir, "train[3:]+test")
    records = records_of(source)
    assert len(pickle.dumps(source)) < 2000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(records_of, (source,)) == records


def _open_at(data_dir: Path, moment: float) -> list[Record]:
    time.sleep(max(0.0, moment - time.time()))
    return records_of(open_swatches(data_dir))


def test_processes_that_build_one_index_at_a_time(data_dir: Path, directory: Path) -> None:
    moment = time.time() + 4
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        waiting = [pool.apply_async(_open_at, (data_dir, moment)) for _ in range(3)]
        found = [each.get(60) for each in waiting]
    assert found[0] == found[1] == found[2] == records_of(open_swatches(data_dir))
    assert not [path for path in directory.iterdir() if path.name.endswith(".tmp")]


def test_what_was_read_comes_from_the_cache(data_dir: Path, shard: Path, tmp_path: Path) -> None:
    source = open_swatches(data_dir, cache=Cache(tmp_path / "cache", 2**20))
    before = list(fetch(source, range(12)))
    os.truncate(shard, 0)
    assert list(fetch(source, range(12))) == before
    assert source[13].problem is not None
