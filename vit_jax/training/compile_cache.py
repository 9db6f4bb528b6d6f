"""Compiled programs that outlive the process, so that a restart skips compilation."""

from pathlib import Path

import jax

from vit_jax.parallel.agreement import check_shared


def use_compile_cache(directory: Path) -> None:
    """Reads compiled programs from a directory, and writes new ones there.

    All programs are kept, however small or fast to compile. If there are several processes, process
    0 writes and all of them read the same directory: otherwise some would still compile while the
    others compute. (On CPUs, JAX keeps the programs of each process apart.)

    Raises:
      UserError: the directory cannot be written, or is not the same on all processes.
    """
    path = directory.absolute()
    check_shared(path, "--compile_cache")
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
