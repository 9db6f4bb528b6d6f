"""Checks that all processes of a run share config, data and directory.

Otherwise each would compute with arrays of the others as if they were its own, or wait for ever.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.data.sources.open import has_own_files
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.parallel.agreement import check_same, on_all_processes
from vit_jax.reading import read_text
from vit_jax.runs.config_file import read_config
from vit_jax.runs.directory import has_checkpoint
from vit_jax.schema import to_dict
from vit_jax.training.config import TrainConfig


def read_started(workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The saved config of the run in a directory, if there is a checkpoint to resume from.

    Raises:
      UserError: on all processes, if only some of them see checkpoints, or if the config cannot be
        read.
    """
    started = has_checkpoint(workdir)
    on = multihost_utils.process_allgather(np.array(started)).reshape(-1)
    if on.any() and not on.all():
        raise UserError(
            f"--workdir={workdir} has checkpoints on process {_numbers(np.flatnonzero(on))} and "
            f"none on process {_numbers(np.flatnonzero(~on))}; choose a directory that all of them "
            "see, such as one on a shared disk"
        )
    with on_all_processes():
        return read_config(workdir) if started else None


def check_same_config(config: TrainConfig) -> None:
    """Checks that all processes have the same config, except for what each host may choose.

    Raises:
      UserError: on all processes, with the processes that differ from process 0 and the keys.
    """
    values = to_dict(config)
    # Each host decides where its data lies, what of it is kept, and who decodes it.
    for key in ("data_dir", "cache_dir", "cache_gib", "workers"):
        del values["data"][key]
    for section in (values["data"], *values["evals"].values()):
        if section["dataset"] is not None and has_own_files(section["dataset"]):
            section["dataset"] = "(a path)"
    for section in values["evals"].values():
        if section.get("class_map") is not None:
            section["contents of class_map"] = digest_of_file(section["class_map"])
    check_same(values, "another config", "start all of them with the same command and files")


def digest_of_file(path: str | Path) -> str | None:
    """A hash of what a small text file holds; None if it cannot be read, which is told later."""
    try:
        return _digest([read_text(Path(path).expanduser())])
    except (OSError, ValueError):
        return None


def check_same_data(sources: Mapping[str, Source]) -> None:
    """Checks that all processes have the same records in the same order; reads no image.

    Raises:
      UserError: on all processes, with the processes that differ from process 0 and how.
    """
    if jax.process_count() == 1:  # Hashing millions of paths takes a while.
        return
    values = {
        name: {
            "examples": len(source),
            "classes": _digest(source.class_names),
            "records": source.fingerprint(),
        }
        for name, source in sources.items()
    }
    check_same(values, "other data", "give all hosts the same files")


def _digest(texts: Iterable[str]) -> str:
    # Names of folders need not be text.
    data = "\n".join(texts).encode(errors="surrogateescape")
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _numbers(processes: Iterable[int]) -> str:
    return ", ".join(str(process) for process in processes)
