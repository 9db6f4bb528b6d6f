"""Worker processes that make the chunks of batches.

They are started by Grain, from a notebook or any script: the user's main module is not run again in
them, so it needs no `if __name__ == "__main__"`. Sources and transforms reach them pickled, classes
of the main module and of config files by value, because a worker cannot import these.
"""

import functools
import multiprocessing
import multiprocessing.spawn
import os
import shutil
import signal
import sys
import threading
import time
from typing import Any

import cloudpickle
import grain
import jax
from absl import flags

from vit_jax.config import MODULE_PREFIX
from vit_jax.data.batches import Chunks
from vit_jax.errors import UserError

# Chunks that wait in each worker.
PREFETCH = 2
_SHARED_MEMORY = "/dev/shm"
# Grain names its processes so.
_PROCESS_NAME = "grain-process-prefetch"


def in_workers(dataset: grain.MapDataset[Any], workers: int) -> grain.IterDataset[Any]:
    """The elements of a data set in their order, made by worker processes."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own; their defaults will do.
    _leave_main_alone()
    for name, module in list(sys.modules.items()):
        if name.startswith(MODULE_PREFIX):
            cloudpickle.register_pickle_by_value(module)
    # No threads within the workers, which read ahead anyway.
    options = grain.MultiprocessingOptions(workers, PREFETCH)
    return dataset.to_iter_dataset(grain.ReadOptions(0, 0)).mp_prefetch(options, _start_worker)


def check_shared_memory(chunks: Chunks, workers: int) -> None:
    """Checks that chunks fit into shared memory, in which workers hand them over.

    Raises:
      UserError: there is too little of it, as in many containers.
    """
    height, width = chunks.size
    # For each worker: the chunks that wait, one that it makes, and one that is being copied.
    needed = workers * (PREFETCH + 2) * chunks.chunk_rows * height * width * 3
    if os.path.isdir(_SHARED_MEMORY):
        free = shutil.disk_usage(_SHARED_MEMORY).free
        if free < needed:
            raise UserError(
                f"{_SHARED_MEMORY} has {free // 2**20} MiB free, but "
                f"config.data.workers={workers} needs {-(-needed // 2**20)} MiB; enlarge it "
                "(docker run --shm-size), or use fewer workers"
            )


@functools.cache
def _leave_main_alone() -> None:
    """Keeps multiprocessing from running the user's main module in Grain's workers.

    Without `if __name__ == "__main__"` each worker would start the whole program again. A worker
    needs nothing of that module: Grain pickles what is defined there by value.
    """
    prepare = multiprocessing.spawn.get_preparation_data

    def prepare_without_main(name: str) -> dict[str, Any]:
        data = prepare(name)
        if name.startswith(_PROCESS_NAME):
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    multiprocessing.spawn.get_preparation_data = prepare_without_main


def _start_worker(index: int, count: int) -> None:
    """Runs first in each worker process."""
    del index, count
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group. The main process may have to
    # save its state first, and ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # If host code ever touches JAX, it must not take the accelerator. JAX is imported by now and
    # no longer reads its environment.
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
