import io
import operator
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.data.listed import Listed
from vit_jax.data.batches import Chunks
from vit_jax.data.config import DataConfig
from vit_jax.data.images.transforms import make_transform
from vit_jax.data.loader import Loader, local_rows
from vit_jax.data.sources.records import Record
from vit_jax.errors import UserError
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import batch_sharding
from vit_jax.preprocessing import PreprocessingConfig

# Large, so that a batch is four chunks.
SIZE = (400, 900)
BATCH = 10


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


RECORDS = [Record(png(i), i, f"folder/{i}.png") for i in range(32)]
BROKEN = [r._replace(image=b"junk") if r.label == 3 else r for r in RECORDS]
INCOMPLETE = {-1 if i == 25 else i: record for i, record in enumerate(RECORDS)}


@pytest.fixture(scope="module")
def sharding():
    return batch_sharding(make_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.fixture
def open_loader(sharding):
    """Opens loaders, and closes them after the test."""
    opened = []

    def open_(
        source=RECORDS, transform=None, *, batch_size=BATCH, shuffle=False, workers=0, **options
    ) -> Loader:
        transform = transform or make_transform(SIZE, PreprocessingConfig(), DataConfig("./x"))
        rows = local_rows(batch_size, sharding)
        records = Listed(source)
        chunks = Chunks(records, transform, SIZE, rows, batch_size, seed=5, shuffle=shuffle)
        assert chunks.chunk_rows == 3
        options = {"start": 0, "stop": 1000, "on_error": "stop"} | options
        opened.append(Loader(chunks, sharding, workers=workers, **options))
        return opened[-1]

    yield open_
    for loader in opened:
        loader.close()


def descendants(pid: int) -> set[int]:
    """Processes below `pid`, but for multiprocessing's own tracker, which lives on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_text()
            except OSError:
                continue
            if "resource_tracker" not in command:
                children.setdefault(parent, []).append(int(entry.name))
    found, new = set(), [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found.update(new)
    return found


def shared_memory() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith("psm_")}


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def arrays(loader: Loader) -> list[dict[str, np.ndarray]]:
    return [{k: np.asarray(v) for k, v in batch.items()} for batch in loader]


def assert_same(a: list, b: list) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_batches_do_not_depend_on_workers_or_the_start(open_loader):
    whole = arrays(open_loader(shuffle=True, stop=7))
    assert len(whole) == 7
    first = whole[0]
    assert {key: (value.dtype, value.shape) for key, value in first.items()} == {
        "images": (np.uint8, (BATCH, *SIZE, 3)),
        "labels": (np.int32, (BATCH,)),
        "weights": (np.float32, (BATCH,)),
    }
    for workers, start in ((0, 4), (1, 3), (3, 0)):
        loader = open_loader(shuffle=True, workers=workers, start=start, stop=7)
        assert_same(arrays(loader), whole[start:])


def test_rows_are_the_steps_of_chunks(open_loader):
    found = np.concatenate([batch["labels"] for batch in arrays(open_loader(start=1, stop=6))])
    # 32 records fill four batches of ten; then they come again.
    once = [*range(32), *[-1] * 8]
    assert found.tolist() == once[10:] + once[:20]


def test_the_end_stays_the_end(open_loader):
    loader = open_loader(stop=1)
    assert len(list(loader)) == 1
    assert list(loader) == list(loader) == []
    assert list(open_loader(start=4, stop=4)) == []


def test_stop_names_the_file_at_every_call(open_loader):
    loader = open_loader(BROKEN)
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            next(loader)
        message = str(caught.value)
        assert message.startswith("folder/3.png: cannot read the image (not in a known format); ")
        assert message.endswith("--config.data.on_error=skip")


def test_skip_counts_and_names_them(open_loader, caplog):
    batch = next(open_loader(BROKEN, on_error="skip"))
    weights = np.asarray(batch["weights"])
    assert weights.tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 1, 1]
    named = [line for line in caplog.messages if "folder/" in line]
    assert len(named) == 1
    assert "folder/3.png: cannot read the image (not in a known format)" in named[0]


def test_a_fault_in_a_thread_reaches_the_consumer(open_loader):
    loader = open_loader({0: RECORDS[0], 7: RECORDS[7]})
    with pytest.raises(KeyError) as caught:
        next(loader)
    assert "batches.py" in "".join(traceback.format_exception(caught.value))


@linux
def test_a_fault_in_a_worker_reaches_the_consumer(open_loader):
    before = descendants(os.getpid())
    loader = open_loader(INCOMPLETE, workers=1)
    next(loader)
    next(loader)
    with pytest.raises(KeyError, match="25") as caught:
        next(loader)
    # With the place in the worker's code.
    assert "batches.py" in "".join(traceback.format_exception(caught.value))
    loader.close()
    assert descendants(os.getpid()) == before


@linux
def test_closing_in_the_middle_is_quick_and_leaves_nothing(open_loader):
    before, memory = descendants(os.getpid()), shared_memory()
    loader = open_loader(workers=2)
    next(loader)
    assert len(descendants(os.getpid()) - before) == 2
    began = time.perf_counter()
    loader.close()
    assert time.perf_counter() - began < 5
    assert descendants(os.getpid()) == before
    # Grain frees what was handed over in a thread of its own.
    deadline = time.perf_counter() + 5
    while shared_memory() - memory and time.perf_counter() < deadline:
        time.sleep(0.05)
    assert not shared_memory() - memory
    loader.close()


@linux
def test_a_killed_worker_is_an_error_of_the_consumer(open_loader):
    before = descendants(os.getpid())
    loader = open_loader(workers=1)
    next(loader)
    (worker,) = descendants(os.getpid()) - before
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="terminated unexpectedly"):
        for _ in range(20):
            next(loader)


def test_workers_keep_off_the_accelerator(open_loader):
    """A transform that returns the setting as a UserError's text, seen from outside."""

    class Report:
        def __reduce__(self):
            # Unpickled in the worker: the value of JAX's own setting there.
            return operator.attrgetter("config.jax_platforms"), (jax,)

    loader = open_loader([Record(b"", 0, "x")] * BATCH, Report(), workers=1)
    # What was unpickled is called as a transform: 'str' object is not callable.
    with pytest.raises(TypeError, match="'str' object is not callable"):
        next(loader)


def test_closing_does_not_wait_for_the_rest_of_a_batch(open_loader):
    def slow(data, rng):
        time.sleep(0.1)
        return np.zeros((*SIZE, 3), np.uint8)

    # The batch takes four threads at least 300 * 0.1 / 4 = 7.5 seconds.
    loader = open_loader(transform=slow, batch_size=300, on_error="skip")
    time.sleep(0.1)
    began = time.perf_counter()
    loader.close()
    assert time.perf_counter() - began < 2


def test_waited_is_the_consumers_wait(open_loader):
    def delayed(seconds):
        def transform(data, rng):
            time.sleep(seconds)
            return np.zeros((*SIZE, 3), np.uint8)

        return transform

    slow = open_loader(transform=delayed(0.02), stop=6)
    began = time.perf_counter()
    list(slow)
    assert slow.waited == pytest.approx(time.perf_counter() - began, rel=0.2)
    fast = open_loader(transform=delayed(0), stop=6)
    next(fast)
    before = fast.waited
    for _ in range(5):
        time.sleep(0.1)
        next(fast)
    assert fast.waited - before < 0.15


KILLED = """
import os, sys
from tests.data.listed import Listed
from vit_jax.data.batches import Chunks
from vit_jax.data.config import DataConfig
from vit_jax.data.images.transforms import make_transform
from vit_jax.data.loader import Loader, local_rows
from vit_jax.data.sources.records import Record
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import batch_sharding
from vit_jax.preprocessing import PreprocessingConfig

if __name__ == "__main__":
    sharding = batch_sharding(make_mesh(MeshConfig()))
    image = open(sys.argv[1], "rb").read()
    transform = make_transform((8, 8), PreprocessingConfig(), DataConfig("./x"))
    rows = local_rows(8, sharding)
    source = Listed([Record(image, 0, "x")] * 32)
    chunks = Chunks(source, transform, (8, 8), rows, 8, 0, True)
    loader = Loader(chunks, sharding, start=0, stop=10**6, workers=2, on_error="stop")
    next(loader)
    print("ready", flush=True)
    while True:
        next(loader)
"""


@linux
def test_a_killed_parent_takes_its_workers_along(tmp_path):
    (tmp_path / "image.png").write_bytes(png(0))
    (tmp_path / "job.py").write_text(KILLED)
    memory = shared_memory()
    command = [sys.executable, "job.py", "image.png"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as job:
        assert job.stdout.readline() == b"ready\n"
        workers = descendants(job.pid)
        assert len(workers) == 2
        job.kill()
    deadline = time.perf_counter() + 15
    while time.perf_counter() < deadline:
        left = [pid for pid in workers if _is_running(pid)]
        if not left and not shared_memory() - memory:
            return
        time.sleep(0.1)
    raise AssertionError(f"still there: processes {left}, {shared_memory() - memory}")


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


EIGHT_DEVICES = """
import jax
import numpy as np
from jax.sharding import Mesh

from tests.data.listed import Listed
from vit_jax.data.batches import Chunks
from vit_jax.data.images.decoding import ImageError
from vit_jax.data.loader import Loader, local_rows
from vit_jax.data.sources.records import Record
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import batch_sharding

assert len(jax.devices()) == 8
whole = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
assert local_rows(16, batch_sharding(whole)).tolist() == list(range(16))

source = Listed([Record(bytes([i]), i, str(i)) for i in range(20)])
transform = lambda data, rng: np.full((2, 2, 3), data[0], np.uint8)
for config in (MeshConfig(), MeshConfig(fsdp=4), MeshConfig(data=2, fsdp=2, tensor=2)):
    sharding = batch_sharding(make_mesh(config))
    chunks = Chunks(source, transform, (2, 2), local_rows(16, sharding), 16, 0, False)
    with Loader(chunks, sharding, start=0, stop=2, workers=0, on_error="stop") as loader:
        batches = list(loader)
    for batch in batches:
        for array in batch.values():
            assert array.sharding == sharding and len(array.addressable_shards) == 8
            assert array.addressable_shards[0].data.shape[0] == 16 // (8 // config.tensor)
    labels = np.concatenate([batch["labels"] for batch in batches])
    assert labels.tolist() == list(range(20)) + [-1] * 12
    images = np.concatenate([batch["images"] for batch in batches])
    assert (images == np.maximum(labels, 0)[:, None, None, None]).all()


class TwoProcesses:
    '''A sharding as one of two processes sees it, whose devices hold the given slices.'''

    def __init__(self, *slices):
        self.slices = slices

    def addressable_devices_indices_map(self, shape):
        return {i: (piece,) for i, piece in enumerate(self.slices)}


# Rows need not be contiguous, and several devices may hold the same ones.
scattered = TwoProcesses(slice(12, 16), slice(0, 4), slice(12, 16), slice(0, 4))
assert local_rows(16, scattered).tolist() == [0, 1, 2, 3, 12, 13, 14, 15]
assert local_rows(16, TwoProcesses(slice(None))).tolist() == list(range(16))
"""


def test_on_eight_devices():
    flags = "--xla_force_host_platform_device_count=8"
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_too_little_shared_memory_is_told_before_any_worker_starts(open_loader, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=2**10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="/dev/shm has 0 MiB free, .*config.data.workers=3 needs"):
        next(open_loader(workers=3))
