"""What the processes of a run agree on, or end over."""

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.errors import UserError

T = TypeVar("T")


def together(action: Callable[[], T]) -> T:
    """Does something on every process; a mistake that one of them finds ends all of them.

    Raises:
      UserError: the action raised one here, or on another process.
    """
    mistake = None
    try:
        result = action()
    except UserError as error:
        mistake = error
    failed = multihost_utils.process_allgather(np.array(mistake is not None)).reshape(-1)
    if mistake is not None:
        raise mistake
    if failed.any():
        others = ", ".join(str(index) for index in np.flatnonzero(failed))
        raise UserError(f"process {others} cannot go on; its own message says why")
    return result


def gather_texts(text: str) -> list[str]:
    """The texts of all processes, of any lengths, on each of them."""
    own = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(own))).reshape(-1)
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(own)] = own
    rows = multihost_utils.process_allgather(padded).reshape(len(lengths), -1)
    return [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]


def check_shared(directory: Path, option: str) -> None:
    """Checks that a directory, made if need be, is one and the same for all processes.

    Args:
      option: that which names it, such as `--workdir`.

    Raises:
      UserError: on all of them: the first cannot write there, or another finds what it wrote not.
    """
    name = int(multihost_utils.broadcast_one_to_all(np.int32(random.getrandbits(31))))
    probe, is_first = directory / f"probe-{name:x}", jax.process_index() == 0
    try:
        together(lambda: _write(probe, option) if is_first else None)
        together(lambda: _find(probe, option))
    finally:
        if is_first:
            with contextlib.suppress(OSError):
                probe.unlink()


def _write(probe: Path, option: str) -> None:
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"shared")
    except OSError as error:
        raise UserError(
            f"cannot write to {option}={probe.parent} ({error.strerror}); make room or let "
            "it be written, or choose another directory"
        ) from error


def _find(probe: Path, option: str) -> None:
    if not probe.exists():
        raise UserError(
            f"{option}={probe.parent} is another directory here than on the first process; "
            "choose one that all of them see, such as one on a shared disk"
        )
