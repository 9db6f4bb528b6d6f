"""The loader: from workers or threads to batches on the devices. Nothing here is random."""

import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal, Self

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from vit_jax.data.batches import Chunks
from vit_jax.data.workers import in_workers
from vit_jax.errors import UserError

# The arrays of `batch_spec` by name.
Batch = dict[str, jax.Array]

_log = logging.getLogger(__name__)

# Batches that wait on the devices.
_DEVICE_PREFETCH = 2
_READ_THREADS = 4
_CHUNKS_PER_THREAD = 2


def local_rows(batch_size: int, sharding: NamedSharding) -> np.ndarray:
    """The rows of a batch that this process's devices hold, ascending."""
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in indices]))


class Loader:
    """Iterates over the batches of steps [start, stop) of `chunks`, prefetched to the devices.

    A batch holds the arrays of `batch_spec`, global and sharded over the mesh.

    Args:
      workers: processes that decode and crop; 0 does it in threads of this process.
      on_error: what an image that cannot be read does, besides weight 0: "stop" raises a
        UserError, "skip" logs a line, "ignore" does nothing.
      on_error_flag: how a user sets `on_error`, for messages.

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
        on_error_flag: str = "--config.data.on_error",
    ) -> None:
        self.waited = 0.0
        self._sharding = sharding
        self._chunks = chunks
        self._on_error, self._on_error_flag = on_error, on_error_flag
        self._stop, self._workers = stop, workers
        self._start(start)

    def _start(self, start: int) -> None:
        self._queue: queue.Queue[Batch | BaseException | None] = queue.Queue(_DEVICE_PREFETCH)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._fill, args=(start,), name="loader", daemon=True
        )
        self._thread.start()

    def restart(self, start: int) -> None:
        """Continues with the batches of steps [start, stop), with new workers."""
        self.close()
        self._start(start)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        began = time.perf_counter()
        item = self._queue.get()
        self.waited += time.perf_counter() - began
        if isinstance(item, dict):
            return item
        self._queue.put(item)  # Every further call gets the same answer.
        if item is None:
            raise StopIteration
        raise item

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers and waits for them."""
        self._closed.set()
        self._thread.join()

    def _fill(self, start: int) -> None:
        chunks: Any = None
        try:
            chunks = _read(self._chunks, start, self._stop, self._workers)
            for _ in range(start, self._stop):
                self._put(self._assemble(chunks))
            self._put(None)
        except _Closed:
            pass
        except BaseException as error:  # Raised again in the consumer's thread.
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
                f"{errors[0]}; mend or remove it, or leave such images out: "
                f"{self._on_error_flag}=skip"
            )
        for error in errors if self._on_error == "skip" else ():
            _log.warning("skipped %s", error)
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


def _read(chunks: Chunks, start: int, stop: int, workers: int) -> Any:
    per_batch = chunks.chunks_per_batch
    if workers:
        return in_workers(chunks, start * per_batch, stop * per_batch, workers)
    dataset = grain.MapDataset.source(ChunksUntil(chunks, stop * per_batch))[start * per_batch :]
    threads = min(_READ_THREADS, os.cpu_count() or 1)
    options = grain.ReadOptions(threads, threads * _CHUNKS_PER_THREAD)
    return iter(dataset.to_iter_dataset(options))


class ChunksUntil:
    """The chunks before an end, as a sequence: Grain wants a length."""

    def __init__(self, chunks: Chunks, length: int) -> None:
        self._chunks, self._length = chunks, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._chunks[index]
