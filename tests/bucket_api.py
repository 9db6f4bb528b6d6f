"""What a bucket's server answers: the JSON API of Google Cloud Storage, and its uploads.

https://cloud.google.com/storage/docs/json_api/v1; uploads are simple, multipart or resumable.
"""

import json
import re
import secrets
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from tests.bucket_faults import CHANGES, Faults
from tests.bucket_objects import Objects, Refused, Stored, Upload


@dataclass
class Answer:
    """What goes back: a status, headers and bytes, half of them where it is cut."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


@dataclass
class Request:
    """One request, taken apart.

    Attributes:
      parts: of the path, decoded, without what all paths begin with.
      query: the last value of each name.
      conditions: `ifGenerationMatch` and the like, from the query or from headers.
    """

    method: str
    path: str
    parts: list[str]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def conditions(self) -> dict[str, str]:
        given = {n: v for n, v in self.query.items() if "eneration" in n}
        for name, header in (("Match", "match"), ("NotMatch", "not-match")):
            if f"x-goog-if-generation-{header}" in self.headers:
                given[f"ifGeneration{name}"] = self.headers[f"x-goog-if-generation-{header}"]
        return given

    @property
    def kind(self) -> str:
        """A member of `bucket_faults.KINDS` or `OTHER_KINDS`."""
        if self.path.startswith("/upload/"):
            return "create" if self.conditions.get("ifGenerationMatch") == "0" else "write"
        if len(self.parts) < 3:
            return "bucket" if self.parts[-1] != "o" else "list"
        if self.parts[-1] == "o" and len(self.parts) == 3:
            return "list"
        if self.method == "GET" and self.query.get("alt") == "media":
            return "ranged read" if "range" in self.headers else "read"
        return {"GET": "stat", "DELETE": "delete"}.get(self.method, "copy")


@dataclass
class Bucket:
    """A server's objects, its faults, and where it listens.

    Attributes:
      uploads: resumable ones by their number.
      closing: set when the server ends, so that nobody waits longer.
    """

    objects: Objects = field(default_factory=Objects)
    faults: Faults = field(default_factory=Faults)
    uploads: dict[str, Upload] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def environment(self) -> dict[str, str]:
        """What leads gcsfs and TensorStore here, in this process or in others."""
        return {
            "STORAGE_EMULATOR_HOST": self.address,
            "TENSORSTORE_GCS_HTTP_URL": self.address,
            # Nobody is asked for credentials.
            "GCE_METADATA_ROOT": self.address.removeprefix("http://"),
            "NO_GCE_CHECK": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def answer(self, request: Request) -> Answer | None:
        """The answer to one request, None if its connection ends without one."""
        if request.path == "/counts":
            return _json([[*key, n] for key, n in sorted(self.faults.counts.items())])
        if request.path == "/faults":
            self.faults.set(json.loads(request.body))
            return _json({})
        if not request.parts:
            return Answer(404)  # Such as a question for credentials.
        kind = request.kind
        if self.faults.is_silent:
            self.closing.wait()
            return None
        how = self.faults.next(kind)
        time.sleep(self.faults.latency)
        if self.faults.access == "none" or (self.faults.access == "read" and kind in CHANGES):
            return _refusal(
                403, f"Permission denied for this {kind} on resource (or it may not exist)"
            )
        if how in ("503", "429"):
            return _refusal(int(how), "We encountered an internal error. Please try again.")
        try:
            answer = self.serve(request)
        except Refused as refused:
            answer = _refusal(refused.status, str(refused))
        if how == "late":
            self.closing.wait(self.faults.late)
        answer.is_cut = how == "cut"
        return answer

    def serve(self, request: Request) -> Answer:
        """Does what is asked for."""
        match [request.method, *request.parts]:
            case ["POST", "b"]:
                name = json.loads(request.body)["name"]
                self.objects.buckets.setdefault(name, {})
                return _json({"kind": "storage#bucket", "name": name})
            case ["GET", "b", name]:
                self.objects.bucket(name)
                return _json({"kind": "storage#bucket", "name": name, "id": name})
            case ["GET", "b", name, "storageLayout"]:
                self.objects.bucket(name)
                return _json({"kind": "storage#storageLayout", "bucket": name})
            case ["POST" | "PUT" | "DELETE", "b", name, "o"]:
                return self.upload(name, request)
            case ["GET", "b", name, "o"]:
                return _json(self.objects.list(name, request.query))
            case ["GET", "b", name, "o", key]:
                stored = self.objects.find(name, key, request.conditions)
                return self.read(stored, request)
            case ["DELETE", "b", name, "o", key]:
                self.objects.delete(name, key, request.conditions)
                return Answer(204)
            case ["POST", "b", name, "o", key, "compose"]:
                wanted = [part["name"] for part in json.loads(request.body)["sourceObjects"]]
                data = b"".join(self.objects.find(name, part, {}).data for part in wanted)
                kind = "application/octet-stream"
                stored = self.objects.write(name, key, data, kind, request.conditions)
                return _json(stored.resource())
            case ["POST", "b", name, "o", key, "moveTo", "o", target]:
                stored = self.copy(name, key, name, target, request)
                self.objects.delete(name, key, {})
                return _json(stored.resource())
            case [
                "POST",
                "b",
                name,
                "o",
                key,
                "copyTo" | "rewriteTo" as way,
                "b",
                other,
                "o",
                target,
            ]:
                resource = self.copy(name, key, other, target, request).resource()
                if way == "copyTo":
                    return _json(resource)
                size = {"totalBytesRewritten": resource["size"], "objectSize": resource["size"]}
                return _json(
                    {"kind": "storage#rewriteResponse", "done": True}
                    | size
                    | {"resource": resource}
                )
        raise Refused(501, f"{request.method} {request.path} is not known here.")

    def copy(self, name: str, key: str, other: str, target: str, request: Request) -> Stored:
        """Copies an object, also to another bucket."""
        source = self.objects.find(name, key, {})
        return self.objects.write(
            other, target, source.data, source.content_type, request.conditions
        )

    def read(self, stored: Stored, request: Request) -> Answer:
        """Metadata, or bytes: all of them or one range."""
        if request.query.get("alt") != "media":
            return _json(stored.resource())
        headers = {
            "Content-Type": stored.content_type,
            "X-Goog-Generation": str(stored.generation),
            "X-Goog-Metageneration": "1",
            "ETag": f'"{stored.generation}"',
            "Accept-Ranges": "bytes",
        }
        if "range" not in request.headers:
            return Answer(200, stored.data, headers)
        size = len(stored.data)
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            return Answer(416, b"", {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return Answer(206, stored.data[start:stop], headers)

    def upload(self, bucket: str, request: Request) -> Answer:
        """https://cloud.google.com/storage/docs/uploads-downloads: the three ways."""
        query, kind = request.query, request.headers.get("content-type", "")
        if "upload_id" in query:
            if request.method == "DELETE":
                self.uploads.pop(query["upload_id"], None)
                return Answer(499)
            upload = self.uploads.get(query["upload_id"])
            if upload is None:
                raise Refused(410, "The upload is not known.")
            content_range = request.headers.get("content-range")
            received = self.objects.receive(upload, content_range, request.body)
            if upload.done is not None:
                return _json(upload.done.resource())
            return Answer(308, b"", {"Range": f"bytes=0-{received - 1}"} if received else {})
        if query.get("uploadType") == "resumable":
            described = json.loads(request.body or b"{}")
            name = query.get("name") or described["name"]
            content_type = request.headers.get("x-upload-content-type", "application/octet-stream")
            key = secrets.token_hex(8)
            self.objects.bucket(bucket)
            self.uploads[key] = Upload(bucket, name, content_type, request.conditions)
            way = {n: v for n, v in query.items() if n == "ifGenerationMatch"}
            target = urllib.parse.urlencode({"uploadType": "resumable", "upload_id": key, **way})
            return Answer(200, b"", {"Location": f"{self.address}{request.path}?{target}"})
        data, name = request.body, query.get("name", "")
        if query.get("uploadType") == "multipart":
            described, kind, data = _two_parts(kind, request.body)
            name = described.get("name", name)
        return _json(self.objects.write(bucket, name, data, kind, request.conditions).resource())


def _two_parts(content_type: str, body: bytes) -> tuple[dict[str, Any], str, bytes]:
    """Metadata, the data's type, and the data of a multipart upload."""
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)
    if boundary is None:
        raise Refused(400, "A multipart upload names its boundary.")
    line = b"--" + boundary.group(1).encode()
    _, first, rest = body.split(line, 2)
    second = rest.rpartition(line)[0]
    described = re.split(rb"\r?\n\r?\n", first, maxsplit=1)[1]
    head, data = re.split(rb"\r?\n\r?\n", second, maxsplit=1)
    kind = head.decode().partition(":")[2].strip()
    return json.loads(described), kind, data.removesuffix(b"\n").removesuffix(b"\r")


def _refusal(status: int, message: str) -> Answer:
    return _json({"error": {"code": status, "message": message}}, status)
