"""Google Cloud Storage on this machine: what gcsfs and TensorStore ask for, and answers that fail.

A test opens it in its own process with `serving()`. A process of its own starts with

    python -m tests.bucket_server --port=9023

and prints its address; there, faults are set by a POST to `/faults` (`Faults.set`), and a GET of
`/counts` tells how many requests of each kind had which.
"""

import argparse
import contextlib
import os
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.bucket_api import Answer, Bucket, Request

# What tests call their bucket.
NAME = "bkt"


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[Bucket]:
    """A server with an empty bucket called NAME, while the context is open."""
    bucket = Bucket()
    bucket.objects.buckets[NAME] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # One packet for headers and body: two would wait for each other.
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            # A client that was killed, or has waited long enough, is gone.
            with contextlib.suppress(ConnectionError):
                return super().handle_one_request()
            self.close_connection = True

        def do_GET(self) -> None:
            _send(self, bucket.answer(_read(self)))

        do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # Two processes with many threads of TensorStore.

    server = Server(("127.0.0.1", port), Handler)
    bucket.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield bucket
    finally:
        bucket.closing.set()
        server.shutdown()
        server.server_close()


def _read(handler: BaseHTTPRequestHandler) -> Request:
    split = urllib.parse.urlsplit(handler.path)
    for root in ("/upload/storage/v1/", "/download/storage/v1/", "/storage/v1/"):
        inside = split.path.removeprefix(root)
        if inside != split.path:
            parts = [urllib.parse.unquote(part) for part in inside.strip("/").split("/")]
            break
    else:
        parts = []
    return Request(
        handler.command,
        split.path,
        parts,
        dict(urllib.parse.parse_qsl(split.query, keep_blank_values=True)),
        {name.lower(): value for name, value in handler.headers.items()},
        _body(handler),
    )


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("transfer-encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("content-length") or 0))
    body = b""
    while size := int(handler.rfile.readline().partition(b";")[0], 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


def _send(handler: BaseHTTPRequestHandler, answer: Answer | None) -> None:
    """Sends an answer; one that is cut ends in the middle of its body, or without a word."""
    if answer is None or (answer.is_cut and not answer.body):
        return _hang_up(handler)
    handler.send_response(answer.status)
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    if answer.status not in (204, 304):
        handler.send_header("Content-Length", str(len(answer.body)))
    handler.end_headers()
    handler.wfile.write(answer.body[: len(answer.body) // 2] if answer.is_cut else answer.body)
    handler.wfile.flush()
    if answer.is_cut:
        _hang_up(handler)


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def main(port: int) -> None:
    parent = os.getppid()
    with serving(port) as bucket:
        print(bucket.address, flush=True)
        while os.getppid() == parent:  # Whoever started it may have been killed.
            time.sleep(0.5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    main(parser.parse_args().port)
