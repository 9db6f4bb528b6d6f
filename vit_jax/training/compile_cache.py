"""Compiled programs that outlive the process, so that a restarted run need not compile again."""

import contextlib
import random
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.errors import UserError
from vit_jax.parallel.processes import together


def use_compile_cache(directory: Path) -> None:
    """Takes compiled programs from a directory, and leaves there those that are new.

    All are kept, however small or fast to compile. The first of several processes writes, and all
    of them read: with other contents, some would compile while the others already compute. (On
    CPUs they do: there JAX keeps a process's programs apart from another's.)

    Raises:
      UserError: the directory cannot be written, or is not the same on all processes.
    """
    path = directory.absolute()
    name = int(multihost_utils.broadcast_one_to_all(np.int32(random.getrandbits(31))))
    probe, is_writer = path / f"probe-{name:x}", jax.process_index() == 0
    try:
        together(lambda: _write(probe) if is_writer else None)
        together(lambda: _find(probe))
    finally:
        if is_writer:
            with contextlib.suppress(OSError):
                probe.unlink()
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _write(probe: Path) -> None:
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"compiled")
    except OSError as error:
        raise UserError(
            f"cannot write to --compile_cache={probe.parent} ({error.strerror}); make room or let "
            "it be written, or choose another directory"
        ) from error


def _find(probe: Path) -> None:
    if not probe.exists():
        raise UserError(
            f"--compile_cache={probe.parent} is another directory here than on the first process; "
            "choose one that all of them see, such as one on a shared disk"
        )
