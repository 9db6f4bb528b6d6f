"""That several processes are one run: what they were started with, and what they find, is the same.

Otherwise each would compute with others' arrays as if they were its own, or wait for ever.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.data.sources.open import is_folder
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.parallel.agreement import gather_texts, together
from vit_jax.runs.directory import has_checkpoint, read_config
from vit_jax.schema import difference, to_dict
from vit_jax.training.config import TrainConfig


def read_started(workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The saved config of the run in a directory, if it has a state to go on from.

    Raises:
      UserError: on all processes: it has one on some of them only, or its config cannot be read.
    """
    started = has_checkpoint(workdir)
    on = multihost_utils.process_allgather(np.array(started)).reshape(-1)
    if on.any() and not on.all():
        raise UserError(
            f"--workdir={workdir} has checkpoints on process {_numbers(np.flatnonzero(on))} and "
            f"none on process {_numbers(np.flatnonzero(~on))}; choose a directory that all of them "
            "see, such as one on a shared disk"
        )
    return together(lambda: read_config(workdir) if started else None)


def check_same_config(config: TrainConfig) -> None:
    """Checks that all processes have one config, but for what each host may have of its own.

    Raises:
      UserError: on all of them: which have another one than the first, and in what.
    """
    if jax.process_count() == 1:
        return
    values = to_dict(config)
    # Where data lies, and who decodes it, is each host's affair.
    del values["data"]["data_dir"], values["data"]["workers"]
    for section in (values["data"], *values["evals"].values()):
        if section["dataset"] is not None and is_folder(section["dataset"]):
            section["dataset"] = "(a folder)"
    _check_same(values, "another config", "start all of them with the same command and files")


def check_same_data(sources: Mapping[str, Source]) -> None:
    """Checks that all processes have the same records in the same order; images are not read.

    Raises:
      UserError: on all of them: which have others than the first, and in what.
    """
    if jax.process_count() == 1:  # Millions of paths take a while to hash.
        return
    values = {
        name: {
            "examples": len(source),
            "classes": _digest(source.class_names),
            "records": source.fingerprint(),
        }
        for name, source in sources.items()
    }
    _check_same(values, "other data", "give all hosts the same files")


def _check_same(values: Mapping[str, Any], what: str, advice: str) -> None:
    texts = gather_texts(json.dumps(values))
    others = [index for index, text in enumerate(texts) if text != texts[0]]
    if others:
        changes = difference(json.loads(texts[0]), json.loads(texts[others[0]]))
        raise UserError(
            f"process {_numbers(others)} has {what} than process 0 "
            f"({'; '.join(changes) or 'in its order'}); {advice}"
        )


def _digest(texts: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()


def _numbers(processes: Iterable[int]) -> str:
    return ", ".join(str(process) for process in processes)
