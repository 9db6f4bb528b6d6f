"""Files of the public storage, downloaded once into a cache."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vit_jax import atomic
from vit_jax.errors import UserError

_log = logging.getLogger(__name__)

STORAGE = "https://storage.googleapis.com"
# Seconds before each new attempt. An attempt that brought bytes starts the row anew.
RETRY_DELAYS = (1.0, 3.0, 9.0)
# Seconds to connect, and to wait for the next bytes.
TIMEOUTS = (10.0, 60.0)
# Bytes; what a broken connection loses at most.
_PIECE = 2**16


def fetch(url: str) -> Path:
    """The local copy of a file of the storage, downloaded unless the cache has it.

    The cache is `$VIT_JAX_CACHE`, by default `~/.cache/vit_jax`, and laid out as the storage is:
    `vit_models/imagenet21k/ViT-B_16.npz`. A file in it is used without the network, if it has
    the size that it was downloaded in, or if it was put there by hand. A download that broke goes
    on where it stopped, in a later process too, unless the remote file has changed meanwhile.
    Processes that want the same file wait for the first one.

    Args:
      url: of a file at https://storage.googleapis.com, or the same without that address.
          `$VIT_JAX_STORAGE` is the address of a mirror to take it from.

    Raises:
      UserError: the file does not exist, the storage cannot be reached, what it sends is damaged
          time and again, or the cache cannot be written.
    """
    path = url.removeprefix(f"{STORAGE}/")
    if "://" in path or path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise UserError(f"{url} is not a file at {STORAGE}; download it yourself and give its path")
    cache = Path(os.environ.get("VIT_JAX_CACHE") or "~/.cache/vit_jax").expanduser()
    storage = (os.environ.get("VIT_JAX_STORAGE") or STORAGE).rstrip("/")
    file = cache / path
    try:
        if not _is_whole(file):
            with _alone(file):
                if not _is_whole(file):  # which another process may have changed
                    _download(f"{storage}/{path}", file)
    except OSError as error:
        raise UserError(
            f"{file} cannot be stored ({error.strerror or error}); make room, or set "
            "VIT_JAX_CACHE to a directory that can be written"
        ) from error
    return file


class _Interrupted(Exception):
    """An attempt failed in a way that another one may not."""


@dataclasses.dataclass(frozen=True)
class _Version:
    """One version of a remote file. What the storage does not tell is None."""

    etag: str | None = None
    size: int | None = None
    # Base64.
    md5: str | None = None


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


def _part(file: Path) -> Path:
    """What has arrived of a file that is not whole yet."""
    return _beside(file, ".part")


def _record(file: Path) -> Path:
    """The version that `_part(file)` or else the file is of."""
    return _beside(file, ".download.json")


def _is_whole(file: Path) -> bool:
    if not file.exists():
        return False
    version = _read_record(file)
    # Without a size, the record is of a part; that of a whole file has one.
    return version is None or version.size == file.stat().st_size


def _read_record(file: Path) -> _Version | None:
    try:
        return _Version(**json.loads(_record(file).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write_record(file: Path, version: _Version) -> None:
    atomic.write_bytes(_record(file), json.dumps(dataclasses.asdict(version)).encode())


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Waits until no other process is at this file, and keeps others waiting."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(_beside(file, ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process that downloads %s", file)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(url: str, file: Path) -> None:
    if file.exists():
        _log.warning("%s has another size than when it was downloaded; getting it again", file)
    failures = 0
    while True:
        before = _size(_part(file))
        try:
            version = _attempt(url, file)
            break
        except _Interrupted as error:
            after = _size(_part(file))
            failures = 1 if after > before else failures + 1
            if failures > len(RETRY_DELAYS):
                kept = f", which goes on after the {after:,} bytes that are here" if after else ""
                raise UserError(
                    f"{url} could not be downloaded ({error}); check the network, then use the "
                    f"same command again{kept}; or put the file at {file} yourself"
                ) from error
            delay = RETRY_DELAYS[failures - 1]
            _log.warning("%s: %s; trying again in %g s", url, error, delay)
            time.sleep(delay)
    # The record first: whoever looks in between finds an old file of another size, or none.
    _write_record(file, dataclasses.replace(version, size=_size(_part(file))))
    os.replace(_part(file), file)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _attempt(url: str, file: Path) -> _Version:
    """Completes `_part(file)` and checks it; returns which version it is."""
    version, start = _begun(file)
    if version is None or version.size != start:
        version = _receive(url, file, version, start)
    _check(_part(file), version)
    return version


def _begun(file: Path) -> tuple[_Version | None, int]:
    """Version and number of the bytes that have arrived earlier, if others can be added."""
    version, start = _read_record(file), _size(_part(file))
    # A weak ETag, W/"...", does not promise equal bytes.
    if version is None or not (version.etag or "").startswith('"'):
        return None, 0
    return (version, start) if 0 < start <= (version.size or start) else (None, 0)


def _receive(url: str, file: Path, version: _Version | None, start: int) -> _Version:
    """Adds what the storage sends to `_part(file)`, or starts it anew; returns its version.

    With a version, the bytes from `start` on are asked for, if the storage still has the same.
    """
    import requests

    # Not compressed on the way, so that lengths and checksums are the file's own.
    headers = {"Accept-Encoding": "identity"}
    if version is not None:
        headers |= {"Range": f"bytes={start}-", "If-Range": version.etag or ""}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
            _check_status(response, url)
            if response.status_code == requests.codes.ok:
                version, start = _read_headers(response.headers), 0
                _part(file).write_bytes(b"")  # before the record, which is of what comes now
                _write_record(file, version)
            elif version is None or not _goes_on(response, start):
                _part(file).unlink(missing_ok=True)
                raise _Interrupted("the storage does not go on where the file here ends")
            _append(response, file, version, start)
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as error:
        raise _Interrupted(_reason(error)) from error
    except requests.exceptions.RequestException as error:
        raise UserError(
            f"{url} could not be downloaded ({_reason(error)}); check VIT_JAX_STORAGE"
        ) from error
    return version


def _append(response: Any, file: Path, version: _Version, start: int) -> None:
    from tqdm import tqdm

    size = "unknown size" if version.size is None else f"{version.size / 2**20:,.1f} MiB"
    begun = f", of which {start / 2**20:,.1f} MiB are here" if start else ""
    _log.info("downloading %s to %s (%s%s)", response.url, file, size, begun)
    bar = tqdm(
        total=version.size,
        initial=start,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        desc=file.name,
        disable=not sys.stderr.isatty(),
    )
    with bar, open(_part(file), "ab") as part:
        for piece in response.iter_content(_PIECE):
            part.write(piece)
            bar.update(len(piece))
        part.flush()
        os.fsync(part.fileno())


def _check_status(response: Any, url: str) -> None:
    status, reason = response.status_code, f"{response.status_code} {response.reason}"
    if status in (200, 206, 416):  # 416: no such range, as of a file that has become shorter
        return
    if status in (408, 429) or status >= 500:
        raise _Interrupted(f"the storage answers {reason}")
    hint = "the storage or a proxy refuses it" if status != 404 else "there is no such file"
    raise UserError(
        f"{url}: {hint} ({reason}); check the name with python -m vit_jax models, and "
        "VIT_JAX_STORAGE if it is set"
    )


def _goes_on(response: Any, start: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _read_headers(headers: Mapping[str, str]) -> _Version:
    encodings = (headers.get(n) for n in ("Content-Encoding", "x-goog-stored-content-encoding"))
    if any(encoding not in (None, "identity") for encoding in encodings):
        return _Version()  # The other headers are about the compressed bytes.
    md5 = re.search(r"\bmd5=([\w+/=]+)", headers.get("x-goog-hash", ""))
    length = headers.get("Content-Length", "")
    return _Version(
        etag=headers.get("ETag"),
        size=int(length) if length.isdecimal() else None,
        md5=md5.group(1) if md5 else None,
    )


def _check(part: Path, version: _Version) -> None:
    size = part.stat().st_size
    if version.size is not None and size < version.size:
        raise _Interrupted(f"the connection ended after {size:,} of {version.size:,} bytes")
    if version.size not in (None, size) or version.md5 not in (None, _md5(part)):
        part.unlink()
        raise _Interrupted("what arrived does not have the size and checksum that were announced")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode()


def _reason(error: Exception) -> str:
    """One line in urllib3's own words, without those of requests around them."""
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    return " ".join(str(cause).split()) or type(error).__name__
