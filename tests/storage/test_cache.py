"""The cache of pieces: its limit, its damage, and processes that share it or are killed."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from vit_jax.errors import UserError
from vit_jax.storage.cache import Cache

LIMIT = 64 * 1000  # 1,000 bytes in each of the 64 folders.


def entries(directory: Path) -> list[Path]:
    return [p for p in directory.rglob("*") if p.is_file() and p.name != "used"]


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in entries(directory))


def data_of(key: str) -> bytes:
    return np.random.default_rng(list(key.encode())).bytes(90)


def test_what_was_put_is_there_for_this_and_another_object(tmp_path: Path) -> None:
    cache = Cache(tmp_path, LIMIT)
    assert cache.get("a") is None
    cache.put("a", b"bytes")
    assert cache.get("a") == Cache(tmp_path, LIMIT).get("a") == b"bytes"
    assert cache.get("b") is None


def test_the_limit_holds_and_the_newest_stay(tmp_path: Path) -> None:
    cache = Cache(tmp_path, LIMIT)
    keys = [f"key {i}" for i in range(3000)]
    for key in keys:
        cache.put(key, data_of(key))
        assert cache.get(key) == data_of(key)
    assert LIMIT * 0.7 < size_of(tmp_path) <= LIMIT
    kept = [i for i, key in enumerate(keys) if cache.get(key) is not None]
    assert min(kept) > 1500  # About 640 fit; folders fill unevenly.
    assert len(kept) == len(entries(tmp_path))


def test_an_entry_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, LIMIT)
    cache.put("large", b"x" * 1000)
    assert cache.get("large") is None and not entries(tmp_path)


def damages(path: Path) -> list[bytes]:
    whole = path.read_bytes()
    return [b"", whole[:3], whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]]


@pytest.mark.parametrize("damage", range(4))
def test_a_damaged_entry_is_told_and_missing(
    damage: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path, LIMIT)
    cache.put("a", b"bytes")
    (path,) = entries(tmp_path)
    path.write_bytes(damages(path)[damage])
    assert cache.get("a") is None
    assert f"{path}: this entry of the cache is damaged" in caplog.text
    cache.put("a", b"bytes")
    assert cache.get("a") == b"bytes"


def test_an_entry_under_another_name_is_damaged(tmp_path: Path) -> None:
    cache = Cache(tmp_path, LIMIT)
    cache.put("a", b"bytes")
    cache.put("b", b"others")
    one, other = entries(tmp_path)
    one.write_bytes(other.read_bytes())
    assert sorted(map(str, (cache.get("a"), cache.get("b")))) in (
        ["None", str(b"others")],
        ["None", str(b"bytes")],
    )


def _put_many(directory: Path, first: int, count: int) -> None:
    cache = Cache(directory, LIMIT)
    for i in range(first, first + count):
        cache.put(f"key {i}", data_of(f"key {i}"))


def test_processes_that_share_it_keep_the_limit_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_put_many, args=(tmp_path, i, 800)) for i in (0, 400, 800)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert size_of(tmp_path) <= LIMIT
    cache = Cache(tmp_path, LIMIT)
    found = {i: cache.get(f"key {i}") for i in range(1600)}
    assert sum(data is not None for data in found.values()) == len(entries(tmp_path)) > 300
    assert all(data in (None, data_of(f"key {i}")) for i, data in found.items())


def test_a_killed_process_leaves_a_cache_that_works(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_put_many, args=(tmp_path, 0, 10**9))
    process.start()
    while not entries(tmp_path):
        time.sleep(0.01)
    time.sleep(0.2)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    # As if it had been killed in the middle of an entry.
    (entries(tmp_path)[0].parent / f"{'0' * 32}.unfinished").write_bytes(b"half")
    _put_many(tmp_path, 10**6, 2000)
    assert not list(tmp_path.rglob("*.unfinished"))
    assert LIMIT * 0.7 < size_of(tmp_path) <= LIMIT


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"config.data.cache_dir=.*file cannot be written"):
        Cache(tmp_path / "file", LIMIT)


def test_a_full_disk_is_told_once_and_reading_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path, LIMIT)

    def no_room(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_room)
    for key in ("a", "b"):
        cache.put(key, b"bytes")
        assert cache.get(key) is None
    assert caplog.text.count("takes no more entries from this process (No space left") == 1
