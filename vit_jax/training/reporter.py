"""Where a run's scalars go: checked to be finite, to the metrics, the callbacks and a person."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import jax
from jax import Array

from vit_jax.analysis.peaks import images_at_peak, unknown_chip
from vit_jax.errors import NotFiniteError
from vit_jax.evaluation.evaluator import Scores
from vit_jax.parallel.agreement import on_all_processes
from vit_jax.runs.metrics import MetricsWriter
from vit_jax.training.callbacks import Callbacks
from vit_jax.training.clock import Clock
from vit_jax.training.memory import memory_in_use
from vit_jax.training.progress import Progress
from vit_jax.training.setup import Setup
from vit_jax.training.spikes import RecentLosses

# Seconds of steps after which their speed is shown for the first time.
_FIRST_SPEED_AFTER = 10.0
_DAY = 24 * 3600


def is_due(step: int, every_steps: int | None, total_steps: int) -> bool:
    """Whether something that comes every so many steps comes at this one; the last is always due.

    Args:
      every_steps: None is the last step only.
    """
    return step == total_steps or (every_steps is not None and step % every_steps == 0)


class Reporter:
    """Writes and shows the scalars of a run, on process 0; checks them on all processes.

    Args:
      start: the step after which this start takes steps.
      writer, callbacks: None on the other processes.
      losses: of the steps so far. What a rewind restores takes its place.
    """

    def __init__(
        self,
        setup: Setup,
        start: int,
        writer: MetricsWriter | None,
        callbacks: Callbacks | None,
        losses: RecentLosses,
    ):
        self._schedule, self._total = setup.program.schedule, setup.total_steps
        self._schedule(start)  # Compiles its operations now, not in the time of a step.
        self._log_every, self._norms = setup.config.log_every, setup.program.norms
        self._warned = False
        self._writer, self.callbacks, self.losses = writer, callbacks, losses
        self._progress = Progress(start, setup.total_steps, shown=writer is not None)
        self._clock = Clock(setup.config.data.batch_size, _images_at_peak(setup))
        self._devices = setup.mesh.local_devices
        self._shows_early = True
        self._pending: tuple[int, Mapping[str, Array], float] | None = None
        if start:
            self.message(f"resuming after step {start} of {self._total}")
        chip = unknown_chip(setup.mesh.devices.flat)
        if chip is not None:
            self.message(f"no MFU: the peak speed of {chip} is unknown")

    def log_step(self, step: int, metrics: Mapping[str, Array], *, waited: float) -> None:
        """Takes the scalars of a step that was dispatched, and logs those of the step before.

        Only those are waited for, so that the devices always have a step to compute.

        Args:
          waited: seconds that the loader has kept the loop waiting since the run's start.

        Raises:
          NotFiniteError: the loss or the gradient is not finite.
          SpikeError: the loss is a spike.
        """
        self.settle()
        self._pending = step, metrics, waited
        # CPUs may compute a step where it is dispatched: the next one would count its time. Several
        # processes must learn of a loss that is not finite after the same step.
        loss: Any = metrics["loss"]  # The types of jax 0.10 do not know `is_ready`.
        if jax.process_count() == 1 and loss.is_ready():
            self.settle()

    def settle(self) -> None:
        """Waits for the step that was dispatched last, and logs its scalars.

        Raises:
          NotFiniteError, SpikeError: as `log_step`.
        """
        if self._pending is None:
            return
        (step, metrics, waited), self._pending = self._pending, None
        arrays = dict(jax.device_get(metrics))
        norms = arrays.pop("norms", None)
        values = {name: float(value) for name, value in arrays.items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]):
                raise NotFiniteError(step, f"step {step}: {name} is {values[name]}")
        self.losses.add(step, values["loss"])
        self._clock.tick(waited)
        if is_due(step, self._log_every, self._total):
            scalars = self._of_training(step, values)
            scalars |= self._clock.report(waited, self._total - step)
            self._progress.step(step, scalars)
            self._warn_of_days(scalars)
            if self._norms is not None and norms is not None:
                scalars |= self._norms.scalars(norms)
            self._write(step, scalars | memory_in_use(self._devices))
            self._shows_early = False
        elif self._shows_early:
            self._show_early(step, values, waited)

    def _of_training(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Scalars under `train/` of a step that is shown: the rate waits for the devices."""
        scalars = {f"train/{name}": value for name, value in values.items()}
        scalars["train/lr"] = float(self._schedule(step - 1))
        return scalars

    def _show_early(self, step: int, values: Mapping[str, float], waited: float) -> None:
        """Shows the first step, and one more as soon as its speed means something.

        Until the first report is due, which may take long, nothing else tells that all is well.
        """
        speed = self._clock.measure(waited, self._total - step)
        if speed and self._clock.seconds() <= _FIRST_SPEED_AFTER:
            return
        self._progress.step(step, self._of_training(step, values) | speed)
        self._warn_of_days(speed)
        self._shows_early = not speed

    def _warn_of_days(self, speed: Mapping[str, float]) -> None:
        """Says once that a run will take a day or more."""
        seconds_left = speed.get("time/seconds_left", 0.0)
        if seconds_left >= _DAY and not self._warned:
            self._warned = True
            self.message(
                f"at this speed the run takes {seconds_left / _DAY:.1f} days more; a new --workdir "
                "with a lower --config.total_steps takes less"
            )

    def log_evaluation(self, step: int, name: str, scores: Scores, seconds: float) -> None:
        """Writes and shows what an evaluation gave, and the time that it took."""
        values = {f"{name}/{key}": value for key, value in scores.values.items()}
        self._write(step, values | {f"time/evaluation/{name}": seconds})
        first, *table = scores.line.split("\n")
        for line in (f"step {step}: {name} {first}, in {seconds:.1f} s", *table):
            self.message(line)

    def log_rewind(self, first: int, last: int, count: int) -> None:
        """Writes and shows that steps pass without an update; drops what was written of them.

        Args:
          first, last: these steps.
          count: the rewinds of the run so far.
        """
        self._pending = None
        with on_all_processes():
            if self._writer is not None:
                self._writer.cut(first - 1)
        scalars = {"first": float(first), "last": float(last), "count": float(count)}
        self._write(last, {f"rewind/{name}": value for name, value in scalars.items()})
        self.message(
            f"rewind {count}: back to the state after step {first - 1}; steps {first} to {last} "
            "pass without an update"
        )

    def log_final_weights(self, last: int, chosen: int, name: str, value: float | None) -> None:
        """Writes and shows which step's weights are the final ones.

        Args:
          last: the step after which the run ended.
          name: of the score that chose, such as `val/top1`.
          value: its value at the chosen step; None if the step was not chosen by it.
        """
        scalars = {"best/step": float(chosen)}
        if value is not None:
            scalars[f"best/{name}"] = value
        self._write(last, scalars)
        score = "" if value is None else f", {name} {value:g}"
        self.message(f"final weights: step {chosen}{score}")

    def message(self, text: str) -> None:
        """Shows a line of its own."""
        self._progress.message(text)

    def flush(self) -> None:
        """Returns when all metrics so far are on disk."""
        if self._writer is not None:
            self._writer.flush()

    @contextmanager
    def paused(self, logged_as: str | None = None) -> Iterator[None]:
        """A context whose time does not count as training.

        Args:
          logged_as: a name under `time/` for these seconds in the next line of the metrics.
        """
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self._clock.pause(seconds)
        if logged_as is not None:
            self.spend(logged_as, seconds)

    def spend(self, what: str, seconds: float) -> None:
        """Adds to what the next line of the metrics says under `time/WHAT`."""
        self._clock.spend(what, seconds)

    def _write(self, step: int, scalars: dict[str, float]) -> None:
        if self._writer is not None and self.callbacks is not None:
            new = self._writer.write(step, scalars)
            self.callbacks.scalars(step, new)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()


def _images_at_peak(setup: Setup) -> float | None:
    if setup.config.optimizer.freeze:
        return None  # Frozen parameters need no gradient, so the count would be too high.
    return images_at_peak(setup.model, setup.mesh.devices.flat)
