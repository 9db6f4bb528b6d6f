import io
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from PIL import Image

from tests.data.listed import Listed
from tests.eight_devices import EightDevices
from tests.programs.loader_on_meshes import check_batches
from vit_jax.data.batches import Chunks, Transform
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
TRANSFORM = make_transform(SIZE, PreprocessingConfig(), DataConfig("./x"))
INCOMPLETE = {-1 if i == 25 else i: record for i, record in enumerate(RECORDS)}


@pytest.fixture(scope="module")
def sharding() -> NamedSharding:
    return batch_sharding(make_mesh(MeshConfig(), jax.devices()[:1]))


class Opener(Protocol):
    """Opens a loader of some records that is closed after the test."""

    def __call__(
        self,
        source: Iterable[Record] | Mapping[int, Record] = ...,
        transform: Transform = ...,
        *,
        batch_size: int = ...,
        shuffle: bool = ...,
        workers: int = ...,
        start: int = ...,
        stop: int = ...,
        on_error: Literal["stop", "skip", "ignore"] = ...,
    ) -> Loader: ...


@pytest.fixture
def open_loader(sharding: NamedSharding) -> Iterator[Opener]:
    opened = []

    def open_(
        source: Iterable[Record] | Mapping[int, Record] = RECORDS,
        transform: Transform = TRANSFORM,
        *,
        batch_size: int = BATCH,
        shuffle: bool = False,
        workers: int = 0,
        start: int = 0,
        stop: int = 1000,
        on_error: Literal["stop", "skip", "ignore"] = "stop",
    ) -> Loader:
        rows, records = local_rows(batch_size, sharding), Listed(source)
        chunks = Chunks(records, transform, SIZE, rows, batch_size, seed=5, shuffle=shuffle)
        assert chunks.chunk_rows == 3
        opened.append(
            Loader(chunks, sharding, start=start, stop=stop, workers=workers, on_error=on_error)
        )
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


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def arrays(loader: Loader) -> list[dict[str, np.ndarray]]:
    return [{k: np.asarray(v) for k, v in batch.items()} for batch in loader]


def assert_same(a: list[dict[str, np.ndarray]], b: list[dict[str, np.ndarray]]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_batches_do_not_depend_on_workers_or_the_start(open_loader: Opener) -> None:
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


def test_rows_are_the_steps_of_chunks(open_loader: Opener) -> None:
    found = np.concatenate([batch["labels"] for batch in arrays(open_loader(start=1, stop=6))])
    # 32 records fill four batches of ten; then they come again.
    once = [*range(32), *[-1] * 8]
    assert found.tolist() == once[10:] + once[:20]


def test_the_end_stays_the_end(open_loader: Opener) -> None:
    loader = open_loader(stop=1)
    assert len(list(loader)) == 1
    assert list(loader) == list(loader) == []
    assert list(open_loader(start=4, stop=4)) == []


def test_stop_names_the_file_at_every_call(open_loader: Opener) -> None:
    loader = open_loader(BROKEN)
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            next(loader)
        message = str(caught.value)
        assert message.startswith("folder/3.png: cannot read the image (not in a known format); ")
        assert message.endswith("--config.data.on_error=skip")


def test_skip_counts_and_names_them(open_loader: Opener, caplog: pytest.LogCaptureFixture) -> None:
    batch = next(open_loader(BROKEN, on_error="skip"))
    weights = np.asarray(batch["weights"])
    assert weights.tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 1, 1]
    named = [line for line in caplog.messages if "folder/" in line]
    assert len(named) == 1
    assert "folder/3.png: cannot read the image (not in a known format)" in named[0]


def test_a_fault_in_a_thread_reaches_the_consumer(open_loader: Opener) -> None:
    loader = open_loader({0: RECORDS[0], 7: RECORDS[7]})
    with pytest.raises(KeyError) as caught:
        next(loader)
    assert "batches.py" in "".join(traceback.format_exception(caught.value))


@linux
def test_a_fault_in_a_worker_reaches_the_consumer(open_loader: Opener) -> None:
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
def test_closing_in_the_middle_is_quick_and_leaves_nothing(open_loader: Opener) -> None:
    before = descendants(os.getpid())
    loader = open_loader(workers=2)
    next(loader)
    assert len(descendants(os.getpid()) - before) == 2
    began = time.perf_counter()
    loader.close()
    assert time.perf_counter() - began < 5
    assert descendants(os.getpid()) == before
    loader.close()


@linux
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (
            signal.SIGKILL,
            r"was killed \(SIGKILL\), most likely by the system because memory ran out",
        ),
        (signal.SIGSEGV, r"has crashed \(SIGSEGV\)"),
    ],
)
def test_a_killed_worker_is_one_line(
    number: signal.Signals, words: str, open_loader: Opener
) -> None:
    before = descendants(os.getpid())
    loader = open_loader(workers=1)
    next(loader)
    (worker,) = descendants(os.getpid()) - before
    os.kill(worker, number)
    with pytest.raises(UserError, match=f"data worker {worker} {words}; use fewer workers"):
        for _ in range(20):
            next(loader)


@linux
def test_signals_to_the_group_do_not_reach_workers(open_loader: Opener) -> None:
    before = descendants(os.getpid())
    loader = open_loader(workers=2)
    while len(workers := descendants(os.getpid()) - before) < 2:
        time.sleep(0.01)
    for worker in workers:  # From the very beginning.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(worker, number)
    for _ in range(3):
        next(loader)


@linux
def test_nothing_that_workers_hand_over_has_a_name(open_loader: Opener) -> None:
    """So nothing is left behind, whoever is killed; and a small /dev/shm is enough."""
    before = set(os.listdir("/dev/shm"))
    loader = open_loader(workers=2, shuffle=True)
    next(loader)
    own = [Path(f"/proc/{pid}/fd") for pid in [os.getpid(), *descendants(os.getpid())]]
    opened = {os.readlink(fd) for folder in own for fd in folder.iterdir() if fd.is_symlink()}
    assert not {path for path in opened if path.startswith("/dev/shm/")}
    maps = [(folder.parent / "maps").read_text() for folder in own]
    # The locks of multiprocessing are unlinked as soon as they are made.
    lines = [line for text in maps for line in text.splitlines() if "/dev/shm/sem." not in line]
    assert not any("/dev/shm/" in line for line in lines)
    assert not {n for n in set(os.listdir("/dev/shm")) - before if n.startswith("psm_")}


def test_workers_keep_off_the_accelerator(open_loader: Opener) -> None:
    def report(data: bytes, rng: np.random.Generator) -> np.ndarray:
        raise UserError(f"platforms: {jax.config.values['jax_platforms']}")

    loader = open_loader([Record(b"", 0, "x")] * BATCH, report, workers=1)
    with pytest.raises(UserError) as caught:
        next(loader)
    assert str(caught.value) == "platforms: cpu"


def test_closing_does_not_wait_for_the_rest_of_a_batch(open_loader: Opener) -> None:
    def slow(data: bytes, rng: np.random.Generator) -> np.ndarray:
        time.sleep(0.1)
        return np.zeros((*SIZE, 3), np.uint8)

    # The batch takes four threads at least 300 * 0.1 / 4 = 7.5 seconds.
    loader = open_loader(transform=slow, batch_size=300, on_error="skip")
    time.sleep(0.1)
    began = time.perf_counter()
    loader.close()
    assert time.perf_counter() - began < 2


def test_waited_is_the_consumers_wait(open_loader: Opener) -> None:
    def delayed(seconds: float) -> Transform:
        def transform(data: bytes, rng: np.random.Generator) -> np.ndarray:
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


@linux
@pytest.mark.parametrize(("number", "group"), [(signal.SIGKILL, False), (signal.SIGHUP, True)])
def test_a_killed_parent_takes_its_workers_along(
    number: signal.Signals, group: bool, tmp_path: Path
) -> None:
    before = set(os.listdir("/dev/shm"))
    (tmp_path / "image.png").write_bytes(png(0))
    command = [sys.executable, "-m", "tests.programs.loader_forever"]
    with subprocess.Popen(
        [*command, str(tmp_path / "image.png")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"ready\n"
        workers = descendants(job.pid)
        assert len(workers) == 2
        (os.killpg if group else os.kill)(job.pid, number)
    left = set(workers)
    deadline = time.perf_counter() + 15
    while time.perf_counter() < deadline:
        left = {pid for pid in workers if _is_running(pid)}
        if not left:
            new = set(os.listdir("/dev/shm")) - before
            assert not {name for name in new if name.startswith(("psm_", "sem.mp-"))}
            return
        time.sleep(0.1)
    raise AssertionError(f"still there: processes {left}")


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_batches_lie_on_the_devices_of_any_mesh(eight_devices: EightDevices) -> None:
    eight_devices.run(check_batches)
