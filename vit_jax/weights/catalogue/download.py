"""Files of the public storage, downloaded once into a cache.

While `NAME` is downloaded, `NAME.part` holds the bytes that have arrived. `NAME.download.json`
holds the version (ETag, size, MD5) of the part, and later of the whole file. This is our own code
because libraries such as pooch start a broken download of several GB again from zero.
"""

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
from typing import TYPE_CHECKING

from vit_jax import atomic
from vit_jax.errors import UserError

if TYPE_CHECKING:
    from requests import Response

_log = logging.getLogger(__name__)

STORAGE = "https://storage.googleapis.com"
# Seconds before each new attempt. After an attempt that brought bytes, the row starts again.
RETRY_DELAYS = (1.0, 3.0, 9.0)
# Seconds to connect, and to wait for the next bytes.
TIMEOUTS = (10.0, 60.0)
# Bytes that a broken connection loses at most.
_PIECE = 2**16


def fetch(url: str) -> Path:
    """Returns the local copy of a file of the storage, and downloads it if the cache lacks it.

    The cache is `$VIT_JAX_CACHE`, by default `~/.cache/vit_jax`, with the storage's folders:
    `vit_models/imagenet21k/ViT-B_16.npz`. A cached file is used without the network if it has the
    size that it was downloaded in, or if it was put there by hand. A broken download is resumed
    where it stopped, also by a later process, unless the remote file has changed. Processes that
    want the same file wait for the first one.

    Args:
      url: of a file at https://storage.googleapis.com, or the same without that address.
        `$VIT_JAX_STORAGE` is the address of a mirror to download from.

    Raises:
      UserError: the file does not exist, the storage cannot be reached, what it sends is damaged
        again and again, or the cache cannot be written.
    """
    path = url.removeprefix(f"{STORAGE}/")
    if "://" in path or path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise UserError(f"{url} is not a file at {STORAGE}; download it yourself and give its path")
    cache = Path(os.environ.get("VIT_JAX_CACHE") or "~/.cache/vit_jax").expanduser()
    storage = (os.environ.get("VIT_JAX_STORAGE") or STORAGE).rstrip("/")
    file = cache / path
    try:
        if not _is_whole(file):
            with _exclusive_lock(file):
                if not _is_whole(file):  # Another process may have downloaded it meanwhile.
                    _download(f"{storage}/{path}", file)
    except OSError as error:
        raise UserError(
            f"{file} cannot be stored ({error.strerror or error}); make room, or set "
            "VIT_JAX_CACHE to a directory that can be written"
        ) from error
    return file


class _Interrupted(Exception):
    """An attempt failed, but another one may succeed."""


@dataclasses.dataclass(frozen=True)
class _Version:
    """One version of a remote file; None for what the storage does not state. MD5 in base64."""

    etag: str | None = None
    size: int | None = None
    md5: str | None = None


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


def _is_whole(file: Path) -> bool:
    version = _read_version(file)
    # A version without a size is that of a part; the size of a whole file is always recorded.
    return file.exists() and (version is None or version.size == file.stat().st_size)


def _read_version(file: Path) -> _Version | None:
    try:
        return _Version(**json.loads(_beside(file, ".download.json").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write_version(file: Path, version: _Version) -> None:
    text = json.dumps(dataclasses.asdict(version))
    atomic.write_bytes(_beside(file, ".download.json"), text.encode())


@contextlib.contextmanager
def _exclusive_lock(file: Path) -> Iterator[None]:
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
        _log.warning("%s has another size than when it was downloaded; downloading again", file)
    part, failures = _beside(file, ".part"), 0
    while True:
        before = _size(part)
        try:
            version = _attempt(url, file, part)
            break
        except _Interrupted as error:
            after = _size(part)
            failures = 1 if after > before else failures + 1
            if failures > len(RETRY_DELAYS):
                kept = f", which resumes after the {after:,} bytes that are here" if after else ""
                raise UserError(
                    f"{url} could not be downloaded ({error}); check the network, then use the "
                    f"same command again{kept}; or put the file at {file} yourself"
                ) from error
            delay = RETRY_DELAYS[failures - 1]
            _log.warning("%s: %s; trying again in %g s", url, error, delay)
            time.sleep(delay)
    # The version first: until the replacement, a reader finds a file of another size, or none.
    _write_version(file, dataclasses.replace(version, size=_size(part)))
    os.replace(part, file)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _attempt(url: str, file: Path, part: Path) -> _Version:
    """Completes the part and checks it; returns its version."""
    version, start = _read_version(file), _size(part)
    # A weak ETag, W/"...", does not promise equal bytes.
    is_strong = version is not None and (version.etag or "").startswith('"')
    if version is None or not is_strong or not 0 < start <= (version.size or start):
        version, start = None, 0
    if version is None or version.size != start:
        version = _receive(url, file, part, version, start)
    size = _size(part)
    if version.size is not None and size < version.size:
        raise _Interrupted(f"the connection ended after {size:,} of {version.size:,} bytes")
    if version.size not in (None, size) or version.md5 not in (None, _md5(part)):
        part.unlink()
        raise _Interrupted("what arrived does not have the size and checksum that were announced")
    return version


def _receive(url: str, file: Path, part: Path, version: _Version | None, start: int) -> _Version:
    """Adds what the storage sends to the part, or starts it again; returns its version.

    Args:
      url: of the remote file.
      file: where it belongs in the cache.
      part: what has arrived.
      version: of the part, to ask for the bytes from `start` on; None asks for all bytes.
      start: size of the part.
    """
    import requests

    # Not compressed on the way, so that lengths and checksums are the file's own.
    headers = {"Accept-Encoding": "identity"}
    if version is not None:
        headers |= {"Range": f"bytes={start}-", "If-Range": version.etag or ""}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
            _check_status(response, url)
            content_range = response.headers.get("Content-Range", "")
            if response.status_code == requests.codes.ok:
                version, start = _read_headers(response.headers), 0
                part.write_bytes(b"")  # Before the version, which is that of what comes now.
                _write_version(file, version)
            elif version is None or not content_range.startswith(f"bytes {start}-"):
                part.unlink(missing_ok=True)
                raise _Interrupted("the storage does not resume where the file here ends")
            _append(response, file, part, version, start)
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


def _append(response: Response, file: Path, part: Path, version: _Version, start: int) -> None:
    from tqdm import tqdm

    size = "unknown size" if version.size is None else f"{version.size / 2**20:,.1f} MiB"
    resumed = f", resumed after {start / 2**20:,.1f} MiB" if start else ""
    _log.info("downloading %s to %s (%s%s)", response.url, file, size, resumed)
    bar = tqdm(
        total=version.size,
        initial=start,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        desc=file.name,
        disable=not sys.stderr.isatty(),
    )
    with bar, open(part, "ab") as out:
        for piece in response.iter_content(_PIECE):
            out.write(piece)
            bar.update(len(piece))
        out.flush()
        os.fsync(out.fileno())


def _check_status(response: Response, url: str) -> None:
    status, reason = response.status_code, f"{response.status_code} {response.reason}"
    if status in (200, 206, 416):  # 416: the range starts after the end, as of a shorter new file.
        return
    if status in (408, 429) or status >= 500:
        raise _Interrupted(f"the storage answers {reason}")
    problem = "no such file" if status == 404 else "the storage or a proxy refuses access"
    raise UserError(
        f"{url}: {problem} ({reason}); check the name with python -m vit_jax models, and "
        "VIT_JAX_STORAGE if it is set"
    )


def _read_headers(headers: Mapping[str, str]) -> _Version:
    encodings = (headers.get(n) for n in ("Content-Encoding", "x-goog-stored-content-encoding"))
    if any(encoding not in (None, "identity") for encoding in encodings):
        return _Version()  # The other headers describe the compressed bytes.
    md5 = re.search(r"\bmd5=([\w+/=]+)", headers.get("x-goog-hash", ""))
    length = headers.get("Content-Length", "")
    return _Version(
        etag=headers.get("ETag"),
        size=int(length) if length.isdecimal() else None,
        md5=md5.group(1) if md5 else None,
    )


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode()


def _reason(error: Exception) -> str:
    """One line in urllib3's own words, without the words that requests puts around them."""
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    return " ".join(str(cause).split()) or type(error).__name__
