"""How the processes of a run agree, and how they end together.

There are two mechanisms, and every command that may run on several processes uses both:

- `on_all_processes` is for mistakes that can be foreseen, which are UserErrors: a config that does
  not fit, data that is missing, a directory that is not shared. Every process runs the block, then
  they tell each other whether it failed. If it failed anywhere, it raises a UserError on all.
- `commands.processes.fail_together` is for the rest: a bug, a full disk, Ctrl-C, a process that was
  killed. The process that fails prints why and leaves at once, without a word to the others. They
  notice when a collective breaks or when it has not been heard of for 30 seconds, and leave too.

So a command does all of its work within `fail_together`, and wraps what may meet a user's mistake
in `on_all_processes`, which all processes must enter at the same point.
"""

import contextlib
import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from vit_jax.errors import StorageError, UserError
from vit_jax.schema import difference
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path


@contextlib.contextmanager
def on_all_processes(kind: type[Exception] = UserError) -> Iterator[None]:
    """Around what every process does: a mistake that one of them meets ends all of them.

    Args:
      kind: of the mistake.

    Raises:
      UserError: or another `kind`: the block raised one here, or on another process.
    """
    mistake = None
    try:
        yield
    except kind as error:
        mistake = error
    failed = multihost_utils.process_allgather(np.array(mistake is not None)).reshape(-1)
    if mistake is not None:
        raise mistake
    if failed.any():
        raise kind(
            f"process {_numbers(np.flatnonzero(failed))} cannot continue; see its own message"
        )


def gather_texts(text: str) -> list[str]:
    """Returns the texts of all processes, of any lengths, on each of them."""
    own = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(own))).reshape(-1)
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(own)] = own
    rows = multihost_utils.process_allgather(padded).reshape(len(lengths), -1)
    return [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]


def check_same(values: Mapping[str, Any], what: str, advice: str) -> None:
    """Checks that nested values, which JSON can hold, are the same on all processes.

    Args:
      what: such as "another config", for the message.
      advice: what to do if they differ.

    Raises:
      UserError: on every process, with the processes that differ from process 0 and the keys.
    """
    if jax.process_count() == 1:
        return
    texts = gather_texts(json.dumps(values))
    others = [index for index, text in enumerate(texts) if text != texts[0]]
    if others:
        changes = difference(json.loads(texts[0]), json.loads(texts[others[0]]))
        raise UserError(
            f"process {_numbers(others)} has {what} than process 0 "
            f"({'; '.join(changes) or 'in another order'}); {advice}"
        )


def check_shared(directory: str | os.PathLike[str], option: str) -> None:
    """Checks that all processes see one and the same directory; makes it if it is missing.

    Args:
      option: the option that names the directory, such as `--workdir`.

    Raises:
      UserError: on every process, if process 0 cannot write to the directory or another process
          does not see what it wrote.
    """
    name = int(multihost_utils.broadcast_one_to_all(np.int32(random.getrandbits(31))))
    probe, is_writer = as_path(directory) / f"probe-{name:x}", jax.process_index() == 0
    try:
        with on_all_processes():
            if is_writer:
                _write(probe, option)
        with on_all_processes():
            _find(probe, option)
    finally:
        if is_writer:
            with contextlib.suppress(OSError):
                objects.delete(probe)


def _write(probe: epath.Path, option: str) -> None:
    try:
        objects.write_bytes(probe, b"shared")
    except StorageError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot write to {option}={probe.parent} ({error.strerror}); free space or change "
            "its permissions, or choose another directory"
        ) from error


def _find(probe: epath.Path, option: str) -> None:
    if not objects.exists(probe):
        raise UserError(
            f"{option}={probe.parent} is another directory here than on process 0; choose one "
            "that all processes see, such as one on a shared disk"
        )


def _numbers(processes: Iterable[int]) -> str:
    return ", ".join(str(process) for process in processes)
