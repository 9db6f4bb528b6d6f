"""What a download keeps in the cache: checked when it arrives, and again when it is read."""

import json
import os
from pathlib import Path

import pytest

from tests.small_models import refusal
from tests.weights.storage_server import CONTENT, HTML, PATH, URL, Storage, npz
from vit_jax.errors import UserError
from vit_jax.weights.catalogue import download, receiving
from vit_jax.weights.catalogue.download import STORAGE, fetch

pytestmark = pytest.mark.usefixtures("cache")


def test_a_file_that_was_put_there_needs_no_network_and_is_left_alone(cache: Path) -> None:
    (cache / PATH).parent.mkdir(parents=True)
    by_hand = npz(1000)
    (cache / PATH).write_bytes(by_hand)
    assert fetch(URL).read_bytes() == by_hand
    assert os.listdir((cache / PATH).parent) == ["ViT-B_16.npz"]


def test_the_cache_is_in_the_home_directory(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIT_JAX_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch(URL) == tmp_path / ".cache/vit_jax" / PATH


def test_a_cache_that_cannot_be_written(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "file"))
    assert "set VIT_JAX_CACHE to a directory that can be written" in refusal(fetch, URL)
    assert not storage.requests


def test_damage_on_the_way_is_noticed(storage: Storage, cache: Path) -> None:
    damaged = {"body": CONTENT[:500_000] + b"?" + CONTENT[500_001:]}
    storage.faults = [damaged] * 3
    assert "size and checksum" in refusal(fetch, URL)
    assert not list(cache.rglob("*.npz")) + list(cache.rglob("*.part"))
    storage.faults = [damaged]
    assert fetch(URL).read_bytes() == CONTENT


def test_a_cached_file_of_another_size_is_downloaded_again(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    path = fetch(URL)
    path.write_bytes(CONTENT[:-100])
    assert fetch(URL).read_bytes() == CONTENT
    assert "is damaged (its end is missing); downloading again" in caplog.text
    assert len(storage.requests) == 2


def test_a_damaged_file_stays_so_until_it_is_replaced(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(URL).write_bytes(CONTENT[:-100])
    monkeypatch.setattr(download, "RETRY_DELAYS", ())
    unannounced = {"headers": {"Content-Length": None}, "stop_after": 600_000}
    storage.faults = [unannounced, {"status": 404}]
    refusal(fetch, URL)
    assert "no such file" in refusal(fetch, URL)
    assert fetch(URL).read_bytes() == CONTENT


UNKNOWN = dict.fromkeys(("x-goog-hash", "Content-Length", "ETag"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (HTML, "it begins with '<!DOCTYPE html>"),
        (b"", "it is empty"),
        (CONTENT[:500_000], "its end is missing"),
        (CONTENT[1000:], ""),
        (CONTENT[:500_000] + b"?" + CONTENT[500_001:], "its member 'a.npy' is damaged"),
    ],
)
def test_what_is_no_archive_never_enters_the_cache(
    body: bytes, reason: str, storage: Storage, cache: Path
) -> None:
    """With status 200, a length of its own, and no checksum."""
    headers = UNKNOWN | {"Content-Length": str(len(body))}
    storage.faults = [{"headers": headers, "body": body}] * 3
    message = refusal(fetch, URL)
    assert f"is no .npz file: {reason}" in message
    assert not list(cache.rglob("*.npz")) + list(cache.rglob("*.part"))
    assert fetch(URL).read_bytes() == CONTENT


def test_an_index_that_is_a_page_never_enters_the_cache(storage: Storage, cache: Path) -> None:
    storage.paths += ["vit_models/augreg/index.csv"]
    url = f"{STORAGE}/{storage.paths[-1]}"
    storage.faults = [{"headers": UNKNOWN, "body": HTML}] * 3
    with pytest.raises(UserError, match="is no .csv file: it begins with '<!DOCTYPE"):
        fetch(url)
    storage.content = b"name,ds\na,b\n"
    assert fetch(url).read_bytes() == storage.content


@pytest.mark.parametrize("record", [True, False])
def test_what_is_bad_in_the_cache_is_downloaded_again(
    record: bool, storage: Storage, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a page that an earlier version of this package has kept."""
    file = cache / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(HTML)
    if record:
        version = json.dumps({"etag": None, "size": len(HTML), "md5": None})
        file.with_name(f"{file.name}.download.json").write_text(version)
    assert fetch(URL).read_bytes() == CONTENT
    assert "is damaged (it begins with '<!DOCTYPE" in caplog.text


@pytest.mark.parametrize(
    "headers", [{}, {"x-goog-hash": None}, {"ETag": None, "x-goog-hash": None}]
)
def test_a_changed_byte_in_the_middle_of_a_cached_file_is_fetched_again(
    headers: dict[str, None], storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.faults = [{"headers": headers}]
    file = fetch(URL)
    file.write_bytes(CONTENT[:500_000] + bytes([CONTENT[500_000] ^ 1]) + CONTENT[500_001:])
    assert fetch(URL).read_bytes() == CONTENT
    assert "is damaged (it is not as it was when it was downloaded)" in caplog.text
    assert len(storage.requests) == 2 and "Range" not in storage.requests[1]


def test_a_table_in_the_cache_with_another_letter_is_fetched_again(storage: Storage) -> None:
    storage.paths += ["vit_models/augreg/index.csv"]
    storage.content = b"name,ds\na,b\n"
    file = fetch(storage.paths[-1])
    file.write_bytes(b"name,ds\nA,b\n")
    assert fetch(storage.paths[-1]).read_bytes() == storage.content


def test_a_cached_file_is_read_only_if_it_was_written_to(
    storage: Storage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fetch(URL)
    reads: list[Path] = []

    def md5_of(path: Path) -> str:
        reads.append(path)
        return receiving.md5_of(path)

    monkeypatch.setattr(download, "md5_of", md5_of)
    fetch(URL)
    assert not reads
    os.utime(file)  # As a copy of the cache has it.
    fetch(URL)
    assert reads == [file] and len(storage.requests) == 1
    # Version 0.1.0 recorded no time.
    record = file.with_name(f"{file.name}.download.json")
    version = json.loads(record.read_text())
    del version["mtime_ns"]
    record.write_text(json.dumps(version))
    fetch(URL)
    assert len(storage.requests) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", "3", "[" * 100_000, '{"etag": 3}', '{"etag": [], "size": 1000000}'),
        *('{"size": "1000000"}', '{"size": true}', '{"size": -1}', '{"size": 1e999}', '{"a": 1}'),
        *('{"size": 1000000, "mtime_ns": "1"}', '{"size": 1000000, "mtime_ns": 1e9}'),
        *('{"md5": 5, "size": 1000000}', "\x00", '{"etag": "\\ud800"}'),
    ],
)
def test_a_record_of_other_types_is_none(text: str, storage: Storage, cache: Path) -> None:
    file = fetch(URL)
    record = file.with_name(f"{file.name}.download.json")
    record.write_text(text)
    assert fetch(URL).read_bytes() == CONTENT
    file.rename(file.with_name(f"{file.name}.part"))
    record.write_text(text)
    assert fetch(URL).read_bytes() == CONTENT


def test_pipes_and_folders_in_the_cache_do_not_stop_it(storage: Storage, cache: Path) -> None:
    file = fetch(URL)
    for suffix in (".download.json", ".part"):
        file.unlink()
        beside = file.with_name(file.name + suffix)
        beside.unlink(missing_ok=True)
        os.mkfifo(beside)
        assert fetch(URL).read_bytes() == CONTENT


def test_unfinished_files_of_killed_processes_are_removed(storage: Storage, cache: Path) -> None:
    folder = (cache / PATH).parent
    folder.mkdir(parents=True)
    left = folder / f".{Path(PATH).name}.download.json.4194303.tmp"
    other = folder / ".ViT-L_16.npz.download.json.4194303.tmp"  # Somebody may be writing it.
    left.touch()
    other.touch()
    fetch(URL)
    assert not left.exists() and other.exists()
