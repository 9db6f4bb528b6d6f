"""A weight file from a local server that answers wrongly, or from a cache with a damaged file.

Each case starts twice: first with the wrong answer or the damaged cache, then with a server that is
well. A start fetches the file and reads its arrays. The first one reads the right numbers or
refuses in one line; the second one must read them, unless the cache itself was damaged.
"""

import base64
import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.damage.damages import Case, Donors, apply, cases_of
from benchmarks.damage.outcomes import End, Ending, Output, call, fault_of

ALLOWED = (End.EQUAL, End.AGAIN, End.REFUSED)

_PATH = "vit_models/imagenet21k+imagenet2012/ViT-B_16.npz"
_HTML = b"<html><body>Please log in to the network</body></html>" * 20


@dataclass
class _Answer:
    """What the server sends; by default what is right.

    Attributes:
      body: instead of the content.
      stop: bytes after which the connection ends.
      headers: that replace the right ones; None leaves one out.
      slow: seconds between two bytes.
      hangs: whether the connection stays open after `stop`.
    """

    status: int = 200
    body: bytes | None = None
    stop: int | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    slow: float = 0.0
    hangs: bool = False


def _of_length(body: bytes) -> _Answer:
    """A body whose headers fit it, without a checksum."""
    return _Answer(body=body, headers={"Content-Length": str(len(body)), "x-goog-hash": None})


def _answers(content: bytes, other: bytes) -> dict[str, _Answer]:
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    no_hash: dict[str, str | None] = {"x-goog-hash": None}
    no_length: dict[str, str | None] = {"Content-Length": None, **no_hash}
    answers = {f"status {code}": _Answer(code, b"no") for code in _STATUSES}
    return answers | {
        "a page of HTML": _of_length(_HTML),
        "a page of HTML without a length": _Answer(body=_HTML, headers=no_length),
        "a page of HTML under the right checksum": _Answer(body=_HTML),
        "an empty body": _of_length(b""),
        "an empty body without a length": _Answer(body=b"", headers=no_length),
        "a shorter body": _of_length(content[: len(content) // 2]),
        "a shorter body without a length": _Answer(body=content[:-9], headers=no_length),
        "one byte less": _of_length(content[:-1]),
        "a longer body": _of_length(content + b"x" * 999),
        "the connection ends": _Answer(stop=len(content) // 2),
        "the connection ends at once": _Answer(stop=0),
        "the connection ends, no ETag": _Answer(stop=99, headers={"ETag": None}),
        "one bit flipped": _Answer(body=bytes(flipped)),
        "one bit flipped, no checksum": _Answer(body=bytes(flipped), headers=no_hash),
        "another file": _Answer(body=other, headers={"Content-Length": str(len(other))}),
        "a length of 10^13": _Answer(headers={"Content-Length": str(10**13)}),
        "a negative length": _Answer(headers={"Content-Length": "-5"}),
        "a length that is no number": _Answer(headers={"Content-Length": "many"}),
        "a checksum that is none": _Answer(headers={"x-goog-hash": "md5=!!!!"}),
        "a wrong checksum": _Answer(headers={"x-goog-hash": "md5=AAAAAAAAAAAAAAAAAAAAAA=="}),
        "said to be compressed": _Answer(headers={"Content-Encoding": "gzip"}),
        "a range that was not asked for": _Answer(
            206, headers={"Content-Range": f"bytes 5-{len(content) - 1}/{len(content)}"}
        ),
        "a redirection to itself": _Answer(302, b"", headers={"Location": f"/{_PATH}"}),
        "a redirection to a file": _Answer(302, b"", headers={"Location": "file:///etc/passwd"}),
        "escape sequences": _Answer(500, b"\x1b[2J", headers={"X-Note": "\x1b[31mred"}),
        "a byte at a time": _Answer(slow=0.2),
        "nothing more": _Answer(stop=99, hangs=True),
    }


_STATUSES = (201, 204, 206, 301, 304, 400, 401, 403, 404, 408, 416, 429, 500, 502, 503, 504)


def prepare(root: Path) -> None:
    """Writes the file that is right, and another one."""
    for seed, name in enumerate(("right.npz", "other.npz")):
        rng = np.random.default_rng(seed)
        np.savez(root / name, kernel=rng.normal(size=(40 + seed, 40)).astype(np.float32))


def cases(root: Path) -> list[Case]:
    """Each answer, to all requests, to the first, and to one for the rest; each cached file."""
    listed = [Case("downloads", "server", "none", "always", group="(undamaged)")]
    for variant in ("always", "once", "to a resumed part"):
        listed += [
            Case("downloads", "server", damage, variant, group=f"server, {variant}")
            for damage in _answers(b"content", b"other")
        ]
    for suffix in ("", ".download.json", ".lock", ".part"):
        case = Case("downloads", suffix, "none", "cache", group=f"cache: NAME{suffix}")
        listed += cases_of(case, _donors(root, case), flips=6)
    return listed


def run(case: Case, root: Path, scratch: Path) -> Ending:
    """Starts with the damage, then with a server that is well."""
    content, other = ((root / name).read_bytes() for name in ("right.npz", "other.npz"))
    file = scratch / "cache" / _PATH
    with _server(content) as storage, _settings(scratch, storage.server_port):
        if case.variant == "cache":
            _fill_cache(case, file, storage)
            apply(case, Path(f"{file}{case.file}"), _donors(root, case))
        elif case.damage != "none":
            if case.variant == "to a resumed part":
                _receive_part(storage)
            bad = _answers(content, other)[case.damage]
            storage.plan = [bad] * (1 if case.variant == "once" else 4)
        first = call(_start)
        if fault := fault_of(first):
            return fault
        storage.plan = []
        second = call(_start)
        with np.load(root / "right.npz") as archive:
            return judge(case, first, second, _arrays(archive), asked=storage.asked)


def judge(case: Case, first: Output, second: Output, whole: object, *, asked: int) -> Ending:
    """How two starts ended.

    Args:
      first: its value is what the program read from the file.
      second: the same of the start with a server that is well.
      whole: the same of the right file.
      asked: requests that the server had.
    """
    if fault := fault_of(second):
        return fault
    if first.error is None and first.value != whole:
        return Ending(End.WRONG, "the first start reads other numbers")
    if second.error is not None:
        # What was damaged here, and not by the server, may need a hand.
        end = End.REFUSED if case.variant == "cache" else End.LOST
        return Ending(end, f"for good: {second.error}")
    if second.value != whole:
        return Ending(End.WRONG, "the second start reads other numbers")
    if first.error is not None:
        return Ending(End.REFUSED, first.error)
    is_cached = case.variant == "cache"
    return Ending(End.AGAIN if asked > (0 if is_cached else 1) else End.EQUAL)


def _start() -> dict[str, bytes]:
    """Fetches the file and reads its arrays, as a start of the program does."""
    from vit_jax.weights.archives import open_arrays
    from vit_jax.weights.catalogue.download import STORAGE, fetch

    return _arrays(open_arrays(fetch(f"{STORAGE}/{_PATH}")))


def _arrays(archive: Mapping[str, object]) -> dict[str, bytes]:
    return {name: np.asarray(archive[name]).tobytes() for name in archive}


def _fill_cache(case: Case, file: Path, storage: "_Storage") -> None:
    """A cache with the whole file or, if that is damaged, with a part of it."""
    if case.file == ".part":
        _receive_part(storage)
    else:
        call(_start)
    storage.asked = 0


def _receive_part(storage: "_Storage") -> None:
    """A start that ends with a part of the file in the cache."""
    storage.plan = [_Answer(stop=len(storage.content) // 3), *[_Answer(500, b"no")] * 9]
    call(_start)
    storage.plan, storage.asked = [], 0


def _donors(root: Path, case: Case) -> Donors:
    donor = root / "other.npz"
    return Donors(None, donor if case.file in ("", ".part") else None)


@contextlib.contextmanager
def _settings(scratch: Path, port: int) -> Iterator[None]:
    """An own cache, the local server, and patience of seconds instead of minutes."""
    from vit_jax.weights.catalogue import download, receiving

    with contextlib.ExitStack() as stack:
        values = {
            "VIT_JAX_CACHE": str(scratch / "cache"),
            "VIT_JAX_STORAGE": f"http://127.0.0.1:{port}",
            "NO_PROXY": "127.0.0.1",
        }
        stack.enter_context(mock.patch.dict(os.environ, values))
        stack.enter_context(mock.patch.object(download, "RETRY_DELAYS", (0.001, 0.001)))
        stack.enter_context(mock.patch.object(receiving, "TIMEOUTS", (3.0, 3.0)))
        stack.enter_context(mock.patch.object(receiving, "WINDOW", 2.0))
        yield


class _Storage(ThreadingHTTPServer):
    """A server of one file, which answers as planned and then rightly."""

    daemon_threads = True

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.asked = content, 0
        self.plan: list[_Answer] = []
        self.over = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        storage = self.server
        assert isinstance(storage, _Storage)
        storage.asked += 1
        answer, content = storage.plan.pop(0) if storage.plan else _Answer(), storage.content
        md5 = hashlib.md5(content).digest()
        etag, start, status = f'"{md5.hex()}"', 0, answer.status
        asked = self.headers.get("Range")
        headers: dict[str, str | None] = {"ETag": etag}
        if asked and self.headers.get("If-Range") == etag and answer.body is None:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            is_within = start < len(content)
            status, span = (206, f"{start}-{len(content) - 1}") if is_within else (416, "*")
            headers["Content-Range"] = f"bytes {span}/{len(content)}"
        body = (content if answer.body is None else answer.body)[start:]
        headers["Content-Length"] = str(len(body))
        headers["x-goog-hash"] = f"md5={base64.b64encode(md5).decode()}"
        self.send_response(status)
        for name, value in (headers | answer.headers).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # The program need not listen to the end.
            self._send(body[: answer.stop], answer.slow)
            if answer.hangs:
                storage.over.wait(60)

    def _send(self, body: bytes, slow: float) -> None:
        storage = self.server
        assert isinstance(storage, _Storage)
        for i in range(0, len(body), 1 if slow else 2**20):
            if storage.over.is_set():
                return
            self.wfile.write(body[i : i + (1 if slow else 2**20)])
            time.sleep(slow)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _server(content: bytes) -> Iterator[_Storage]:
    storage = _Storage(content)
    threading.Thread(target=storage.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield storage
    finally:
        storage.over.set()
        storage.shutdown()
        storage.server_close()
