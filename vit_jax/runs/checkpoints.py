"""Checkpoints: complete, finite and checksummed, written while training goes on."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import Array
from jax.experimental import multihost_utils

from vit_jax.errors import UserError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointConfig:
    """How often a run's state is saved; the last step always is."""

    every_steps: int = 1000
    # Newest checkpoints that stay.
    keep: int = 2

    def __post_init__(self) -> None:
        if self.every_steps < 1 or self.keep < 1:
            raise UserError(
                f"every_steps={self.every_steps}, keep={self.keep}: each must be at least 1"
            )


class NotFiniteError(Exception):
    """The state holds NaN or infinity, so it was not saved."""


class Checkpoints:
    """The checkpoints in one directory.

    A save returns once the state is copied off the devices. A checkpoint appears under its step's
    number when it is complete. With it lie checksums of every array, taken on the devices before
    the save and compared after a restore; they depend on values alone, not on the mesh.
    """

    def __init__(self, directory: Path, config: CheckpointConfig):
        absl.logging.set_verbosity(absl.logging.ERROR)  # Orbax narrates every save.
        self._directory = directory
        self._manager = ocp.CheckpointManager(
            directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=config.keep, enable_async_checkpointing=True
            ),
            item_names=("state", "checksums"),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def save(self, step: int, state: Any) -> None:
        """Starts to save a tree of arrays; waits only for an earlier save that is under way.

        Raises:
          NotFiniteError: an array holds NaN or infinity.
        """
        checksums, finite = _summarize(state)
        bad = [name for name, good in zip(_names(state), finite, strict=True) if not good]
        if bad:
            raise NotFiniteError(f"step {step}: {', '.join(bad)} are not finite")
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                checksums=ocp.args.JsonSave({"checksums": checksums.tolist()}),
            ),
        )

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest checkpoint that is whole, and its step; None where there is none at all.

        Newer ones that are broken are said to be so and moved aside to `unreadable/`.

        Args:
          like: a tree of `jax.ShapeDtypeStruct` with the shardings to restore to.

        Raises:
          UserError: there are checkpoints, but none is whole.
        """
        broken = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                state = self._restore(step, like)
            except Exception as error:  # Broken files make their readers raise nearly anything.
                reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
                _log.warning("the checkpoint of step %d is broken: %s", step, reason)
                broken.append(step)
                continue
            for bad in broken:
                self._move_aside(bad)
            return step, state
        if broken:
            raise UserError(
                f"{self._directory}: none of the checkpoints (steps {sorted(broken)}) is whole; "
                "remove the directory to start anew"
            )
        return None

    def wait(self) -> None:
        """Returns when all saves are complete; raises what went wrong in them."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves that are under way and ends the threads."""
        self._manager.close()

    def _restore(self, step: int, like: Any) -> Any:
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), checksums=ocp.args.JsonRestore()
            ),
        )
        checksums, _ = _summarize(restored["state"])
        expected = np.array(restored["checksums"]["checksums"], np.uint32)
        names = _names(like)
        if expected.shape != checksums.shape:
            raise ValueError(f"it has checksums of {len(expected)} arrays, not of {len(names)}")
        bad = [n for n, a, b in zip(names, checksums, expected, strict=True) if (a != b).any()]
        if bad:
            raise ValueError(f"wrong checksum of {', '.join(bad)}")
        return restored["state"]

    def _move_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            aside = self._directory.parent / "unreadable"
            aside.mkdir(exist_ok=True)
            target = aside / str(step)
            while target.exists():
                target = target.with_name(target.name + "+")
            (self._directory / str(step)).rename(target)
        multihost_utils.sync_global_devices("checkpoint moved aside")
        self._manager.reload()


def _names(state: Any) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]


def _summarize(state: Any) -> tuple[np.ndarray, np.ndarray]:
    """Checksums uint32 [arrays, 2] and whether all is finite, bool [arrays]."""
    leaves = jax.tree.leaves(state)
    checksums, finite = jax.device_get(_summarize_leaves(leaves))
    return np.asarray(checksums), np.asarray(finite)


@jax.jit
def _summarize_leaves(leaves: list[Array]) -> tuple[Array, Array]:
    return (
        jnp.stack([_checksum(leaf) for leaf in leaves]),
        jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]),
    )


def _checksum(x: Array) -> Array:
    """Two sums modulo 2**32 of the array's words, each mixed with its index.

    Mixing is one-to-one, so a change within one word always shows; and it spreads every bit, so
    that flips of the same bit in several words do not cancel. Integer sums come out the same in
    any order, hence on any mesh.
    """
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    index = jnp.zeros(x.shape, jnp.uint32)
    for axis, length in enumerate(x.shape):
        index = index * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    sums = []
    for multiplier in (0x9E3779B1, 0x85EBCA77):
        words = _mix(bits + index * jnp.uint32(multiplier))
        sums.append(words.sum(dtype=jnp.uint32))
    return jnp.stack(sums)


def _mix(words: Array) -> Array:
    """The finalizer of MurmurHash3: each bit of a uint32 changes about half of the result's."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
