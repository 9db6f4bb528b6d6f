"""Files of the public storage, and others of known content, downloaded once into a cache.

While `NAME` is downloaded, `NAME.part` holds the bytes that have arrived. `NAME.download.json`
holds the version (ETag, size, MD5) of the part, and later of the whole file. Nothing becomes `NAME`
before it is whole and of the format that its name says. This is our own code because libraries such
as pooch start a broken download of several GB again from zero.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from vit_jax import atomic, locks
from vit_jax.errors import UserError
from vit_jax.user_cache import user_cache
from vit_jax.weights.catalogue.receiving import (
    Interrupted,
    TooSlow,
    Version,
    md5_of,
    receive,
    without_secret,
)

_log = logging.getLogger(__name__)

STORAGE = "https://storage.googleapis.com"
# Seconds before each new attempt. After an attempt that brought bytes, the row starts again.
RETRY_DELAYS = (1.0, 3.0, 9.0)


def fetch(url: str) -> Path:
    """Returns the local copy of a file of the storage, and downloads it if the cache lacks it.

    The cache is `$VIT_JAX_CACHE`, by default `~/.cache/vit_jax`, with the storage's folders:
    `vit_models/imagenet21k/ViT-B_16.npz`. A cached file is used without the network if it is of its
    format and as it was downloaded, or was put there by hand. One that was written to since its
    download must still have its checksum. A broken download is resumed where it stopped, also by a
    later process, unless the remote file has changed. Processes that want the same file wait for
    the first one.

    Args:
      url: of a file at https://storage.googleapis.com, or the same without that address.
        `$VIT_JAX_STORAGE` is the address of a mirror to download from.

    Raises:
      UserError: the file does not exist, the storage cannot be reached, what it sends is damaged
        again and again, or the cache cannot be written.
    """
    return _cached(_address(url), _in_cache(url), None)


def fetch_pinned(url: str, name: str, sha256: str) -> Path:
    """As `fetch`, for a small file at any address that is known by its content.

    The cached file is read each time, and downloaded again if it is any other.

    Args:
      name: of the file in the cache, below `$VIT_JAX_CACHE`.
      sha256: of its content, in hexadecimal.

    Raises:
      UserError: the file does not exist, cannot be reached or has another content, or the cache
        cannot be written.
    """
    return _cached(url, user_cache() / name, sha256)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached(url: str, file: Path, sha256: str | None) -> Path:
    try:
        if not _is_whole(file, sha256):
            with _exclusive_lock(file):
                if not _is_whole(file, sha256):  # Another process may have downloaded it meanwhile.
                    _download(url, file, sha256)
    except OSError as error:
        raise UserError(
            f"{file} cannot be stored ({error.strerror or error}); make room, or set "
            "VIT_JAX_CACHE to a directory that can be written"
        ) from error
    return file


def is_cached(url: str) -> bool:
    """Whether `fetch` would need no network.

    Raises:
      UserError: it is no file of the storage.
    """
    return _is_whole(_in_cache(url), None)


def shown_address(url: str) -> str:
    """Where `fetch` downloads a file from, without a password."""
    address = _address(url)
    return without_secret(address, address)


def _in_cache(url: str) -> Path:
    path = url.removeprefix(f"{STORAGE}/")
    if "://" in path or path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise UserError(
            f"{url} is not below {STORAGE}, from where files are downloaded; download it yourself "
            "and give its path"
        )
    return user_cache() / path


def _address(url: str) -> str:
    storage = (os.environ.get("VIT_JAX_STORAGE") or STORAGE).rstrip("/")
    return f"{storage}/{url.removeprefix(f'{STORAGE}/')}"


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


def _is_whole(file: Path, sha256: str | None) -> bool:
    if sha256 is not None:
        return file.is_file() and sha256_of(file) == sha256
    if not file.is_file() or _flaw(file, file.suffix) is not None:
        return False
    version, found = _read_version(file), file.stat()
    if version is None:
        return True
    # A version without a size is that of a part; the size of a whole file is always recorded.
    if version.size != found.st_size:
        return False
    # Only what was written to since then is read again: such files have up to 3 GB.
    return version.mtime_ns == found.st_mtime_ns or version.md5 in (None, md5_of(file))


def _flaw(path: Path, suffix: str, *, throughout: bool = False) -> str | None:
    """What shows that a file is not of its format; None if nothing does.

    Args:
      path: of the file.
      suffix: of the name that it has or will have, such as `.npz`.
      throughout: whether to read all of it, not its ends alone.
    """
    with open(path, "rb") as opened:
        begin = opened.read(200)
    shown = f"it begins with {begin[:30].decode('latin-1')!a}" if begin else "it is empty"
    if not begin:
        return shown
    if suffix == ".npz":
        if not zipfile.is_zipfile(path):
            return shown if begin[:2] != b"PK" else "its end is missing"
        if throughout:
            try:
                with zipfile.ZipFile(path) as archive:
                    damaged = archive.testzip()
            except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
                return str(error)
            return None if damaged is None else f"its member {damaged!r} is damaged"
    elif begin.lstrip()[:1] == b"<" or b"\0" in begin or b"," not in begin.split(b"\n")[0]:
        return shown  # No table, which is what every other file of the storage is.
    return None


def _read_version(file: Path) -> Version | None:
    """The version that is recorded beside a file; None for none, and for one that is damaged."""
    path = _beside(file, ".download.json")
    try:
        if not path.is_file():
            return None
        version = Version(**json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError):
        return None
    for number in (version.size, version.mtime_ns):
        if number is not None and (type(number) is not int or number < 0):
            return None
    texts = (version.etag, version.md5)
    return version if all(text is None or isinstance(text, str) for text in texts) else None


def _write_version(file: Path, version: Version) -> None:
    text = json.dumps(dataclasses.asdict(version))
    atomic.write_bytes(_beside(file, ".download.json"), text.encode())


@contextlib.contextmanager
def _exclusive_lock(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT  # Which does not wait, should it be a pipe.
    with open(os.open(_beside(file, ".lock"), flags, 0o666), "rb") as lock:
        if not locks.try_lock(lock):
            _log.info("waiting for another process that downloads %s", file)
            locks.lock(lock)
        # Nobody else writes here now, so these are of processes that were killed.
        atomic.remove_unfinished(_beside(file, ".download.json"))
        yield


def _download(url: str, file: Path, sha256: str | None) -> None:
    if file.is_file():
        flaw = _flaw(file, file.suffix) or "it is not as it was when it was downloaded"
        _log.warning("%s is damaged (%s); downloading again", file, flaw)
    part, failures, shown = _beside(file, ".part"), 0, without_secret(url, url)
    while True:
        before = _size(part)
        try:
            version = _attempt(url, file, part, sha256)
            break
        except Interrupted as error:
            after, reason = _size(part), without_secret(str(error), url)
            progress = after > before and not isinstance(error, TooSlow)
            failures = 1 if progress else failures + 1
            if failures > len(RETRY_DELAYS):
                kept = f", which resumes after the {after:,} bytes that are here" if after else ""
                raise UserError(
                    f"{shown} could not be downloaded ({reason}); check the network, then use the "
                    f"same command again{kept}; or put the file at {file} yourself"
                ) from error
            delay = RETRY_DELAYS[failures - 1]
            _log.warning("%s: %s; trying again in %g s", shown, reason, delay)
            time.sleep(delay)
    # The version first: until the replacement, a reader finds a file of another size, or none.
    found = part.stat()
    whole = dataclasses.replace(
        version,
        size=found.st_size,
        md5=version.md5 or md5_of(part),
        mtime_ns=found.st_mtime_ns,
    )
    _write_version(file, whole)
    os.replace(part, file)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _attempt(url: str, file: Path, part: Path, sha256: str | None) -> Version:
    """Completes the part and checks it; returns its version."""
    if part.exists() and not part.is_file():
        part.unlink()  # Such as a pipe, from which nothing would ever come.
    version, start = _read_version(file), _size(part)
    # A weak ETag, W/"...", does not promise equal bytes.
    is_strong = version is not None and (version.etag or "").startswith('"')
    if version is None or not is_strong or not 0 < start <= (version.size or start):
        version, start = None, 0
    if version is None or version.size != start:
        version = receive(url, part, version, start, lambda found: _write_version(file, found))
    size = _size(part)
    if version.size is not None and size < version.size:
        raise Interrupted(f"the connection ended after {size:,} of {version.size:,} bytes")
    if version.size not in (None, size) or version.md5 not in (None, md5_of(part)):
        part.unlink()
        raise Interrupted("what arrived does not have the size and checksum that were announced")
    if (flaw := _flaw(part, file.suffix, throughout=True)) is not None:
        part.unlink()
        kind = file.suffix or "such"
        raise Interrupted(f"the server answers, but what it sends is no {kind} file: {flaw}")
    if sha256 is not None and (found := sha256_of(part)) != sha256:
        part.unlink()
        raise Interrupted(
            f"the server answers, but what it sends has the SHA-256 {found} and not {sha256}"
        )
    return version
