"""Downloads from a real server on this machine, which can fail in the ways that servers do."""

import gzip
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.small_models import refusal
from tests.weights.storage_server import CONTENT, PATH, URL, Storage, npz
from vit_jax.errors import UserError
from vit_jax.weights.catalogue import download, receiving
from vit_jax.weights.catalogue.download import fetch

pytestmark = pytest.mark.usefixtures("cache")


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
    message = refusal(fetch, URL)
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
    refusal(fetch, URL)
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


@pytest.mark.parametrize(("status", "words"), [(404, "no such file"), (403, "refuses")])
def test_a_file_that_does_not_exist_or_is_refused(
    status: int, words: str, storage: Storage
) -> None:
    storage.faults = [{"status": status}]
    message = refusal(fetch, URL)
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
    message = refusal(fetch, URL)
    assert "Connection refused" in message
    assert "check the network" in message
    assert "HTTPConnectionPool" not in message


def test_a_mirror_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIT_JAX_STORAGE", "mirror.example")
    assert "check VIT_JAX_STORAGE" in refusal(fetch, URL)


@pytest.mark.parametrize("url", ["https://example.com/a.npz", "vit_models/../../a", "/etc/passwd"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UserError, match="is not below https://storage.googleapis.com"):
        fetch(url)


def test_a_full_disk_keeps_what_has_arrived(storage: Storage, cache: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        message = refusal(fetch, URL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be stored (File too large)" in message
    assert "VIT_JAX_CACHE" in message
    assert not (cache / PATH).exists()
    assert fetch(URL).read_bytes() == CONTENT
    assert "Range" in storage.requests[1]


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
        told.append(refusal(fetch, URL))
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
    assert ("bytes in" if what == "body" else "no answer within") in refusal(fetch, URL)
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
    refusal(fetch, URL)
    assert fetch(URL).read_bytes() == CONTENT
