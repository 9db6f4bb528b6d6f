"""A storage of released files on this machine, which can fail in the ways that servers do."""

import base64
import contextlib
import hashlib
import io
import random
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from vit_jax.weights.catalogue.download import STORAGE

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
HTML = b"<!DOCTYPE html><html>Please sign in</html>"


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
