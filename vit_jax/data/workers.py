"""Worker processes that make the chunks of batches.

They may be started from a notebook or any script: the user's main module is not run again in them,
so it needs no `if __name__ == "__main__"`. Chunks are sent to them pickled. Classes of the main
module and of config files are pickled by value, because a worker cannot import them.

A worker puts its result into anonymous shared memory and sends the file descriptor over a socket.
So nothing is left behind, however a process ends, and the size of /dev/shm is no limit. Grain and
PyTorch use named segments in /dev/shm, so this is our own code.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import multiprocessing
import multiprocessing.spawn
import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Generator
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import IO, Any, NamedTuple, Protocol

import cloudpickle

from vit_jax.config import MODULE_PREFIX
from vit_jax.errors import UserError

# Chunks that wait in each worker.
PREFETCH = 2
_PROCESS_NAME = "vit_jax-data"
# These reach a whole process group: Ctrl-C, a scheduler's notice, a closed terminal. The main
# process may have to save its state first, and ends its workers itself.
_NOT_FOR_WORKERS = [
    getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)
]


class _Source(Protocol):
    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection[bytes, Any]


def in_workers(
    source: _Source, start: int, stop: int, count: int, option: str = "config.data.workers"
) -> Generator[dict[str, Any]]:
    """Yields `source[start]` to `source[stop - 1]`, made by `count` worker processes.

    What goes wrong in a worker is raised here. Closing the generator ends the workers.

    Args:
      option: what a person set to `count`, for messages.

    Raises:
      UserError: a worker was killed.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(MODULE_PREFIX):
            cloudpickle.register_pickle_by_value(module)
    pickled = cloudpickle.dumps(source)
    workers: list[_Worker] = []
    # Runs when the interpreter exits, before multiprocessing waits for its processes.
    end = util.Finalize(None, _end, (workers,), exitpriority=1)
    try:
        for first in range(start, min(start + count, stop)):
            workers.append(_start(pickled, range(first, stop, count)))
        for index in range(start, stop):
            yield _take(workers[(index - start) % count], option)
    finally:
        end()


def _start(pickled: bytes, indices: range) -> _Worker:
    _leave_main_alone()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work,
        args=(theirs, pickled, indices),
        name=f"{_PROCESS_NAME}-{indices.start}",
        daemon=True,
    )
    # A process that starts inherits what is blocked, and has no handler for it yet.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_WORKERS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    worker = _Worker(process, ours)
    for _ in range(PREFETCH):
        _ask(worker)
    return worker


def _ask(worker: _Worker) -> None:
    """Lets a worker make one more chunk."""
    with contextlib.suppress(OSError):  # It may have ended; that is told when its chunk is due.
        worker.connection.send_bytes(b"+")


def _take(worker: _Worker, option: str) -> dict[str, Any]:
    try:
        value = _receive(worker.connection)
    except (EOFError, OSError):
        raise _death(worker.process, option) from None
    _ask(worker)
    if isinstance(value, _Failure):
        raise value.error
    return value


def _death(process: BaseProcess, option: str) -> UserError:
    process.join(10)
    code = process.exitcode
    if code is None or code >= 0:
        how = f"has ended (exit code {code})"
    elif -code == signal.SIGKILL:
        how = "was killed (SIGKILL), most likely by the system because memory ran out"
    else:
        how = f"has crashed ({signal.Signals(-code).name})"
    return UserError(
        f"data worker {process.pid} {how}; use fewer workers ({option}) or more memory, "
        "or 0 workers to see what happens in this process"
    )


def _end(workers: list[_Worker]) -> None:
    """Ends workers at once: they have nothing to save, and own nothing that has a name."""
    for worker in workers:
        worker.connection.close()
        worker.process.kill()
    for worker in workers:
        worker.process.join()
    workers.clear()


@functools.cache
def _leave_main_alone() -> None:
    """Keeps multiprocessing from running the user's main module in workers.

    Without `if __name__ == "__main__"` each worker would start the whole program again. A worker
    needs nothing of that module: what is defined there is pickled by value.
    """
    prepare = multiprocessing.spawn.get_preparation_data

    def prepare_without_main(name: str) -> dict[str, Any]:
        data = prepare(name)
        if name.startswith(_PROCESS_NAME):
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    multiprocessing.spawn.get_preparation_data = prepare_without_main


# In the worker process.


class _Failure(NamedTuple):
    """What a worker sends in the place of a chunk."""

    error: Exception


def _work(connection: Connection[Any, bytes], pickled: bytes, indices: range) -> None:
    """Makes one chunk after the other, each when it is asked for."""
    _be_a_worker()
    try:
        source = None
        for index in indices:
            connection.recv_bytes()
            try:
                source = cloudpickle.loads(pickled) if source is None else source
                value = source[index]
            except Exception as error:
                _send(connection, _Failure(_portable(error)))
                return
            _send(connection, value)
    except (EOFError, OSError):
        pass  # Nobody wants more.


def _be_a_worker() -> None:
    for each in _NOT_FOR_WORKERS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOT_FOR_WORKERS)
    # If host code ever touches JAX, it must not take the accelerator.
    os.environ["JAX_PLATFORMS"] = "cpu"
    if (jax := sys.modules.get("jax")) is not None:  # It no longer reads its environment.
        jax.config.update("jax_platforms", "cpu")
    # Not getppid: the parent may have died while this process was starting.
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with_parent, args=(parent.pid,), daemon=True).start()


def _exit_with_parent(parent: int | None) -> None:
    """Ends this process when its parent is gone, even if the parent was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """An exception that arrives as what it is, with its place in the worker's code as a note."""
    place = "".join(traceback.format_exception(error))
    try:
        arrived = pickle.loads(cloudpickle.dumps(error))
    except Exception:  # Not every class takes its own arguments back.
        kind = UserError if isinstance(error, UserError) else RuntimeError
        arrived = error = kind(str(error) or repr(error))
    if not isinstance(arrived, UserError):
        error.add_note(f"In a data worker:\n{place}")
    return error


# On both sides.


def _send(connection: Connection[Any, bytes], value: Any) -> None:
    """Sends a value; the contents of its arrays lie in memory whose descriptor follows."""
    buffers: list[pickle.PickleBuffer] = []
    data = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    connection.send((data, sizes))
    if not sum(sizes):
        return
    with _memory() as file, _socket(connection) as end:
        for view in views:
            written = 0
            while written < view.nbytes:
                written += file.write(view[written:])
        socket.send_fds(end, [b"."], [file.fileno()])


def _receive(connection: Connection[bytes, Any]) -> Any:
    data, sizes = connection.recv()
    if not sum(sizes):
        return pickle.loads(data, buffers=[bytearray()] * len(sizes))
    with _socket(connection) as end:
        _, descriptors, _, _ = socket.recv_fds(end, 1, 1)
    if len(descriptors) != 1:
        raise EOFError
    try:
        memory = memoryview(mmap.mmap(descriptors[0], sum(sizes)))
    finally:
        os.close(descriptors[0])
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    pieces = [memory[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return pickle.loads(data, buffers=pieces)


def _memory() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("vit_jax"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _socket(connection: Connection[Any, Any]) -> socket.socket:
    return socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
