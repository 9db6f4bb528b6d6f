"""The loader: worker processes, the threads between them and the devices, and nothing random."""

import logging
import multiprocessing
import os
import queue
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal, Self

import grain
import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding

from vit_jax.data.batches import Chunks
from vit_jax.errors import UserError

# The arrays of `batch_spec` by name.
Batch = dict[str, jax.Array]

_log = logging.getLogger(__name__)

# Batches that wait on the devices, and chunks that wait in each worker.
_DEVICE_PREFETCH = 2
_WORKER_PREFETCH = 2
_READ_THREADS = 4
_SHARED_MEMORY = "/dev/shm"


def local_rows(batch_size: int, sharding: NamedSharding) -> np.ndarray:
    """The rows of a batch that this process's devices hold, ascending."""
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in indices]))


class Loader:
    """Iterates over the batches of steps [start, stop) of `chunks`, prefetched to the devices.

    A batch holds the arrays of `batch_spec`, global and sharded over the mesh.

    Args:
      on_error: "stop" raises a UserError at the first image that cannot be read; "skip" logs each,
        "ignore" does not: the reader finds weight 0.

    Raises:
      UserError: there is too little shared memory for the workers.

    Attributes:
      waited: seconds that the consumer has spent waiting for batches.
    """

    def __init__(
        self,
        chunks: Chunks,
        sharding: NamedSharding,
        *,
        start: int,
        stop: int,
        workers: int,
        on_error: Literal["stop", "skip", "ignore"],
    ):
        if workers:
            _check_shared_memory(chunks, workers)
        self.waited = 0.0
        self._sharding = sharding
        self._chunks = chunks
        self._on_error = on_error
        self._queue: queue.Queue[Batch | BaseException | None] = queue.Queue(_DEVICE_PREFETCH)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._fill, args=(start, stop, workers), name="loader", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        began = time.perf_counter()
        item = self._queue.get()
        self.waited += time.perf_counter() - began
        if isinstance(item, dict):
            return item
        self._queue.put(item)  # The last one: whoever asks again gets the same answer.
        if item is None:
            raise StopIteration
        raise item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers and waits for them."""
        self._closed.set()
        self._thread.join()

    def _fill(self, start: int, stop: int, workers: int) -> None:
        chunks = None
        try:
            chunks = iter(_read(self._chunks, start, stop, workers))
            for _ in range(start, stop):
                self._put(self._assemble(chunks))
            self._put(None)
        except _Closed:
            pass
        except BaseException as error:  # Handed to the consumer, whose thread it concerns.
            self._put(error)
        finally:
            if chunks is not None:
                chunks.close()

    def _put(self, item: Batch | BaseException | None) -> None:
        """Waits for room in the queue, unless the loader is closed meanwhile."""
        while not self._closed.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue

    def _assemble(self, chunks: Iterator[dict[str, Any]]) -> Batch:
        pieces = []
        for _ in range(self._chunks.chunks_per_batch):
            if self._closed.is_set():
                raise _Closed
            pieces.append(next(chunks))
        errors = tuple(error for piece in pieces for error in piece["errors"])
        if errors and self._on_error == "stop":
            raise UserError(
                f"{errors[0]}; mend or remove it, or go on without such images with "
                "--config.data.on_error=skip"
            )
        for error in errors if self._on_error == "skip" else ():
            _log.warning("left out: %s", error)
        return {
            name: self._to_devices(np.concatenate([piece[name] for piece in pieces]))
            for name in self._chunks.spec
        }

    def _to_devices(self, local: np.ndarray) -> jax.Array:
        rows = self._chunks.rows

        def shard(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            first, last, _ = index[0].indices(self._chunks.batch_size)
            return local[np.searchsorted(rows, first) : np.searchsorted(rows, last)]

        shape = (self._chunks.batch_size, *local.shape[1:])
        return jax.make_array_from_callback(shape, self._sharding, shard)


class _Closed(Exception):
    """The loader was closed in the middle of a batch."""


class _EndlessChunks:
    """Chunks as a data set of Grain, which wants a length."""

    def __init__(self, chunks: Chunks, length: int):
        self._chunks, self._length = chunks, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._chunks[index]


def _read(chunks: Chunks, start: int, stop: int, workers: int) -> grain.IterDataset:
    per_batch = chunks.chunks_per_batch
    source = _EndlessChunks(chunks, stop * per_batch)
    dataset = grain.MapDataset.source(source)[start * per_batch :]
    if workers == 0:
        threads = min(_READ_THREADS, os.cpu_count() or 1)
        return dataset.to_iter_dataset(grain.ReadOptions(threads, threads * _WORKER_PREFETCH))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own; their defaults will do.
    # No threads within the workers, which read ahead as it is.
    options = grain.MultiprocessingOptions(workers, _WORKER_PREFETCH)
    return dataset.to_iter_dataset(grain.ReadOptions(0, 0)).mp_prefetch(options, _start_worker)


def _check_shared_memory(chunks: Chunks, workers: int) -> None:
    """Workers hand over their chunks in shared memory, of which containers may have little.

    Raises:
      UserError: there is too little of it.
    """
    height, width = chunks.size
    # Of each worker: the chunks that wait, one that it makes, and one that is being copied.
    needed = workers * (_WORKER_PREFETCH + 2) * chunks.chunk_rows * height * width * 3
    if os.path.isdir(_SHARED_MEMORY):
        free = shutil.disk_usage(_SHARED_MEMORY).free
        if free < needed:
            raise UserError(
                f"{_SHARED_MEMORY} has {free // 2**20} MiB free, and config.data.workers={workers} "
                f"needs {-(-needed // 2**20)}; enlarge it (docker run --shm-size), or use fewer "
                "workers"
            )


def _start_worker(index: int, count: int) -> None:
    """Runs first in each worker process."""
    del index, count
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group: the main process, which may
    # have a state to save first, ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Should the host code ever touch JAX, it must not take the accelerator. JAX is imported by
    # now and reads its environment no more.
    jax.config.update("jax_platforms", "cpu")
    # Not getppid: the parent may have died while this process was starting.
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent.pid,), daemon=True).start()


def _die_with(parent: int | None) -> None:
    """Ends this process when its parent is gone, be it by SIGKILL."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
