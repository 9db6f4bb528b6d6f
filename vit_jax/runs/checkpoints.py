"""Checkpoints: complete, finite and checksummed, written while training continues."""

import contextlib
import logging
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from vit_jax.errors import NotFiniteError, NotSavedError, TakenOverError, UserError
from vit_jax.parallel.agreement import on_all_processes
from vit_jax.runs import file_list
from vit_jax.runs.aside import move_aside, move_no_directories_aside
from vit_jax.runs.checksums import names, summarize
from vit_jax.runs.orbax_in_buckets import Repeats, require_known_by_orbax
from vit_jax.runs.reading import BrokenError, Restored, one_line, read, seal
from vit_jax.runs.retention import Retention
from vit_jax.storage.paths import as_path, bucket_of, is_bucket

# Orbax writes into a directory of the step's number with this at its end, and renames it.
_PARTIAL = ".orbax-checkpoint-tmp"


# Bytes of a checkpoint besides its arrays, for a small model.
_OVERHEAD = 2**18

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointConfig:
    """How often a run's state is saved, and how many checkpoints stay."""

    every_steps: int = 1000
    """Steps between two checkpoints. The last step, and with early stopping each new best one, are
    saved too."""
    keep: int = 2
    """Number of the newest checkpoints that stay. With early stopping the best one stays too."""
    on_failure: Literal["stop", "continue"] = "stop"
    """What a save that fails does, as on a full disk: `stop` ends the run, `continue` logs a line
    and tries again when the next one is due. A save that fails half-way ends a run of several
    processes: only those that could not write know of it."""

    def __post_init__(self) -> None:
        if self.every_steps < 1 or self.keep < 1:
            raise UserError(
                f"every_steps={self.every_steps}, keep={self.keep}: each must be at least 1"
            )


class Checkpoints:
    """The checkpoints in one directory.

    A save returns once the state is copied off the devices. A checkpoint appears under its step's
    number when it is complete. It holds the arrays, notes in JSON, checksums of both, and a list of
    its files. The arrays' checksums are taken on the devices before the save and compared after a
    restore; they depend on values alone, not on the mesh.

    Args:
      identity: texts that tell this run from others, by what they are, such as `run`. They are
        saved with the state, and a checkpoint with others is not restored. Process 0's count; None
        compares none.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        config: CheckpointConfig,
        identity: Mapping[str, str] | None = None,
    ):
        # Orbax narrates every save, and every failure at length.
        absl.logging.set_verbosity(absl.logging.FATAL)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        self._directory, self._identity = as_path(directory), identity
        require_known_by_orbax(self._directory)
        self._repeats = Repeats()
        self._retention = Retention(config.keep)
        self._saving: int | None = None
        self._began = 0.0
        self._completed = deque[float]()
        # What the save under way met, where there are other processes.
        self._failure: BaseException | None = None
        self._thread = threading.get_ident()
        move_no_directories_aside(self._directory)
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
          NotSavedError: this save or the last one failed, on all processes alike.
          UserError: one of them failed on this process alone.
          NotFiniteError: an array holds NaN or infinity.
        """
        self.wait()
        sums, finite = summarize(state)
        if not finite.all():
            bad = [name for name, good in zip(names(state), finite, strict=True) if not good]
            raise NotFiniteError(
                step, f"step {step}: {', '.join(bad)} are not finite and were not saved"
            )
        with on_all_processes(NotSavedError):  # As one of them may see another disk.
            self._check_room(step, state)
        self._saving = step
        self._retention.best = best
        self._began = time.perf_counter()
        with self._guarded():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    checksums=ocp.args.JsonSave({"checksums": sums.tolist()}),
                    notes=ocp.args.JsonSave(seal(step, self._identity, notes)),
                ),
            )

    def has(self, step: int) -> bool:
        """Whether there is a checkpoint of this step, or one is being written."""
        return step in self._manager.all_steps()

    def newest(self) -> int | None:
        """The step of the newest checkpoint that was saved; None if there is none."""
        step: int | None = self._manager.latest_step()
        return step

    def wait(self) -> None:
        """Returns when no save is under way.

        Raises:
          NotSavedError: the last save failed.
          UserError: it failed, and there are other processes.
        """
        with self._guarded():
            self._manager.wait_until_finished()
        self._saving = None
        self._repeats.tell(self._directory)

    def check(self) -> None:
        """Waits for nothing; tells if the save that was under way has failed.

        Raises:
          NotSavedError: it has.
          UserError: it has on this process, and there are others.
        """
        if self._saving is None:
            return
        with self._guarded():
            if self._failure is not None:
                raise self._failure
            # Several processes would wait for each other in `wait`.
            is_over = jax.process_count() == 1 and not self._manager.is_saving_in_progress()
        if is_over:
            self.wait()

    def completed(self) -> list[float]:
        """The seconds that saves took from their start to their end, each save once."""
        return [self._completed.popleft() for _ in range(len(self._completed))]

    def restore(self, like: Any) -> Restored | None:
        """The newest checkpoint that is whole; None if there is none at all.

        Newer ones that are broken are logged and moved aside to `unreadable/`.

        Args:
          like: a tree of `jax.ShapeDtypeStruct` with the shardings to restore to.

        Raises:
          UserError: there are checkpoints, but none is whole.
        """
        broken: dict[int, BrokenError] = {}
        while (step := self._newest_but(broken)) is not None:
            try:
                restored = read(self._directory / str(step), step, like, self._identity)
            except BrokenError as error:
                _log.warning("the checkpoint of step %d is broken: %s", step, error)
                broken[step] = error
                continue
            for bad in broken:
                self._move_aside(bad)
            if restored.notes is None:
                _log.warning(
                    "the checkpoint of step %d does not say of which run and step it is, as those "
                    "of version 0.1.0 do not: it is taken for this run's",
                    step,
                )
            return restored
        if broken:
            raise UserError(
                f"{self._directory}: none of the checkpoints (steps {sorted(broken)}) is whole "
                f"(step {max(broken)}: {broken[max(broken)]}); remove the directory to start anew"
            )
        return None

    def restore_step(self, step: int, like: Any) -> Any:
        """The state of one step; None, with a warning, if its checkpoint is missing or broken."""
        try:
            return read(self._directory / str(step), step, like, self._identity).state
        except BrokenError as error:
            _log.warning("the checkpoint of step %d cannot be used: %s", step, error)
            return None

    def close(self) -> None:
        """Waits for saves that are under way and ends the threads."""
        if self._failure is None:  # Otherwise this process ends, and the others with it.
            self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._retention,
                enable_async_checkpointing=True,
                async_options=ocp.AsyncOptions(
                    post_finalization_callback=self._list_files,
                    barrier_sync_fn=self._meet if jax.process_count() > 1 else None,
                ),
                # A damaged checkpoint may have anything in the place of its metadata.
                lightweight_initialize=True,
                # What an interrupted save has left.
                cleanup_tmp_directories=True,
            ),
            item_names=("state", "checksums", "notes"),
        )

    def _meet(self, *, key: str, timeout_ms: int) -> None:
        """Waits for the other processes at a barrier.

        A save whose thread meets an error comes to its last barrier with the exception. The other
        processes wait at an earlier one, and Orbax would let all of them wait for its full limit.
        """
        error = sys.exc_info()[1]
        # The run's own thread may handle what has interrupted it while it saves.
        if error is not None and threading.get_ident() != self._thread:
            self._failure = error
            raise error
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)

    def _check_room(self, step: int, state: Any) -> None:
        """Raises before a save that cannot fit: on a full disk, Orbax may wait for ever."""
        if is_bucket(self._directory):
            return
        needed = sum(x.nbytes for x in jax.tree.leaves(state)) + _OVERHEAD
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            raise NotSavedError(
                self._told(
                    step,
                    f"{free / 2**20:,.1f} MiB are free, and it needs {needed / 2**20:,.1f}",
                )
            )

    def _list_files(self) -> None:
        """Lists the files of the checkpoint that is being saved, just before it is complete.

        On a disk it is renamed then; in a bucket, one more file of it says so.
        """
        if is_bucket(self._directory):
            partial = self._directory / str(self._saving)
        else:
            (partial,) = self._directory.glob(f"{self._saving}{_PARTIAL}*")
        file_list.write(partial)
        self._completed.append(time.perf_counter() - self._began)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns the failure of a save into one line.

        One process alone would not find the others where it goes on: they wait for it, until the
        save is complete on all. So with others it raises what ends them all.
        """
        try:
            yield
        except TakenOverError:
            raise
        except Exception as error:  # A full disk makes Orbax raise many kinds.
            step, self._saving = self._saving, None
            if jax.process_count() > 1:
                told = self._told(step, one_line(error))
                raise UserError(f"{told}; {to_save_again(self._directory)}") from error
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = self._open()  # Removes what the save left.
            raise NotSavedError(self._told(step, one_line(error))) from error

    def _told(self, step: int | None, reason: str) -> str:
        newest = self.newest()
        last = "no earlier checkpoint" if newest is None else f"last good checkpoint: step {newest}"
        return f"the checkpoint of step {step} could not be saved: {reason} ({last})"

    def _newest_but(self, broken: Container[int]) -> int | None:
        """The newest step that is not broken, as process 0 sees it."""
        steps = [step for step in self._manager.all_steps() if step not in broken]
        newest = multihost_utils.broadcast_one_to_all(np.array(max(steps, default=-1)))
        return None if newest < 0 else int(newest)

    def _move_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            move_aside(self._directory / str(step))
        multihost_utils.sync_global_devices("checkpoint moved aside")
        self._manager.close()
        self._manager = self._open()


def to_save_again(directory: str | os.PathLike[str]) -> str:
    """What to do where a run's directory could not be written, for messages."""
    if is_bucket(directory):
        return f"see that {bucket_of(directory)} can be written, then start again"
    return "free space, then start again"
