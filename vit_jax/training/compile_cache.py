"""Compiled programs that outlive the process, so that a restarted run need not compile again."""

from pathlib import Path

import jax

from vit_jax.parallel.agreement import check_shared


def use_compile_cache(directory: Path) -> None:
    """Takes compiled programs from a directory, and leaves there those that are new.

    All are kept, however small or fast to compile. The first of several processes writes, and all
    of them read: with other contents, some would compile while the others already compute. (On
    CPUs they do: there JAX keeps a process's programs apart from another's.)

    Raises:
      UserError: the directory cannot be written, or is not the same on all processes.
    """
    path = directory.absolute()
    check_shared(path, "--compile_cache")
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
