"""Receives a file from an HTTP server into a part that may hold its beginning already.

A server may be slow, end early, answer nonsense or never. Each attempt ends in bounded time: with
the rest of the file, or with a reason that says whether to try again.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from vit_jax.errors import UserError

if TYPE_CHECKING:
    from requests import Response

_log = logging.getLogger(__name__)

# Seconds to connect, and to wait for the next bytes.
TIMEOUTS = (10.0, 60.0)
# A server must answer within these seconds, and then send so many bytes in each such window.
WINDOW = 60.0
LEAST_BYTES = 2**16
# Bytes that a broken connection loses at most.
_PIECE = 2**16


class Interrupted(Exception):
    """An attempt failed, but another one may succeed."""


class TooSlow(Interrupted):
    """What has arrived does not count as progress."""


@dataclasses.dataclass(frozen=True)
class Version:
    """One version of a remote file; None for what the storage does not state.

    Attributes:
      md5: in base64.
      mtime_ns: of the local file, once it is whole.
    """

    etag: str | None = None
    size: int | None = None
    md5: str | None = None
    mtime_ns: int | None = None


def receive(
    url: str,
    part: Path,
    version: Version | None,
    start: int,
    record: Callable[[Version], None],
) -> Version:
    """Adds what the storage sends to the part, or starts it again; returns its version.

    Args:
      url: of the remote file.
      part: what has arrived.
      version: of the part, to ask for the bytes from `start` on; None asks for all bytes.
      start: size of the part.
      record: keeps a version that starts the part again.

    Raises:
      Interrupted: another attempt may succeed.
      UserError: it cannot.
    """
    import requests

    # Not compressed on the way, so that lengths and checksums are the file's own.
    headers = {"Accept-Encoding": "identity"}
    if version is not None:
        headers |= {"Range": f"bytes={start}-", "If-Range": version.etag or ""}
    try:
        with _answer(url, headers) as response:
            _check_status(response, url)
            content_range = response.headers.get("Content-Range", "")
            if response.status_code == requests.codes.ok:
                version, start = _read_headers(response.headers), 0
                part.write_bytes(b"")  # Before the version, which is that of what comes now.
                record(version)
            elif version is None or not _continues(content_range, start, version.size):
                part.unlink(missing_ok=True)
                raise Interrupted("the storage does not resume where the file here ends")
            _append(response, url, part, version, start)
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as error:
        raise Interrupted(_reason(error)) from error
    except requests.exceptions.RequestException as error:
        raise UserError(
            f"{without_secret(url, url)} could not be downloaded "
            f"({without_secret(_reason(error), url)}); check VIT_JAX_STORAGE"
        ) from error
    return version


def _answer(url: str, headers: Mapping[str, str]) -> Response:
    """The answer's head. Its lines have no limit of time of their own, so a thread waits for it."""
    import requests

    done: list[Response | BaseException] = []

    def ask() -> None:
        try:
            done.append(requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS))
        except BaseException as error:  # Raised again below.
            done.append(error)

    thread = threading.Thread(target=ask, name="download", daemon=True)
    thread.start()
    thread.join(TIMEOUTS[0] + WINDOW)
    if not done:
        raise TooSlow(f"no answer within {TIMEOUTS[0] + WINDOW:.0f} s")
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]


def _append(response: Response, url: str, part: Path, version: Version, start: int) -> None:
    import urllib3
    from tqdm import tqdm

    size = "unknown size" if version.size is None else f"{version.size / 2**20:,.1f} MiB"
    resumed = f", resumed after {start / 2**20:,.1f} MiB" if start else ""
    file = part.with_suffix("")
    _log.info("downloading %s to %s (%s%s)", without_secret(url, url), file, size, resumed)
    bar = tqdm(
        total=version.size,
        initial=start,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        desc=file.name,
        disable=not sys.stderr.isatty(),
    )
    speed = _Speed()
    with bar, open(part, "ab", buffering=0) as out:
        try:
            # As soon as there is anything, so that the speed is known.
            while piece := response.raw.read1(_PIECE, decode_content=True):
                out.write(piece)
                bar.update(len(piece))
                speed.add(len(piece))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
                raise  # The disk failed.
            raise Interrupted(_reason(error)) from error
        finally:
            os.fsync(out.fileno())


class _Speed:
    """Raises `TooSlow` when a window has brought too little."""

    def __init__(self) -> None:
        self._began, self._bytes = time.monotonic(), 0

    def add(self, number: int) -> None:
        """Counts bytes that have arrived."""
        self._bytes += number
        seconds = time.monotonic() - self._began
        if self._bytes >= LEAST_BYTES:
            self._began, self._bytes = time.monotonic(), 0
        elif seconds > WINDOW:
            raise TooSlow(f"only {self._bytes:,} bytes in {seconds:.0f} s")


def _check_status(response: Response, url: str) -> None:
    status, reason = response.status_code, f"{response.status_code} {response.reason}"
    if status in (200, 206, 416):  # 416: the range starts after the end, as of a shorter new file.
        return
    if status in (408, 429) or status >= 500:
        raise Interrupted(f"the storage answers {reason}")
    problem = "no such file" if status == 404 else "the storage or a proxy refuses access"
    raise UserError(
        f"{without_secret(url, url)}: {problem} ({reason}); check the name with python -m vit_jax "
        "models, and VIT_JAX_STORAGE if it is set"
    )


def _continues(content_range: str, start: int, size: int | None) -> bool:
    """Whether an answer is the rest of a file of which `start` bytes of `size` are here."""
    match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", content_range)
    if match is None or int(match[1]) != start:
        return False
    return size is None or match[2] == "*" or int(match[2]) == size


def _read_headers(headers: Mapping[str, str]) -> Version:
    encodings = (headers.get(n) for n in ("Content-Encoding", "x-goog-stored-content-encoding"))
    if any(encoding not in (None, "identity") for encoding in encodings):
        return Version()  # The other headers describe the compressed bytes.
    md5 = re.search(r"\bmd5=([\w+/=]+)", headers.get("x-goog-hash", ""))
    length = headers.get("Content-Length", "")
    return Version(
        etag=headers.get("ETag"),
        size=int(length) if re.fullmatch("[0-9]{1,18}", length) else None,
        md5=md5.group(1) if md5 else None,
    )


def md5_of(path: Path) -> str:
    """The MD5 of a file in base64, as the storage states it."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode()


def without_secret(text: str, url: str) -> str:
    """A text without the name and password that a URL may hold: `http://NAME:PASSWORD@HOST`."""
    scheme, colon, rest = url.partition("://")
    user = (rest if colon else scheme).rpartition("@")[0]
    secrets = {user, unquote(user)}
    secrets |= {secret.partition(":")[2] for secret in secrets}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "…")
    return text


def _reason(error: Any) -> str:
    """One line in urllib3's own words, without the words that requests puts around them."""
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    return " ".join(str(cause).split()) or type(error).__name__
