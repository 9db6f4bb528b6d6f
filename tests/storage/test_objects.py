"""Files on a disk and in buckets, by one set of functions."""

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bucket_api import Bucket
from tests.s3_server import s3_bucket
from vit_jax.errors import StorageError, UserError
from vit_jax.storage import objects, retrying
from vit_jax.storage.paths import as_path, is_bucket
from vit_jax.storage.s3 import S3

# Bytes that are special in addresses.
NAME = "d e%2F#?ü.txt"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a bucket."""
    yield from s3_bucket()


@pytest.fixture(params=["disk", "gs", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty directory."""
    if request.param == "disk":
        return str(tmp_path)
    if request.param == "gs":
        request.getfixturevalue("bucket")
        return f"gs://bkt/{tmp_path.name}"
    address = request.getfixturevalue("s3")
    S3.clear_instance_cache()  # One of another test may lead elsewhere.
    return f"{address}/{tmp_path.name}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries for three seconds only."""
    patience = retrying.Patience(first=0.05, longest=0.2, total=3)
    monkeypatch.setattr(retrying.retrying, "patience", patience)
    monkeypatch.setattr(retrying.retrying, "_said", -math.inf)  # As if no test came before.


def test_what_is_written_is_read_back(root: str) -> None:
    path = f"{root}/a/{NAME}"
    objects.write_bytes(path, b"0123456789")
    assert objects.read_bytes(path) == b"0123456789"
    assert objects.size(path) == 10
    assert objects.exists(path) and not objects.exists(f"{root}/a")
    assert objects.read_bytes(path, 2, 5) == b"234"
    assert objects.read_bytes(path, 8) == b"89"
    assert objects.read_bytes(path, None, 3) == b"012"
    assert objects.read_bytes(path, 5, 5) == b""
    objects.write_bytes(path, b"")
    assert objects.read_bytes(path) == b""


def test_a_range_that_the_file_does_not_hold_is_an_error(root: str) -> None:
    path = f"{root}/short"
    objects.write_bytes(path, b"0123456789")
    for start in (8, 20):
        with pytest.raises(EOFError, match=r"short ends at byte .*, before byte 30"):
            objects.read_bytes(path, start, 30)


def test_a_missing_file(root: str) -> None:
    path = f"{root}/none"
    with pytest.raises(FileNotFoundError, match="none"):
        objects.read_bytes(path)
    with pytest.raises(FileNotFoundError):
        objects.size(path)
    assert objects.version(path) is None
    assert not objects.exists(path)
    assert objects.list_files(path) == {} and objects.list_names(path) == []
    objects.delete(path)


def test_lists(root: str) -> None:
    for name in ("b/2", "b/1", "c", f"b/deep/{NAME}"):
        objects.write_bytes(f"{root}/{name}", name.encode())
    objects.write_bytes(f"{root}-other/x", b"")  # Begins as the directory does.
    deep = (f"b/deep/{NAME}", 7 + len(NAME.encode()))
    assert list(objects.list_files(root).items()) == [("b/1", 3), ("b/2", 3), deep, ("c", 1)]
    assert objects.list_names(root) == ["b", "c"]
    assert objects.list_names(f"{root}/b") == ["1", "2", "deep"]
    objects.delete(f"{root}/c")
    assert objects.list_names(root) == ["b"]


def test_only_one_creates_a_file(root: str) -> None:
    path = f"{root}/claim"
    created = []

    def create(number: int) -> None:
        if objects.write_if(path, str(number).encode(), None) is not None:
            created.append(str(number).encode())

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert created == [objects.read_bytes(path)]


def test_a_file_is_replaced_only_in_the_version_that_is_known(root: str) -> None:
    path = f"{root}/claim"
    first = objects.write_if(path, b"first", None)
    assert first == objects.version(path)
    second = objects.write_if(path, b"second", first)
    assert second not in (None, first)
    assert objects.write_if(path, b"third", first) is None
    assert objects.read_bytes(path) == b"second"
    objects.delete(path)
    assert objects.write_if(path, b"third", second) is None
    assert not objects.exists(path)


def test_no_bucket_is_one_line_with_the_command_that_makes_it(s3: str) -> None:
    for use in (objects.read_bytes, objects.list_files, objects.list_names):
        with pytest.raises(StorageError, match=r"s3://nope: .*`aws s3 mb s3://nope`"):
            use("s3://nope/run")
    for write in (
        lambda: objects.write_bytes("s3://nope/run", b"x"),
        lambda: objects.write_if("s3://nope/run", b"x", None),
    ):
        with pytest.raises(UserError, match=r"s3://nope: .*`aws s3 mb s3://nope`"):
            write()


def test_a_bucket_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, impatient: None
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    S3.clear_instance_cache()
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"s3://silent/file: no good answer in .* tries"):
        objects.read_bytes("s3://silent/file")
    assert time.monotonic() - began < 10
    assert "trying again for up to 3 s" in caplog.text


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(objects._CLASSES, "s3", ("vit_jax.storage.none", "None", "s3"))
    with pytest.raises(UserError, match=r'not installed; type `pip install "vit_jax\[s3\]"`'):
        objects.read_bytes("s3://bkt/file")


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert is_bucket("gs://bkt/run") and is_bucket(as_path("s3://bkt/run"))
    assert not is_bucket("run") and not is_bucket(tmp_path)
    assert str(as_path("gs://bkt/run") / "a") == "gs://bkt/run/a"
    assert str(as_path("run")) == str(tmp_path / "run")
    assert str(as_path("~/run")) == "/home/someone/run"


def test_a_large_file_is_uploaded_in_several_requests(bucket: Bucket) -> None:
    data = bytes(range(256)) * (51 * 2**12)  # 51 MiB; gcsfs sends up to 50 at once.
    objects.write_bytes("gs://bkt/large", data)
    assert bucket.faults.counts["write", "well"] == 3  # It begins, and two parts.
    assert b"".join(objects.read_pieces("gs://bkt/large")) == data


def test_a_file_gets_another_name(root: str) -> None:
    objects.write_bytes(f"{root}/a", b"content")
    objects.move(f"{root}/a", f"{root}/b")
    assert objects.list_files(root) == {"b": 7}
    assert abs(objects.modified(f"{root}/b") - time.time()) < 60


def test_an_address_names_its_bucket() -> None:
    with pytest.raises(UserError, match="gs:// names no bucket; type gs://BUCKET/NAME"):
        as_path("gs:///")


def test_an_address_that_pathlib_has_changed_is_no_directory_here() -> None:
    message = "gs:/bkt/run has one slash; type gs://bkt/run as a text, not as a Path"
    with pytest.raises(UserError, match=message):
        as_path(Path("gs://bkt/run"))


def test_a_path_through_a_link_leads_where_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "disk" / "runs").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "runs")
    (tmp_path / "disk" / "a").mkdir()
    assert as_path(tmp_path / "link" / ".." / "a").is_dir()
