"""A Hugging Face Hub on this machine: repositories that tests fill, and its ways to refuse.

It answers what `huggingface_hub` asks for models: `/api/models/…` with the commit and the files of
a revision, and `/ORG/NAME/resolve/REVISION/FILE` with the bytes.
"""

import contextlib
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by their hash, and the branches and tags that name them."""

    commits: dict[str, Files] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    is_gated: bool = False

    def commit(self, files: Files, *names: str) -> str:
        """Adds a commit, to which `main` or other names lead from now on."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[commit] = files
        self.names |= dict.fromkeys(names or ("main",), commit)
        return commit


@dataclass
class Hub:
    """The server's repositories, and what it was asked.

    Attributes:
      tokens: of those who may read all; empty lets everybody.
      lost: bytes at the end of each file that never come.
      asked: method and path of each request, and who asked.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    lost: int = 0
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    address: str = ""

    def add(self, name: str, files: Files, *names: str) -> str:
        """Adds a commit to a repository; returns its hash."""
        return self.repositories.setdefault(name, Repository()).commit(files, *names)

    def downloaded(self) -> list[str]:
        """Names of the files whose bytes were asked for, in order."""
        return [p.rpartition("/")[2] for m, p, _ in self.asked if m == "GET" and "/resolve/" in p]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        path = urllib.parse.urlsplit(handler.path).path
        who = handler.headers.get("authorization")
        self.asked.append((handler.command, path, who))
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        is_api = parts[:2] == ["api", "models"]
        parts = parts[2:] if is_api else parts
        repository = self.repositories.get("/".join(parts[:2]))
        is_known = not self.tokens or (who or "").removeprefix("Bearer ") in self.tokens
        if repository is None or (not is_known and not repository.is_gated):
            return _send(handler, 404 if is_known else 401, error="RepoNotFound")
        revision = parts[3] if len(parts) > 3 else "main"
        commit = repository.names.get(revision, revision)
        if commit not in repository.commits:
            return _send(handler, 404, error="RevisionNotFound")
        files = repository.commits[commit]
        if is_api:
            listed = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            body = {"id": "/".join(parts[:2]), "sha": commit, "siblings": listed}
            return _send(handler, 200, json.dumps(body).encode())
        if repository.is_gated and not is_known:
            return _send(handler, 401 if who is None else 403, error="GatedRepo")
        name = "/".join(parts[4:])
        if name not in files:
            return _send(handler, 404, error="EntryNotFound", commit=commit)
        return _send(handler, 200, files[name], commit=commit, lost=self.lost)


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    *,
    error: str | None = None,
    commit: str | None = None,
    lost: int = 0,
) -> None:
    handler.send_response(status)
    headers = {"Content-Length": str(len(body)), "X-Error-Code": error, "X-Repo-Commit": commit}
    if status == 200:
        headers["ETag"] = f'"{hashlib.sha1(body).hexdigest()}"'
    for name, value in headers.items():
        if value is not None:
            handler.send_header(name, value)
    handler.end_headers()
    if handler.command == "GET":
        with contextlib.suppress(OSError):
            handler.wfile.write(body[: len(body) - lost])


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A Hub while the context is open."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.answer(self)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes it the Hub of this process, whose library has read its environment already."""
    from huggingface_hub import constants

    for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def read_folder(folder: Path) -> Files:
    """The files of a folder, as a commit holds them."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}
