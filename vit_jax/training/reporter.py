"""Where a run's scalars go: metrics files and progress line, checked to be finite."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from vit_jax.analysis.peaks import images_at_peak, unknown_chip
from vit_jax.errors import UserError
from vit_jax.evaluation.evaluator import Scores
from vit_jax.runs.directory import RunDirectory
from vit_jax.runs.metrics import MetricsWriter, read_scalar
from vit_jax.training.early_stop import BestStep
from vit_jax.training.progress import Clock, Progress
from vit_jax.training.setup import Setup


def is_due(step: int, every_steps: int | None, total_steps: int) -> bool:
    """Whether it is the turn of something at a step; at the last one it always is."""
    return step == total_steps or (every_steps is not None and step % every_steps == 0)


class Reporter:
    """Where a run's scalars go: checked, to the metrics files and to the progress line.

    Attributes:
      recorded: names of the evaluations that the metrics hold of the step `start`.
    """

    def __init__(self, setup: Setup, run: RunDirectory, start: int, *, shown: bool):
        self._schedule, self._total = setup.program.schedule, setup.total_steps
        self._schedule(start)  # Its operations are compiled here, not in the time of a step.
        self._log_every, self._directory = setup.config.log_every, run.path
        self._writer = MetricsWriter(run.path, start) if shown else None
        self.recorded = _agree(self._writer.recorded if self._writer else set(), setup)
        self._progress = Progress(start, setup.total_steps, shown=shown)
        self._clock = Clock(setup.config.data.batch_size, _images_at_peak(setup))
        if start:
            self.message(f"going on after step {start} of {self._total}")
        chip = unknown_chip(setup.mesh.devices.flat)
        if chip is not None:
            self.message(f"no MFU: the peak of {chip} is not known")

    def finish(self, step: int, metrics: dict[str, Array], *, waited: float) -> None:
        """Waits for a step's scalars; writes and shows them where it is their turn.

        Raises:
          UserError: the loss or the gradient is not finite.
        """
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]):
                raise UserError(
                    f"step {step}: {name} is {values[name]}; train again "
                    "in a new --workdir with a lower optimizer.lr, a longer warm-up or a clip_norm"
                )
        self._clock.tick(waited)
        if not is_due(step, self._log_every, self._total):
            return
        scalars = {f"train/{name}": value for name, value in values.items()}
        scalars["train/lr"] = float(self._schedule(step - 1))
        scalars |= self._clock.report(waited, self._total - step)
        self._progress.step(step, scalars)
        self._write(step, scalars)

    def evaluated(self, step: int, name: str, scores: Scores) -> None:
        """Writes and shows what an evaluation gave."""
        self._write(step, {f"{name}/{key}": value for key, value in scores.values.items()})
        self.message(f"step {step}: {name} {scores.line}")

    def chosen(self, step: int, best: BestStep, chosen: int) -> None:
        """Writes and shows after the last step which one gives the final weights."""
        scalars = {"best/step": float(chosen)}
        if chosen in best.values:
            scalars[f"best/{best.config.name}"] = best.values[chosen]
        # A run that has ended and is started again says so already.
        if self._writer is not None and "best/step" not in self._writer.recorded:
            self._write(step, scalars)
        shown = ", ".join(f"{name} {value:g}" for name, value in scalars.items())
        wanted = best.ranked(step)[0]
        are = "the best ones" if chosen == wanted else "the best that can be read"
        gone = "" if chosen == wanted else f"; those of step {wanted}, {best.values[wanted]:g}, not"
        self.message(f"step {step}: the final weights are {are} ({shown}{gone})")

    def past(self, name: str) -> list[tuple[int, float]]:
        """The steps and values that earlier starts wrote of a scalar, on every process."""
        found = read_scalar(self._directory, name) if self._writer is not None else []
        count = int(multihost_utils.broadcast_one_to_all(np.array(len(found))))
        if not count:
            return []
        # As words, for JAX would round float64.
        pairs = np.array(found, np.float64) if found else np.zeros((count, 2))
        words = np.asarray(multihost_utils.broadcast_one_to_all(pairs.view(np.uint32)))
        return [(int(step), float(value)) for step, value in words.view(np.float64)]

    def message(self, text: str) -> None:
        """Shows a line of its own."""
        self._progress.message(text)

    def flush(self) -> None:
        """Returns when all metrics so far are on disk."""
        if self._writer is not None:
            self._writer.flush()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time does not count as training."""
        began = time.perf_counter()
        yield
        self._clock.pause(time.perf_counter() - began)

    def _write(self, step: int, scalars: dict[str, float]) -> None:
        if self._writer is not None:
            self._writer.write(step, scalars)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._progress.close()
        if self._writer is not None:
            self._writer.close()


def _images_at_peak(setup: Setup) -> float | None:
    if setup.config.optimizer.freeze:
        return None  # What is frozen needs no gradient, so that the count would be too high.
    return images_at_peak(setup.model, setup.mesh.devices.flat)


def _agree(recorded: set[str], setup: Setup) -> set[str]:
    """The evaluations of which the writing process has metrics, on every process."""
    names = list(setup.config.evals)
    has = np.array([any(key.startswith(f"{name}/") for key in recorded) for name in names], bool)
    if names:
        has = multihost_utils.broadcast_one_to_all(has)
    return {name for name, there in zip(names, has, strict=True) if there}
