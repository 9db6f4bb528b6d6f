"""A run's claim on its directory in a bucket."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.bucket_api import Bucket
from vit_jax.errors import StorageError, TakenOverError, UserError
from vit_jax.runs.claim import Claim, Intervals
from vit_jax.storage import objects
from vit_jax.storage.fences import NotNow, fences

RUN = "gs://bkt/run"
QUICK = Intervals(renew=0.1, stale=1.0, watch=0.05)

pytestmark = pytest.mark.usefixtures("bucket")


@pytest.fixture
def claim() -> Iterator[Claim]:
    """A claim on the directory, held by this process."""
    held = Claim(RUN, intervals=QUICK)
    yield held
    held.release()


def _claim_of_another_host() -> None:
    content = {"host": "tpu-worker-3", "process": 41, "released": False}
    objects.write_bytes(f"{RUN}/lock", json.dumps(content).encode())


def test_a_claim_says_whose_it_is(claim: Claim) -> None:
    content = json.loads(objects.read_bytes(f"{RUN}/lock"))
    assert (content["host"], content["process"]) == (socket.gethostname(), os.getpid())


def test_a_directory_in_use_is_refused(claim: Claim) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"in use by another run, on host .*process {os.getpid()}"):
        Claim(RUN, intervals=QUICK)
    assert time.monotonic() - began < QUICK.stale
    claim.check()


def test_a_claim_that_was_released_lets_the_next_run_in_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Claim(RUN, intervals=QUICK).release()
    Claim(RUN, intervals=Intervals(stale=1000)).release()
    assert caplog.text == ""


@pytest.mark.parametrize("clock", [0.0, 4e9])
def test_a_claim_that_nobody_renews_is_taken_over_whatever_the_clock_says(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, clock: float
) -> None:
    monkeypatch.setattr(time, "time", lambda: clock)
    _claim_of_another_host()
    began = time.monotonic()
    Claim(RUN, intervals=QUICK).release()
    assert QUICK.stale <= time.monotonic() - began < QUICK.stale + 5
    assert "the run on host tpu-worker-3, process 41 has not been heard of for 1 s" in caplog.text


def test_of_several_only_one_takes_over() -> None:
    _claim_of_another_host()
    held, refused = [], []

    def take() -> None:
        try:
            held.append(Claim(RUN, intervals=QUICK))
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 3)
    held[0].release()


def test_who_was_taken_over_writes_nothing_more(claim: Claim, bucket: Bucket) -> None:
    objects.write_bytes(f"{RUN}/metrics.jsonl", b"first")
    _claim_of_another_host()
    deadline = time.monotonic() + 10
    with pytest.raises(TakenOverError, match="another run on host tpu-worker-3, process 41"):
        while time.monotonic() < deadline:
            claim.check()
            time.sleep(0.02)
    theirs = objects.read_bytes(f"{RUN}/lock")
    large = bytes(51 * 2**20)
    for change in (
        lambda: objects.write_bytes(f"{RUN}/metrics.jsonl", b"second"),
        lambda: objects.write_bytes(f"{RUN}/weights.npz", large),
        lambda: objects.write_if(f"{RUN}/new", b"", None),
        lambda: objects.delete(f"{RUN}/metrics.jsonl"),
        lambda: objects.move(f"{RUN}/metrics.jsonl", f"{RUN}/other"),
    ):
        with pytest.raises(TakenOverError):
            change()
    objects.write_bytes(f"{RUN}-2/file", b"")  # Another directory is as it was.
    claim.release()
    assert objects.list_files(RUN) == {"lock": len(theirs), "metrics.jsonl": 5}
    assert objects.read_bytes(f"{RUN}/lock") == theirs


def test_changes_wait_for_a_renewal_that_is_late() -> None:
    held = Claim(RUN, intervals=Intervals(renew=100, stale=0.4))
    fences.check(f"{RUN}/file")
    time.sleep(0.35)  # The next run may take over soon.
    with pytest.raises(NotNow):
        fences.check(f"{RUN}/file")
    fences.check(f"{RUN}/lock")
    held.release()
    fences.check(f"{RUN}/file")


def test_a_renewal_whose_answer_is_lost_is_no_loss(claim: Claim, bucket: Bucket) -> None:
    bucket.faults.inject("write", "cut", every=3)
    time.sleep(1)
    assert bucket.faults.counts["write", "cut"]
    claim.check()


def test_a_renewal_that_was_written_without_any_answer_is_no_loss(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_if, silent = objects.write_if, threading.Event()

    def without_answer(path: str, data: bytes, known: str | None) -> str | None:
        written = write_if(path, data, known)
        if known is not None and not silent.is_set():
            silent.set()
            raise StorageError("no good answer in 120 s")
        return written

    monkeypatch.setattr(objects, "write_if", without_answer)
    held = Claim(RUN, intervals=QUICK)
    assert silent.wait(10)
    time.sleep(1.5 * QUICK.stale)
    held.check()
    fences.check(f"{RUN}/file")
    held.release()
    assert json.loads(objects.read_bytes(f"{RUN}/lock"))["released"]
    assert "could not be renewed" in caplog.text


def test_a_release_after_a_renewal_without_any_answer_lets_the_next_run_in() -> None:
    held = Claim(RUN, intervals=Intervals(renew=1000))
    # As if the answers to a renewal had been lost, all of them.
    objects.write_bytes(f"{RUN}/lock", held._content())
    held.release()
    assert json.loads(objects.read_bytes(f"{RUN}/lock"))["released"]
