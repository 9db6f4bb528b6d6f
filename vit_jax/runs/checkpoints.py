"""Checkpoints: complete, finite and checksummed, written while training continues."""

import json
import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import (
    PolicyCheckpointInfo,
    PreservationContext,
    PreservationPolicy,
)

from vit_jax.errors import UserError
from vit_jax.runs.checksums import names, summarize

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointConfig:
    """How often a run's state is saved, and how many checkpoints stay."""

    every_steps: int = 1000
    """Steps between two checkpoints. The last step, and with early stopping each new best one, are
    saved too."""
    keep: int = 2
    """Number of the newest checkpoints that stay. With early stopping the best one stays too."""

    def __post_init__(self) -> None:
        if self.every_steps < 1 or self.keep < 1:
            raise UserError(
                f"every_steps={self.every_steps}, keep={self.keep}: each must be at least 1"
            )


class Restored(NamedTuple):
    """What a checkpoint held.

    Attributes:
      state: a tree of arrays.
      notes: what the run wrote beside the arrays; None in checkpoints of version 0.1.0.
    """

    step: int
    state: Any
    notes: dict[str, Any] | None


class Checkpoints:
    """The checkpoints in one directory.

    A save returns once the state is copied off the devices. A checkpoint appears under its step's
    number when it is complete. It holds the arrays, notes in JSON, and checksums of both. The
    arrays' checksums are taken on the devices before the save and compared after a restore; they
    depend on values alone, not on the mesh.
    """

    def __init__(self, directory: Path, config: CheckpointConfig):
        absl.logging.set_verbosity(absl.logging.ERROR)  # Orbax narrates every save.
        self._directory = directory
        self._retention = _Retention(config.keep)
        self._saving: int | None = None
        self._manager = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(
        self,
        step: int,
        state: Any,
        notes: Mapping[str, Any] | None = None,
        *,
        best: int | None = None,
    ) -> None:
        """Starts to save a tree of arrays; waits only for an earlier save that is under way.

        Args:
          notes: what JSON can hold; every process gets it back from `restore`.
          best: the step of an earlier checkpoint, or of this one, that must stay.

        Raises:
          UserError: an array holds NaN or infinity, or a save failed.
        """
        self.wait()
        sums, finite = summarize(state)
        if not finite.all():
            bad = [name for name, good in zip(names(state), finite, strict=True) if not good]
            raise UserError(
                f"step {step}: {', '.join(bad)} are not finite and were not saved "
                f"({self._last_good()}); train again in a new --workdir with a lower optimizer.lr"
            )
        self._saving = step
        self._retention.best = best
        with self._guarded():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    checksums=ocp.args.JsonSave({"checksums": sums.tolist()}),
                    notes=ocp.args.JsonSave(_sealed(notes or {})),
                ),
            )

    def has(self, step: int) -> bool:
        """Whether there is a checkpoint of this step, or one is being written."""
        return step in self._manager.all_steps()

    def wait(self) -> None:
        """Returns when no save is under way.

        Raises:
          UserError: the last save failed.
        """
        with self._guarded():
            self._manager.wait_until_finished()

    def restore(self, like: Any) -> Restored | None:
        """The newest checkpoint that is whole; None if there is none at all.

        Newer ones that are broken are logged and moved aside to `unreadable/`.

        Args:
          like: a tree of `jax.ShapeDtypeStruct` with the shardings to restore to.

        Raises:
          UserError: there are checkpoints, but none is whole.
        """
        broken: list[int] = []
        while (step := self._newest_but(broken)) is not None:
            try:
                restored = self._restore(step, like)
            except _BrokenError as error:
                _log.warning("the checkpoint of step %d is broken: %s", step, error)
                broken.append(step)
                continue
            for bad in broken:
                self._move_aside(bad)
            return restored
        if broken:
            raise UserError(
                f"{self._directory}: none of the checkpoints (steps {sorted(broken)}) is whole; "
                "remove the directory to start anew"
            )
        return None

    def restore_step(self, step: int, like: Any) -> Any:
        """The state of one step; None, with a warning, if its checkpoint is missing or broken."""
        try:
            return self._restore(step, like).state
        except _BrokenError as error:
            _log.warning("the checkpoint of step %d cannot be used: %s", step, error)
            return None

    def close(self) -> None:
        """Waits for saves that are under way and ends the threads."""
        self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._retention,
                enable_async_checkpointing=True,
                # What an interrupted save has left.
                cleanup_tmp_directories=True,
            ),
            item_names=("state", "checksums", "notes"),
        )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns the failure of a save into one line."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            self._manager.close()
            self._manager = self._open()
            raise UserError(
                f"the checkpoint of step {self._saving} could not be saved: {_one_line(error)} "
                f"({self._last_good()}); free space, then start again"
            ) from error

    def _last_good(self) -> str:
        step = self._manager.latest_step()
        return "no earlier checkpoint" if step is None else f"last good checkpoint: step {step}"

    def _newest_but(self, broken: list[int]) -> int | None:
        """The newest step that is not broken, as process 0 sees it."""
        steps = [step for step in self._manager.all_steps() if step not in broken]
        newest = multihost_utils.broadcast_one_to_all(np.array(max(steps, default=-1)))
        return None if newest < 0 else int(newest)

    def _restore(self, step: int, like: Any) -> Restored:
        """Reads and verifies; raises `_BrokenError` on all processes if one of them cannot."""
        problem = None
        try:
            state, expected, notes = self._read(step, like)
        except Exception as error:  # Broken files make their readers raise nearly anything.
            if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
                raise  # The file may be whole.
            problem = _one_line(error)[:300]
        failed = multihost_utils.process_allgather(np.array(problem is not None))
        if problem is not None or failed.any():
            raise _BrokenError(problem or "another process cannot read it")
        sums, _ = summarize(state)
        bad = [n for n, a, b in zip(names(like), sums, expected, strict=True) if (a != b).any()]
        if bad:
            raise _BrokenError(f"wrong checksum of {', '.join(bad)}")
        return Restored(step, state, notes)

    def _read(self, step: int, like: Any) -> tuple[Any, np.ndarray, dict[str, Any] | None]:
        # By the handlers themselves: the manager makes processes wait for each other, and one
        # that fails would leave the others waiting.
        directory = epath.Path(self._directory) / str(step)
        state = ocp.StandardCheckpointHandler().restore(
            directory / "state", args=ocp.args.StandardRestore(like)
        )
        sums = ocp.JsonCheckpointHandler().restore(
            directory / "checksums", args=ocp.args.JsonRestore()
        )
        expected = np.array(sums["checksums"], np.uint32)
        if len(expected) != len(names(like)):
            raise ValueError(f"checksums of {len(expected)} arrays instead of {len(names(like))}")
        if not (directory / "notes").exists():
            return state, expected, None
        sealed = ocp.JsonCheckpointHandler().restore(
            directory / "notes", args=ocp.args.JsonRestore()
        )
        if sealed["crc32"] != _sealed(sealed["notes"])["crc32"]:
            raise ValueError("wrong checksum of the notes")
        return state, expected, sealed["notes"]

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


@dataclass
class _Retention(PreservationPolicy):
    """Keeps the newest checkpoints and the best one."""

    keep: int
    best: int | None = None

    def should_preserve(
        self, checkpoints: Sequence[PolicyCheckpointInfo], *, context: PreservationContext
    ) -> list[bool]:
        del context
        newest = sorted(info.step for info in checkpoints)[-self.keep :]
        return [info.step in newest or info.step == self.best for info in checkpoints]


class _BrokenError(Exception):
    """A checkpoint cannot be used; the message says why."""


def _sealed(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Notes with a checksum, which finds a damaged file that is still JSON."""
    text = json.dumps(notes, sort_keys=True)
    return {"notes": dict(notes), "crc32": zlib.crc32(text.encode())}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
