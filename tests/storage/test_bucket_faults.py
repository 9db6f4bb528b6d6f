"""Answers of a bucket that fail: what is asked for again, how often, and what a person reads."""

import json
import logging
import math
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import pytest

from tests.bucket_api import Bucket
from tests.bucket_faults import HOWS
from vit_jax.errors import StorageError
from vit_jax.storage import objects, retrying

FILE = "gs://bkt/run/file"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between tries, for five seconds in all."""
    patience = retrying.Patience(first=0.01, longest=0.05, total=5)
    monkeypatch.setattr(retrying.retrying, "patience", patience)
    monkeypatch.setattr(retrying.retrying, "_said", -math.inf)  # As if no test came before.


def _done(change: Callable[..., None], *arguments: object) -> bool:
    change(*arguments)
    return True


# What is asked for, and what must come of it.
REQUESTS: dict[str, Callable[[int], bool]] = {
    "create": lambda n: objects.write_if(f"{FILE}-{n}", f"mine {n}".encode(), None) is not None,
    "ranged read": lambda _: objects.read_bytes(FILE, 2, 5) == b"234",
    "list": lambda _: "file" in objects.list_names("gs://bkt/run"),
    "write": lambda n: _done(objects.write_bytes, f"{FILE}+{n}", b"x" * n),
    "delete": lambda n: _done(objects.delete, f"{FILE}-{n}"),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_each_request_is_made_again_until_it_is_answered(bucket: Bucket, kind: str) -> None:
    """Each of four faults meets ten requests of each kind; every third answer is good."""
    bucket.faults.late = 0.05
    objects.write_bytes(FILE, b"0123456789")
    for number in range(40):
        objects.write_bytes(f"{FILE}-{number}", b"") if kind == "delete" else None
    bucket.faults.inject(kind, *HOWS, every=2)
    number = 0
    while min(bucket.faults.counts[kind, how] for how in HOWS) < 10:
        assert REQUESTS[kind](number % 40 if kind == "delete" else number)
        number += 1
    bucket.faults.inject(kind)
    names = objects.list_files("gs://bkt/run")
    if kind == "create":
        read = {n: objects.read_bytes(f"{FILE}-{n}").decode() for n in range(number)}
        assert read == {n: f"mine {n}" for n in range(number)}
    if kind == "write":
        assert all(names[f"file+{n}"] == n for n in range(number))
    if kind == "delete":
        assert not [name for name in names if name.startswith("file-") and int(name[5:]) < number]


def test_a_bucket_that_fails_for_long_is_named(
    bucket: Bucket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = retrying.Patience(first=0.01, longest=0.05, total=0.3)
    monkeypatch.setattr(retrying.retrying, "patience", patience)
    bucket.faults.inject("read", "503")
    with caplog.at_level(logging.WARNING), pytest.raises(StorageError) as raised:
        objects.read_bytes(FILE)
    assert f"reading {FILE}: no good answer in" in str(raised.value)
    assert "check the network and the name" in str(raised.value)
    assert any(f"reading {FILE} failed" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("access", "message"),
    [("read", "no access"), ("none", "roles/storage.objectUser")],
)
def test_no_access(bucket: Bucket, access: str, message: str) -> None:
    bucket.faults.access = access
    with pytest.raises(StorageError, match=message):
        objects.write_bytes(FILE, b"")


def test_a_bucket_that_is_not_there(bucket: Bucket) -> None:
    del bucket
    with pytest.raises(StorageError, match="there is no such bucket; correct the name"):
        objects.write_bytes("gs://nowhere/file", b"")
    with pytest.raises(StorageError, match="there is no such bucket"):
        objects.read_bytes("gs://nowhere/file")


def test_the_server_as_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "tests.bucket_server"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    settings = {"inject": [{"kind": "read", "hows": ["503"], "every": 2}]}
    urllib.request.urlopen(f"{address}/faults", json.dumps(settings).encode()).read()
    objects.write_bytes(FILE, b"abc")
    for _ in range(3):
        assert objects.read_bytes(FILE) == b"abc"
    counts = json.load(urllib.request.urlopen(f"{address}/counts"))
    assert ["read", "503", 2] in counts
    process.kill()
    process.communicate()
