"""Objects of a bucket as Google Cloud Storage keeps them: generations, conditions and lists."""

import base64
import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
      status: of HTTP.
    """

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Stored:
    """One generation of an object."""

    bucket: str
    name: str
    data: bytes
    generation: int
    content_type: str = "application/octet-stream"

    def resource(self) -> dict[str, Any]:
        """https://cloud.google.com/storage/docs/json_api/v1/objects#resource."""
        written = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.generation / 1e6))
        written += f".{self.generation // 1000 % 1000:03d}Z"
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "bucket": self.bucket,
            "name": self.name,
            "size": str(len(self.data)),
            "generation": str(self.generation),
            "metageneration": "1",
            "contentType": self.content_type,
            "md5Hash": base64.b64encode(hashlib.md5(self.data).digest()).decode(),
            "etag": str(self.generation),
            "timeCreated": written,
            "updated": written,
            "storageClass": "STANDARD",
        }


@dataclass
class Upload:
    """A resumable upload that is on its way, or has arrived."""

    bucket: str
    name: str
    content_type: str
    conditions: Mapping[str, str]
    data: bytes = b""
    done: Stored | None = None


@dataclass
class Objects:
    """Buckets and their objects; every change is made under one lock.

    Attributes:
      page_size: entries of one page of a list.
    """

    buckets: dict[str, dict[str, Stored]] = field(default_factory=dict)
    page_size: int = 1000
    lock: threading.RLock = field(default_factory=threading.RLock)
    last: int = 0

    def bucket(self, name: str) -> dict[str, Stored]:
        """The objects of a bucket by their names."""
        if name not in self.buckets:
            raise Refused(404, "The specified bucket does not exist.")
        return self.buckets[name]

    def find(self, bucket: str, name: str, conditions: Mapping[str, str]) -> Stored:
        """The object; 404 without it, 412 or 304 where it does not meet the conditions."""
        with self.lock:
            stored = self.bucket(bucket).get(name)
        _check(stored, conditions)
        wanted = conditions.get("generation")
        if stored is None or wanted not in (None, str(stored.generation)):
            raise Refused(404, f"No such object: {bucket}/{name}")
        return stored

    def write(
        self, bucket: str, name: str, data: bytes, kind: str, conditions: Mapping[str, str]
    ) -> Stored:
        """Writes the object in the place of one that meets the conditions, or refuses with 412."""
        with self.lock:
            objects = self.bucket(bucket)
            _check(objects.get(name), conditions)
            # As the service's: microseconds, and never the same twice.
            self.last = max(self.last + 1, time.time_ns() // 1000)
            objects[name] = Stored(bucket, name, data, self.last, kind)
            return objects[name]

    def delete(self, bucket: str, name: str, conditions: Mapping[str, str]) -> None:
        """Removes the object; 404 without it."""
        with self.lock:
            self.find(bucket, name, conditions)
            del self.buckets[bucket][name]

    def list(self, bucket: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of names from `pageToken` on: objects, and prefixes up to the delimiter."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        first = max(query.get("startOffset", ""), query.get("pageToken", ""))
        before = query.get("endOffset") or chr(0x10FFFF)
        limit = min(int(query.get("maxResults") or self.page_size), self.page_size)
        items: list[dict[str, Any]] = []
        prefixes: list[str] = []
        page = {"kind": "storage#objects", "items": items, "prefixes": prefixes}
        with self.lock:
            objects = sorted(self.bucket(bucket).items())
        for name, stored in objects:
            if not (name.startswith(prefix) and first <= name < before):
                continue
            folder, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("",) * 3
            if found and prefixes and prefixes[-1] == prefix + folder + found:
                continue
            if len(items) + len(prefixes) == limit:
                return page | {"nextPageToken": name}
            if found:
                prefixes.append(prefix + folder + found)
            else:
                items.append(stored.resource())
        return page

    def receive(self, upload: Upload, content_range: str | None, body: bytes) -> int:
        """Takes a part of a resumable upload: `bytes FIRST-LAST/TOTAL` or `bytes */TOTAL`.

        Returns:
          Bytes that are there. `upload.done` is set when they are all.
        """
        place, _, total = (content_range or "bytes 0-/*").removeprefix("bytes ").partition("/")
        with self.lock:
            if upload.done is not None:
                return len(upload.data)  # The answer to the last part was lost, and it came again.
            if place != "*":
                first = int(place.partition("-")[0])
                if first > len(upload.data):
                    raise Refused(503, "A part before this one is missing.")
                upload.data = upload.data[:first] + body
            if content_range is None or total == str(len(upload.data)):
                upload.done = self.write(
                    *(upload.bucket, upload.name, upload.data),
                    *(upload.content_type, upload.conditions),
                )
            return len(upload.data)

    def add_folder(self, folder: Path, bucket: str, prefix: str) -> None:
        """Copies the files of a folder to names under the prefix."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = f"{prefix}/{file.relative_to(folder).as_posix()}"
                self.write(bucket, name, file.read_bytes(), "application/octet-stream", {})


def _check(stored: Stored | None, conditions: Mapping[str, str]) -> None:
    """https://cloud.google.com/storage/docs/request-preconditions."""
    generation = str(stored.generation) if stored else "0"
    if conditions.get("ifGenerationMatch", generation) != generation:
        raise Refused(412, "At least one of the pre-conditions you specified did not hold.")
    if conditions.get("ifGenerationNotMatch") == generation:
        raise Refused(304 if stored else 412)
