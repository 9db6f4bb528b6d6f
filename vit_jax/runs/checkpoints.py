"""Checkpoints: complete, finite and checksummed, written while training goes on."""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

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
    """How often a run's state is saved; the last step, and each new best one, always are."""

    every_steps: int = 1000
    # Newest checkpoints that stay; so does the best one before each of them.
    keep: int = 2
    # What a save that fails does, as on a full disk: end the run, or let it go on without.
    on_failure: Literal["stop", "continue"] = "stop"

    def __post_init__(self) -> None:
        if self.every_steps < 1 or self.keep < 1:
            raise UserError(
                f"every_steps={self.every_steps}, keep={self.keep}: each must be at least 1"
            )


class Checkpoints:
    """The checkpoints in one directory.

    A save returns once the state is copied off the devices. A checkpoint appears under its step's
    number when it is complete. With it lie checksums of every array, taken on the devices before
    the save and compared after a restore; they depend on values alone, not on the mesh.

    Args:
      bests: steps that have been saved and were the best when they came; it may grow meanwhile.
        With each of the newest checkpoints the last of these until it stays, so that a run which
        falls back to an older checkpoint finds its best one too.
    """

    def __init__(self, directory: Path, config: CheckpointConfig, bests: Collection[int] = ()):
        absl.logging.set_verbosity(absl.logging.ERROR)  # Orbax narrates every save.
        self._directory, self._config, self._bests = directory, config, bests
        self._saving: int | None = None
        self._manager = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def save(self, step: int, state: Any) -> None:
        """Starts to save a tree of arrays; waits only for an earlier save that is under way.

        Raises:
          UserError: an array holds NaN or infinity; or a save failed, and the config says to stop.
        """
        self.wait()
        sums, finite = summarize(state)
        if not finite.all():
            bad = [name for name, good in zip(names(state), finite, strict=True) if not good]
            raise UserError(
                f"step {step}: {', '.join(bad)} are not finite and were not saved "
                f"({self._last_good()}); train again in a new --workdir with a lower rate"
            )
        self._saving = step
        with self._guarded():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    checksums=ocp.args.JsonSave({"checksums": sums.tolist()}),
                ),
            )

    def wait(self) -> None:
        """Returns when no save is under way.

        Raises:
          UserError: the last save failed, and the config says to stop.
        """
        with self._guarded():
            self._manager.wait_until_finished()

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest checkpoint that is whole, and its step; None where there is none at all.

        Newer ones that are broken are said to be so and moved aside to `unreadable/`.

        Args:
          like: a tree of `jax.ShapeDtypeStruct` with the shardings to restore to.

        Raises:
          UserError: there are checkpoints, but none is whole.
        """
        broken: list[int] = []
        while (step := self._newest_but(broken)) is not None:
            try:
                state = self._restore(step, like)
            except _BrokenError as error:
                _log.warning("the checkpoint of step %d is broken: %s", step, error)
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

    def restore_step(self, step: int, like: Any) -> Any:
        """The checkpoint of one step; None, which is said, where it is gone or broken."""
        try:
            return self._restore(step, like)
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
                preservation_policy=_Retention(self._config.keep, self._bests),
                enable_async_checkpointing=True,
                # What an interrupted save has left.
                cleanup_tmp_directories=True,
            ),
            item_names=("state", "checksums"),
        )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns the failure of a save into what the config says."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            self._manager.close()
            self._manager = self._open()
            text = (
                f"the checkpoint of step {self._saving} could not be saved: {_one_line(error)} "
                f"({self._last_good()})"
            )
            if self._config.on_failure == "stop":
                raise UserError(f"{text}; make room, then start again") from error
            _log.warning("%s; going on", text)

    def _last_good(self) -> str:
        step = self._manager.latest_step()
        return "there is none before" if step is None else f"the last good one is of step {step}"

    def _newest_but(self, broken: list[int]) -> int | None:
        """The newest step that is not broken; process 0 looks, so that all see the same one."""
        steps = [step for step in self._manager.all_steps() if step not in broken]
        newest = multihost_utils.broadcast_one_to_all(np.array(max(steps, default=-1)))
        return None if newest < 0 else int(newest)

    def _restore(self, step: int, like: Any) -> Any:
        """Reads and verifies; raises `_BrokenError` on all processes if one of them cannot."""
        problem = None
        try:
            state, expected = self._read(step, like)
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
        return state

    def _read(self, step: int, like: Any) -> tuple[Any, np.ndarray]:
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
            raise ValueError(f"checksums of {len(expected)} arrays, not of {len(names(like))}")
        return state, expected

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


@dataclass(frozen=True)
class _Retention(PreservationPolicy):
    """Keeps the newest checkpoints, and with each of them the best one until it."""

    keep: int
    bests: Collection[int]

    def should_preserve(
        self, checkpoints: Sequence[PolicyCheckpointInfo], *, context: PreservationContext
    ) -> list[bool]:
        del context
        newest = sorted(info.step for info in checkpoints)[-self.keep :]
        # Of those that are there: a save may have failed.
        saved = {info.step for info in checkpoints}.intersection(self.bests)
        bests = {max((b for b in saved if b <= step), default=step) for step in newest}
        return [info.step in bests.union(newest) for info in checkpoints]


class _BrokenError(Exception):
    """A checkpoint cannot be used; the message says why."""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
