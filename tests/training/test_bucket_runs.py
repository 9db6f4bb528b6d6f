"""Runs of two hosts that share nothing but a bucket: data from it, and the run's directory in it.

Each host is a process with a directory of its own. They are killed, refused, and served answers
that fail; what they leave must equal, bit for bit, what an undisturbed run leaves.
"""

import io
import json
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import bucket_server
from tests.bucket_api import Bucket
from tests.bucket_faults import HOWS, KINDS
from tests.real_processes import by_flags, finish, start_on, wait_for_line
from tests.small_models import TINY_FLAGS

ROOT = Path(__file__).parents[2]
RUN = [
    *("train", "--config=configs/quickstart.py", *TINY_FLAGS),
    *("--config.model.dropout=0.1", "--config.data.batch_size=32", "--config.data.affine=none"),
    *("--config.optimizer.micro_batches=2", "--config.optimizer.warmup_steps=2"),
    *("--config.optimizer.average=0.9", "--config.log_every=7"),
    *("--config.checkpoint.every_steps=10", "--config.evals.test.every_steps=25"),
    *("--config.data.dataset=gs://bkt/digits/{train,test}-{0..1}.tar", "--config.total_steps=60"),
    "--report=off",
]
# Seconds after which a run takes over from one that was killed; where answers take 5, as many
# times more as in use.
STALE, LATE_STALE = 2.0, 30.0
Hosts = list[subprocess.Popen[str]]


@pytest.fixture(scope="module")
def served() -> Iterator[Bucket]:
    """A bucket with 96 images of two classes in tars."""
    with bucket_server.serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(ROOT))
        rng = np.random.default_rng(0)
        for split, images in (("train", 32), ("test", 16)):
            for shard in range(2):
                data = tar_of(rng, images, shard * images)
                name = f"digits/{split}-{shard}.tar"
                server.objects.write("bkt", name, data, "application/x-tar", {})
        yield server


def tar_of(rng: np.random.Generator, images: int, first: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(first, first + images):
            label = number % 2
            pixels = rng.integers(0, 128, (8, 8, 3), dtype=np.uint8) + np.uint8(127 * label)
            image = io.BytesIO()
            Image.fromarray(pixels).save(image, "PNG")
            for suffix, content in (("png", image.getvalue()), ("cls", f"{label}".encode())):
                about = tarfile.TarInfo(f"{number:05}.{suffix}")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    return file.getvalue()


def start(
    tmp_path: Path,
    workdir: str,
    count: int = 2,
    *,
    name: str = "host",
    stale: float = STALE,
    options: Sequence[str] = (),
) -> Hosts:
    """Starts the run on hosts of their own, or goes on with it."""

    def launch(count: int, index: int, port: int) -> tuple[list[str], dict[str, str]]:
        flags, variables = by_flags(count, index, port)
        return flags, variables | {"HOST_DIRECTORY": str(tmp_path / f"{name}{index}")}

    program = "import os, runpy, sys; sys.argv.insert(1, os.environ['HOST_DIRECTORY'])"
    program += "; runpy.run_module('tests.programs.host', run_name='__main__')"
    command = [sys.executable, "-c", program, str(stale), *RUN, *options]
    command += [f"--workdir={workdir}"]
    return start_on((count, 1), command, launch)


def kill(hosts: Hosts, which: Sequence[int]) -> None:
    """Kills some of the hosts; the others notice, and end."""
    for index in which:
        hosts[index].send_signal(signal.SIGKILL)
    for host in hosts:
        host.communicate(timeout=120)


def results(bucket: Bucket, workdir: str) -> tuple[list[dict[str, Any]], bytes]:
    """The metrics without times, and the final weights."""
    objects, prefix = bucket.objects.buckets["bkt"], workdir.removeprefix("gs://bkt/")
    names = sorted(name for name in objects if name.startswith(f"{prefix}/metrics.jsonl"))
    lines = b"".join(objects[name].data for name in names).splitlines()
    metrics = [
        {k: v for k, v in json.loads(line).items() if not k.startswith(("time/", "memory/"))}
        for line in lines
    ]
    return metrics, objects[f"{prefix}/weights.npz"].data


@pytest.fixture(scope="module")
def whole(served: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What two hosts leave that nothing disturbed."""
    workdir = "gs://bkt/runs/whole"
    finish(start(tmp_path_factory.mktemp("whole"), workdir))
    found = results(served, workdir)
    assert found[0][-1]["step"] == 60
    return found


def has(bucket: Bucket, part: str) -> Callable[[], bool]:
    """Whether there is an object whose name holds a text."""
    return lambda: any(part in name for name in [*bucket.objects.buckets["bkt"]])


def wait_until(condition: Callable[[], bool], hosts: Hosts) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert all(host.poll() is None for host in hosts), hosts[0].communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.005)


def test_killed_refused_and_resumed(served: Bucket, whole: Any, tmp_path: Path) -> None:
    """One process is killed at a step; a third start while both run is refused."""
    workdir = "gs://bkt/runs/killed_once"
    hosts = start(tmp_path, workdir)
    wait_for_line(hosts[0], "step 14/60")
    # Host 0 waits for it, and its claim is renewed all the same.
    hosts[1].send_signal(signal.SIGSTOP)
    third = start(tmp_path, workdir, 1, name="third")
    output, _ = third[0].communicate(timeout=60)
    assert third[0].returncode == 2
    assert "is in use by another run, on host" in output.splitlines()[-1]
    hosts[1].send_signal(signal.SIGCONT)
    kill(hosts, [0])
    outputs = finish(start(tmp_path, workdir))
    assert "this one takes over" in outputs[0] and "resuming after step" in outputs[0]
    assert results(served, workdir) == whole
    # Nothing of the run lies on the hosts.
    left = [p for p in tmp_path.rglob("*") if p.name in ("metrics.jsonl", "config.json")]
    assert left == []


def _moments(bucket: Bucket, prefix: str) -> dict[str, Callable[[Hosts], None]]:
    """What is waited for before a kill, by the moment."""
    return {
        "the first compile": lambda hosts: wait_until(has(bucket, f"{prefix}/config"), hosts),
        "a save": lambda hosts: wait_until(has(bucket, f"{prefix}/checkpoints/"), hosts),
        "a step": lambda hosts: wait_for_line(hosts[0], "step 21/60"),
        "an evaluation": lambda hosts: wait_for_line(hosts[0], "step 28/60"),
        "a restore": lambda hosts: wait_for_line(hosts[0], "resuming after step"),
        "the end": lambda hosts: wait_for_line(hosts[0], "step 60: test"),
    }


@pytest.mark.slow
def test_killed_at_each_moment(served: Bucket, whole: Any, tmp_path: Path) -> None:
    """One process, then both, at the moments at which runs on a disk are killed."""
    for which in ([0], [1], [0, 1]):
        workdir = f"gs://bkt/runs/killed_{'_'.join(map(str, which))}"
        prefix = workdir.removeprefix("gs://bkt/")
        for moment, wait in _moments(served, prefix).items():
            hosts = start(tmp_path, workdir)
            wait(hosts)
            kill(hosts, which)
            assert not has(served, f"{prefix}/weights.npz")(), moment
        finish(start(tmp_path, workdir))
        assert results(served, workdir) == whole, which


# Every n-th request of a kind fails. Process 1 waits for process 0 in collectives of CPUs, which
# give up after half a minute, so that not all requests may be late.
EVERY = {"create": 2, "delete": 6, "list": 6, "write": 8, "ranged read": 20}
ENOUGH = 10


@pytest.mark.slow
def test_answers_that_fail_change_nothing(served: Bucket, whole: Any, tmp_path: Path) -> None:
    """Runs until each kind of request has met each fault ten times, and a kill each run."""
    faults = served.faults
    faults.counts.clear()
    faults.late = 5.0
    ended = threading.Event()
    watch = threading.Thread(target=_inject_until_enough, args=(served, ended))
    watch.start()
    try:
        for number in range(12):
            workdir = f"gs://bkt/runs/faults_{number}"
            hosts = start(tmp_path, workdir, stale=LATE_STALE)
            wait_for_line(hosts[0], "step 14/60")
            kill(hosts, [number % 2])
            hosts = start(tmp_path, workdir, stale=LATE_STALE)
            outputs = [host.communicate(timeout=900)[0] for host in hosts]
            for host, output in zip(hosts, outputs, strict=True):
                assert host.returncode == 0, output
            assert results(served, workdir) == whole
            if _least(served) >= ENOUGH:
                break
    finally:
        ended.set()
        watch.join()
    assert _least(served) >= ENOUGH, faults.counts


def _inject_until_enough(bucket: Bucket, ended: threading.Event) -> None:
    """Lets each kind of request meet the faults that it has met too rarely."""
    injected: dict[str, list[str]] = {}
    while not ended.wait(0.2):
        for kind in KINDS:
            rare = [how for how in HOWS if bucket.faults.counts[kind, how] < ENOUGH]
            if rare != injected.get(kind):
                bucket.faults.inject(kind, *rare, every=EVERY[kind])
                injected[kind] = rare
    for kind in KINDS:
        bucket.faults.inject(kind)


def _least(bucket: Bucket) -> int:
    """How often the rarest of all faults has met its kind of request."""
    return min(bucket.faults.counts[kind, how] for kind in KINDS for how in HOWS)
