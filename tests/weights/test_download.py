"""Downloads from a real server on this machine, which can fail in the ways that servers do."""

import base64
import contextlib
import gzip
import hashlib
import io
import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vit_jax.errors import UserError
from vit_jax.weights.catalogue import download, receiving
from vit_jax.weights.catalogue.download import STORAGE, fetch

PATH = "vit_models/imagenet21k+imagenet2012/ViT-B_16.npz"
URL = f"{STORAGE}/{PATH}"


def npz(size: int, seed: int = 0) -> bytes:
    """An archive of so many bytes, which do not compress."""
    own = 0  # Bytes that the archive itself takes: known the second time.
    for _ in range(2):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo("a.npy"), random.Random(seed).randbytes(size - own))
        own = len(file.getvalue()) - size + own
    return file.getvalue()


CONTENT = npz(1_000_000)


@dataclass
class Storage:
    """Serves `content` under PATH; each request takes one of the planned faults."""

    content: bytes = CONTENT
    faults: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=lambda: [PATH])
    # Headers of the requests that came in.
    requests: list[dict[str, str]] = field(default_factory=list)
    # Lets a stalled answer end.
    go_on: threading.Event = field(default_factory=threading.Event)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(dict(handler.headers))
        fault = self.faults.pop(0) if self.faults else {}
        if status := fault.get("status") or self._status_of(handler.path):
            handler.send_error(status)
            return
        if fault.get("trickle") == "head":
            self._trickle(handler, b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000)
            return
        content = self.content
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start, asked = 0, handler.headers.get("Range")
        if asked and handler.headers.get("If-Range") == etag and not fault.get("no_ranges"):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        checksum = base64.b64encode(hashlib.md5(content).digest()).decode()
        headers = {
            "ETag": etag,
            "x-goog-hash": f"crc32c=AAAAAA==, md5={checksum}",
            "Content-Length": str(len(content) - start),
        } | fault.get("headers", {})
        for name, value in headers.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        body = fault.get("body", content)[start:]
        stop = fault.get("stop_after", len(body))
        if fault.get("trickle") == "body":
            self._trickle(handler, body)
            return
        if pause := fault.get("pause"):
            for byte in body:
                handler.wfile.write(bytes([byte]))
                if byte % 16 == 0:
                    time.sleep(pause)
            return
        handler.wfile.write(body[:stop])
        handler.wfile.flush()
        if fault.get("stall"):
            self.go_on.wait(30)
            with contextlib.suppress(OSError):
                handler.wfile.write(body[stop:])

    def _status_of(self, path: str) -> int | None:
        return None if path.removeprefix("/") in self.paths else 404

    def _trickle(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        with contextlib.suppress(OSError):
            for byte in data:
                handler.wfile.write(bytes([byte]))
                if self.go_on.wait(0.05):
                    return


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    storage = Storage()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            storage.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("VIT_JAX_STORAGE", f"http://127.0.0.1:{server.server_port}/")
    yield storage
    storage.go_on.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.001, 0.001))
    return tmp_path / "cache"


def _message() -> str:
    with pytest.raises(UserError) as error:
        fetch(URL)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_is_downloaded_once_and_lies_as_in_the_storage(
    storage: Storage, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert fetch(URL) == cache / PATH
    assert (cache / PATH).read_bytes() == CONTENT
    assert caplog.text.count("downloading") == 1
    assert "1.0 MiB" in caplog.text
    assert fetch(PATH) == cache / PATH
    assert len(storage.requests) == 1
    assert not list(cache.rglob("*.part"))


def test_a_terminal_shows_progress(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    storage.faults = [{"stop_after": 600_000}]
    fetch(URL)
    bars = capsys.readouterr().err
    assert "ViT-B_16.npz: 100%" in bars
    assert "977k/977k" in bars  # 1,000,000 / 1024


def test_the_cache_is_in_the_home_directory(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIT_JAX_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch(URL) == tmp_path / ".cache/vit_jax" / PATH


def test_a_file_that_was_put_there_needs_no_network_and_is_left_alone(cache: Path) -> None:
    (cache / PATH).parent.mkdir(parents=True)
    by_hand = npz(1000)
    (cache / PATH).write_bytes(by_hand)
    assert fetch(URL).read_bytes() == by_hand
    assert os.listdir((cache / PATH).parent) == ["ViT-B_16.npz"]


def test_a_broken_download_resumes_where_it_stopped(storage: Storage) -> None:
    storage.faults = [{"stop_after": 600_000}, {"stop_after": 200_000}]
    assert fetch(URL).read_bytes() == CONTENT
    first, *others = storage.requests
    assert "Range" not in first
    starts = [int(r["Range"].removeprefix("bytes=").removesuffix("-")) for r in others]
    # Everything but the piece that was on its way is kept.
    assert 500_000 < starts[0] <= 600_000
    assert starts[0] + 100_000 < starts[1] <= starts[0] + 200_000


def test_breaks_are_many_as_long_as_each_brings_something(storage: Storage) -> None:
    storage.faults = [{"stop_after": 150_000}] * 5
    assert fetch(URL).read_bytes() == CONTENT


def test_a_later_call_resumes_where_an_earlier_one_gave_up(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRY_DELAYS", ())
    storage.faults = [{"stop_after": 600_000}]
    message = _message()
    assert "check the network" in message
    assert "bytes that are here" in message
    assert fetch(URL).read_bytes() == CONTENT
    assert "Range" in storage.requests[1]


@pytest.mark.parametrize("fault", [{}, {"no_ranges": True}])
def test_a_file_that_has_changed_meanwhile_starts_anew(
    fault: dict[str, Any], storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRY_DELAYS", ())
    storage.faults = [{"stop_after": 600_000}]
    _message()
    storage.content = npz(700_000, seed=1)
    storage.faults = [fault]
    assert fetch(URL).read_bytes() == storage.content


def test_a_part_of_unknown_length_that_is_complete_starts_anew(storage: Storage) -> None:
    """A process was killed before it put the file in place."""
    fetch(URL)
    file = next(Path(os.environ["VIT_JAX_CACHE"]).rglob("*.npz"))
    record = file.with_name("ViT-B_16.npz.download.json")
    record.write_text(record.read_text().replace("1000000", "null"))
    file.rename(file.with_name("ViT-B_16.npz.part"))
    storage.faults = [{"status": 416}]
    assert fetch(URL).read_bytes() == CONTENT
    assert storage.requests[1]["Range"] == "bytes=1000000-"
    assert "Range" not in storage.requests[2]


def test_a_part_that_is_complete_needs_no_network(storage: Storage) -> None:
    fetch(URL)
    file = next(Path(os.environ["VIT_JAX_CACHE"]).rglob("*.npz"))
    file.rename(file.with_name("ViT-B_16.npz.part"))
    assert fetch(URL).read_bytes() == CONTENT
    assert len(storage.requests) == 1


def test_damage_on_the_way_is_noticed(storage: Storage, cache: Path) -> None:
    damaged = {"body": CONTENT[:500_000] + b"?" + CONTENT[500_001:]}
    storage.faults = [damaged] * 3
    assert "size and checksum" in _message()
    assert not list(cache.rglob("*.npz")) + list(cache.rglob("*.part"))
    storage.faults = [damaged]
    assert fetch(URL).read_bytes() == CONTENT


def test_a_storage_without_checksum_and_length_will_do(storage: Storage) -> None:
    storage.faults = [{"headers": dict.fromkeys(("x-goog-hash", "Content-Length", "ETag"))}]
    path = fetch(URL)
    assert path.read_bytes() == CONTENT
    path.write_bytes(CONTENT[:-1])  # Its size was recorded nevertheless.
    assert fetch(URL).read_bytes() == CONTENT
    assert len(storage.requests) == 2


def test_headers_about_compressed_bytes_do_not_count(storage: Storage) -> None:
    """As for a file that is stored compressed: checksum and length are not the file's own."""
    headers = {"x-goog-stored-content-encoding": "gzip", "x-goog-hash": "md5=AAAA"}
    storage.faults = [{"headers": headers}]
    assert fetch(URL).read_bytes() == CONTENT


def test_a_proxy_may_compress(storage: Storage) -> None:
    packed = gzip.compress(CONTENT)
    headers = {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}
    storage.faults = [{"headers": headers, "body": packed}]
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
    _message()
    assert "no such file" in _message()
    assert fetch(URL).read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "words"), [(404, "no such file"), (403, "refuses")])
def test_a_file_that_does_not_exist_or_is_refused(
    status: int, words: str, storage: Storage
) -> None:
    storage.faults = [{"status": status}]
    message = _message()
    assert words in message
    assert "vit_jax models" in message
    assert len(storage.requests) == 1


def test_a_busy_server_is_asked_again(storage: Storage) -> None:
    storage.faults = [{"status": 503}, {"status": 429}]
    assert fetch(URL).read_bytes() == CONTENT
    storage.faults = [{"status": 500}] * 3
    fetch(URL)  # It is in the cache.


def test_a_silent_server_is_left(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "TIMEOUTS", (1.0, 0.2))
    storage.faults = [{"stop_after": 300_000, "stall": True}]
    assert fetch(URL).read_bytes() == CONTENT
    assert "Range" in storage.requests[1]


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIT_JAX_STORAGE", "http://127.0.0.1:9")
    message = _message()
    assert "Connection refused" in message
    assert "check the network" in message
    assert "HTTPConnectionPool" not in message


def test_a_mirror_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIT_JAX_STORAGE", "mirror.example")
    assert "check VIT_JAX_STORAGE" in _message()


@pytest.mark.parametrize("url", ["https://example.com/a.npz", "vit_models/../../a", "/etc/passwd"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UserError, match="is not a file at https://storage.googleapis.com"):
        fetch(url)


def test_a_full_disk_keeps_what_has_arrived(storage: Storage, cache: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        message = _message()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be stored (File too large)" in message
    assert "VIT_JAX_CACHE" in message
    assert not (cache / PATH).exists()
    assert fetch(URL).read_bytes() == CONTENT
    assert "Range" in storage.requests[1]


def test_a_cache_that_cannot_be_written(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "file"))
    assert "set VIT_JAX_CACHE to a directory that can be written" in _message()
    assert not storage.requests


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.programs.fetch", URL], stderr=subprocess.PIPE
    )


def test_two_processes_share_one_download(storage: Storage, cache: Path) -> None:
    storage.faults = [{"stop_after": 300_000, "stall": True}]
    processes = [_start(), _start()]
    _wait(lambda: len(storage.requests) == 1 and _arrived(cache) >= 200_000)
    time.sleep(0.3)  # The other one gets its chance to disturb.
    storage.go_on.set()
    for process in processes:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    assert (cache / PATH).read_bytes() == CONTENT
    assert len(storage.requests) == 1


def test_a_killed_process_leaves_its_part_to_the_next(storage: Storage, cache: Path) -> None:
    storage.faults = [{"stop_after": 600_000, "stall": True}]
    process = _start()
    _wait(lambda: _arrived(cache) >= 500_000)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert fetch(URL).read_bytes() == CONTENT
    assert int(storage.requests[1]["Range"].removeprefix("bytes=").removesuffix("-")) >= 500_000


def _arrived(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("*.part"))


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


HTML = b"<!DOCTYPE html><html>Please sign in</html>"
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
    message = _message()
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


@pytest.mark.parametrize("secret", ["name:pass-word", "name:p%40ss", "token-1234:", "name:a@b"])
def test_a_password_is_never_told(
    secret: str,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    address = os.environ["VIT_JAX_STORAGE"]
    told = []
    for storage_url in (
        address.replace("http://", f"http://{secret}@"),
        f"http://{secret}@127.0.0.1:1",
        f"{secret}@127.0.0.1:1",
        f"ftp://{secret}@127.0.0.1",
        f"http://{secret}@[bad",
    ):
        monkeypatch.setenv("VIT_JAX_STORAGE", storage_url)
        storage.faults = [{"status": 403}]
        told.append(_message())
    monkeypatch.setenv("VIT_JAX_STORAGE", address.replace("http://", f"http://{secret}@"))
    storage.faults = [{"status": 500}, {"stop_after": 10}]
    fetch(URL)
    text = "\n".join([*told, caplog.text])
    for part in secret.split(":"):
        assert not part or part == "name" or part not in text
    assert "p@ss" not in text


@pytest.mark.parametrize("what", ["body", "head"])
def test_one_byte_at_a_time_times_out(
    what: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "WINDOW", 0.3)
    monkeypatch.setattr(receiving, "TIMEOUTS", (0.2, 5.0))
    storage.faults = [{"trickle": what}] * 3
    began = time.monotonic()
    assert ("bytes in" if what == "body" else "no answer within") in _message()
    assert time.monotonic() - began < 10
    storage.go_on.set()
    assert fetch(URL).read_bytes() == CONTENT


def test_a_slow_network_that_brings_enough_is_waited_for(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "WINDOW", 0.2)
    monkeypatch.setattr(receiving, "LEAST_BYTES", 10)
    storage.content = npz(1000)
    storage.faults = [{"pause": 0.005}]
    assert fetch(URL).read_bytes() == storage.content
    assert len(storage.requests) == 1


def test_a_size_that_was_never_true_starts_anew(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that once claimed ten terabytes is not asked for the rest of them for ever."""
    claimed = {"Content-Length": str(10**13)}
    storage.faults = [{"headers": claimed}, {"status": 503}, {"status": 503}, {"status": 503}]
    _message()
    assert fetch(URL).read_bytes() == CONTENT
