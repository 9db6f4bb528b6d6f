"""A data set that is prepared to a bucket is that which is prepared to a disk."""

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.data import archives
from tests.data.test_prepare_imagenet import files_of
from tests.data.test_prepare_kills import start
from tests.real_processes import wait_for
from tests.storage.test_objects import s3 as server  # noqa: F401
from vit_jax.data.preparation.prepare import prepare
from vit_jax.data.preparation.target import Target
from vit_jax.errors import UserError
from vit_jax.storage import objects

SHARD_BYTES = 20_000


@pytest.fixture
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty directory in a bucket; this machine's temporary files go to `tmp`."""
    patch = request.getfixturevalue("monkeypatch")
    patch.setenv("TMPDIR", str(tmp_path / "tmp"))
    patch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))  # That of this process.
    (tmp_path / "tmp").mkdir()
    return f"{request.getfixturevalue('server')}/{tmp_path.name}"


def objects_of(directory: str) -> dict[str, bytes]:
    return {
        name: objects.read_bytes(f"{directory}/{name}") for name in objects.list_files(directory)
    }


def test_a_kill_half_way_to_a_bucket(bucket: str, tmp_path: Path) -> None:
    archives.write_fall_2011(tmp_path, archives.images(12, each=10))
    whole = prepare(
        "imagenet21k", str(tmp_path / "disk"), archives=str(tmp_path), shard_bytes=SHARD_BYTES
    )
    directory = f"{bucket}/imagenet21k/1.0.0"

    def receipts() -> list[str]:
        return [name for name in objects.list_files(directory) if "/receipts/" in name]

    process: subprocess.Popen[str] = start(tmp_path, bucket, 1)
    wait_for(process, lambda: len(receipts()) >= 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {Path(name).stem: None for name in receipts()}
    versions = {name: objects.version(f"{directory}/{name}") for name in before}
    assert not objects.exists(f"{directory}/features.json")
    found = prepare("imagenet21k", bucket, archives=str(tmp_path), shard_bytes=SHARD_BYTES)
    assert found == directory
    assert objects_of(directory) == files_of(whole)
    assert versions == {name: objects.version(f"{directory}/{name}") for name in versions}
    assert not list((tmp_path / "tmp").glob("vit_jax*"))


def test_what_a_kill_at_the_end_has_left_in_a_bucket(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.write_fall_2011(tmp_path, archives.images(2))
    with monkeypatch.context() as patch:
        patch.setattr(Target, "clear", lambda self: None)
        directory = prepare("imagenet21k", bucket, archives=str(tmp_path))
    assert any("/receipts/" in name for name in objects.list_files(directory))
    shutil.rmtree(tmp_path / "tmp")  # As on another host.
    (tmp_path / "tmp").mkdir()
    assert prepare("imagenet21k", bucket, archives=str(tmp_path)) == directory
    assert not any("/receipts/" in name for name in objects.list_files(directory))
    assert not list((tmp_path / "tmp").iterdir())


def test_archives_in_a_bucket_are_refused(bucket: str) -> None:
    with pytest.raises(UserError, match="name the directory of the downloaded archives on this"):
        prepare("imagenet21k", bucket)
    with pytest.raises(UserError, match="archives are read from disks and mounts only"):
        prepare("imagenet21k", bucket, archives=bucket)


def test_a_bucket_that_is_not_there(bucket: str, tmp_path: Path) -> None:
    archives.write_fall_2011(tmp_path, archives.images(2))
    with pytest.raises(UserError, match="s3://nowhere"):
        prepare("imagenet21k", "s3://nowhere/data", archives=str(tmp_path))
