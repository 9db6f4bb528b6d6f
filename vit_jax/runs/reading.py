"""Reads one checkpoint and verifies all of it: its files, whose it is, and its values."""

import json
import os
import re
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from jax.experimental import multihost_utils

from vit_jax.errors import StorageError
from vit_jax.parallel.agreement import on_all_processes
from vit_jax.runs import file_list
from vit_jax.runs.checksums import names, summarize
from vit_jax.runs.orbax_in_buckets import require_known_by_orbax
from vit_jax.storage.paths import as_path, is_bucket

# What TensorStore says of a bucket that has not answered, up to its own details.
_TRIED = re.compile(r"All \d+ retry attempts failed[^\[]*[^\[\s]")


class Restored(NamedTuple):
    """What a checkpoint held.

    Attributes:
      state: a tree of arrays.
      notes: what the run wrote beside the arrays; None in checkpoints of version 0.1.0.
    """

    step: int
    state: Any
    notes: dict[str, Any] | None


class BrokenError(Exception):
    """A checkpoint cannot be used; the message says why."""


def seal(
    step: int, identity: Mapping[str, str] | None, notes: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a checkpoint says of itself, with a checksum that finds damage which is still JSON.

    Args:
      identity: texts that tell this run from others, by what they are, such as `run`.
    """
    content = {"notes": dict(notes or {}), "identity": {"step": step, **(identity or {})}}
    return {**content, "crc32": _crc32(content)}


def read(
    directory: str | os.PathLike[str], step: int, like: Any, identity: Mapping[str, str] | None
) -> Restored:
    """Reads the checkpoint of a step; every process calls this.

    Args:
      directory: the checkpoint's own.
      like: a tree of `jax.ShapeDtypeStruct` with the shardings to restore to.
      identity: as given to `seal` when this run saves; None does not check whose it is.

    Raises:
      BrokenError: on all processes, if one of them cannot use it.
      StorageError: on all processes, if the bucket does not answer; the checkpoint may be whole.
    """
    problem, directory = None, as_path(directory)
    require_known_by_orbax(directory)
    with on_all_processes(StorageError):
        if jax.process_index() == 0:  # The others see the same files.
            try:
                _check(directory, step, identity)
            except StorageError:
                raise
            except Exception as error:  # As below.
                problem = one_line(error)
    _raise_together(problem)
    with on_all_processes(StorageError):
        try:
            state, expected, notes = _read(directory, like)
        except StorageError:
            raise
        except Exception as error:  # Broken files make their readers raise nearly anything.
            if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
                raise  # The file may be whole.
            if is_bucket(directory) and (found := _TRIED.search(str(error))):
                raise StorageError(
                    f"{directory}: {found[0][:200]}; check the network, then type the same command "
                    "again"
                ) from error
            problem = one_line(error)
    _raise_together(problem)
    sums, _ = summarize(state)
    bad = [n for n, a, b in zip(names(like), sums, expected, strict=True) if (a != b).any()]
    if bad:
        raise BrokenError(f"wrong checksum of {', '.join(bad)}")
    return Restored(step, state, notes)


def one_line(error: Exception) -> str:
    """The message of any exception, for a line of a log."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def _raise_together(problem: str | None) -> None:
    failed = multihost_utils.process_allgather(np.array(problem is not None))
    if problem is not None or failed.any():
        raise BrokenError(problem or "another process cannot read it")


def _check(directory: epath.Path, step: int, identity: Mapping[str, str] | None) -> None:
    """Raises if files are damaged, or if the checkpoint says that it is another one."""
    is_listed = file_list.check(directory)
    sealed = _read_sealed(directory)
    if sealed is None:
        _check_unlisted(directory / "state")
        return
    if not is_listed:
        raise ValueError(f"{file_list.NAME} is missing")
    found = sealed["identity"]
    if found["step"] != step:
        raise ValueError(f"it is that of step {found['step']}, copied or renamed")
    for what, value in (identity or {}).items():
        if found.get(what) != value:
            raise ValueError(f"it is that of another {what}")


def _read(directory: epath.Path, like: Any) -> tuple[Any, np.ndarray, dict[str, Any] | None]:
    # By the handlers themselves: the manager makes processes wait for each other, and one
    # that fails would leave the others waiting.
    state = ocp.StandardCheckpointHandler().restore(
        directory / "state", args=ocp.args.StandardRestore(like)
    )
    expected = np.array(_read_json(directory / "checksums")["checksums"], np.uint32)
    if len(expected) != len(names(like)):
        raise ValueError(f"checksums of {len(expected)} arrays instead of {len(names(like))}")
    sealed = _read_sealed(directory)
    return state, expected, None if sealed is None else sealed["notes"]


def _read_sealed(directory: epath.Path) -> dict[str, Any] | None:
    """What `seal` made; None in checkpoints of version 0.1.0."""
    if not (directory / "notes").exists():
        return None
    content = _read_json(directory / "notes")
    if content.pop("crc32") != _crc32(content):
        raise ValueError("wrong checksum of the notes")
    return content


def _read_json(directory: epath.Path) -> dict[str, Any]:
    content: dict[str, Any] = ocp.JsonCheckpointHandler().restore(
        directory, args=ocp.args.JsonRestore()
    )
    return content


def _check_unlisted(state: epath.Path) -> None:
    """Reads what Orbax will read, in turn: after a failure of its own it leaves threads behind."""
    for file in (state / "_METADATA", state / "_sharding", *state.glob("array_metadatas/*")):
        if file.exists():
            json.loads(file.read_bytes())
    spec = {"driver": "ocdbt", "base": f"file://{state}/"}
    store = tensorstore.KvStore.open(spec).result()
    for key in store.list().result():
        store.read(key).result()


def _crc32(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
