"""A preparation that is killed, or whose disk is full, goes on and ends with the same bytes."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data import archives
from tests.data.test_prepare_imagenet import files_of
from tests.real_processes import descendants, wait_for
from vit_jax.data.preparation.prepare import prepare
from vit_jax.errors import UserError
from vit_jax.locks import try_lock

IMAGES = archives.images(25, each=20)
SHARD_BYTES = 20_000
FIRST_SHARD = "imagenet21k-full.array_record-00000-of-"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archives of both releases, and what an uninterrupted preparation makes of them."""
    place = tmp_path_factory.mktemp("kills")
    archives.write_fall_2011(place / "fall", IMAGES)
    archives.write_winter_2021(place / "winter", IMAGES)
    prepared(place / "fall", place / "whole")
    return place


def prepared(archive: Path, data_dir: Path) -> dict[str, bytes]:
    directory = prepare(
        "imagenet21k", str(data_dir), archives=str(archive), shard_bytes=SHARD_BYTES
    )
    return files_of(directory)


def start(archive: Path, data_dir: Path | str, workers: int) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "tests.programs.prepare_shards"]
    return subprocess.Popen(
        [*program, str(archive), str(data_dir), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def receipts(data_dir: Path) -> list[Path]:
    return list(data_dir.glob("imagenet21k/1.0.0/.preparing/receipts/*.json"))


@pytest.mark.parametrize(("release", "workers", "finished"), [("fall", 2, 3), ("winter", 0, 8)])
def test_a_kill_half_way(
    release: str, workers: int, finished: int, place: Path, tmp_path: Path
) -> None:
    process = start(place / release, tmp_path, workers)
    wait_for(process, lambda: len(receipts(tmp_path)) >= finished)
    children = descendants(process.pid)
    assert len(children) >= workers
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{child}") for child in children):
        assert time.monotonic() < until, "a worker outlives its parent"
        time.sleep(0.05)
    directory = tmp_path / "imagenet21k/1.0.0"
    assert not (directory / "features.json").exists()  # Nobody takes it for whole.
    before = {path.stem: (directory / path.stem).stat().st_mtime_ns for path in receipts(tmp_path)}
    assert before
    assert prepared(place / release, tmp_path) == files_of(place / "whole/imagenet21k/1.0.0")
    after = {name: (directory / name).stat().st_mtime_ns for name in before}
    assert after == before  # Finished shards were not written again.


def test_a_kill_once_the_data_set_is_whole(place: Path, tmp_path: Path) -> None:
    """What only other starts would need is removed by the next one, unless it is in use."""
    program = (
        "import os, sys; from tests.programs import prepare_shards as p; "
        "from vit_jax.data.preparation.target import Target; "
        "Target.clear = lambda self: os.kill(os.getpid(), 9); p.main(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, str(place / "fall"), str(tmp_path), "0"]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    directory = tmp_path / "imagenet21k/1.0.0"
    assert (directory / "features.json").exists() and (directory / ".preparing").exists()
    with open(directory / ".preparing/lock", "w") as file:
        assert try_lock(file)
        prepared(place / "fall", tmp_path)
    assert (directory / ".preparing").exists()
    assert prepared(place / "fall", tmp_path) == files_of(place / "whole/imagenet21k/1.0.0")
    assert not (directory / ".preparing").exists()


def test_a_shard_that_was_damaged_since_is_written_again(place: Path, tmp_path: Path) -> None:
    process = start(place / "fall", tmp_path, 1)
    wait_for(process, lambda: len(receipts(tmp_path)) >= 2)
    process.kill()
    process.communicate()
    (path,) = (tmp_path / "imagenet21k/1.0.0").glob(f"{FIRST_SHARD}*")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    assert prepared(place / "fall", tmp_path) == files_of(place / "whole/imagenet21k/1.0.0")


def test_other_options_or_another_archive_do_not_go_on(place: Path, tmp_path: Path) -> None:
    process = start(place / "fall", tmp_path, 0)
    wait_for(process, lambda: len(receipts(tmp_path)) >= 1)
    process.kill()
    process.communicate()
    with pytest.raises(
        UserError, match=r"a preparation with no --short_side, no --exclude was begun here; finish"
    ):
        prepare("imagenet21k", str(tmp_path), archives=str(place / "fall"), short_side=20)
    archives.write_fall_2011(tmp_path / "other", archives.images(25, each=19))
    with pytest.raises(UserError, match="full differs from what a preparation was begun with"):
        prepared(tmp_path / "other", tmp_path)


def test_two_at_once(place: Path, tmp_path: Path) -> None:
    process = start(place / "fall", tmp_path, 0)
    try:
        wait_for(process, lambda: len(receipts(tmp_path)) >= 1)
        with pytest.raises(UserError, match="another process is preparing it; wait for it"):
            prepared(place / "fall", tmp_path)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which root may do")
def test_a_full_disk(place: Path, tmp_path: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(tmp_path)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        with pytest.raises(UserError, match="the disk is full; make room and run the same command"):
            prepared(place / "fall", tmp_path)
        kept = len(receipts(tmp_path))
        assert kept >= 2
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path)], check=True)
        assert prepared(place / "fall", tmp_path) == files_of(place / "whole/imagenet21k/1.0.0")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_file_that_may_not_grow(place: Path, tmp_path: Path) -> None:
    """A quota, as a limit of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            prepared(place / "fall", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_returns_something_else(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes change after they were written, before they are read back."""

    def sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.parent.name == "partial":
            data = bytearray(path.read_bytes())
            data[data.index(b"JFIF") + 300] ^= 1
            path.write_bytes(data)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(UserError, match="the disk returns something else than was written"):
        prepared(place / "fall", tmp_path)
