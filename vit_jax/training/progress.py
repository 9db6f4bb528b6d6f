"""What a person sees of a run: a line that is rewritten on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tqdm import tqdm


class Clock:
    """Measures speed between reports; pauses, such as evaluations, do not count.

    Neither does the first step of all, which waits for the compiler and for the workers to start.

    Args:
      images_at_peak: see `analysis.peaks.images_at_peak`; None where that is not known.
    """

    def __init__(self, batch_size: int, images_at_peak: float | None = None):
        self._batch_size, self._images_at_peak = batch_size, images_at_peak
        self._is_started = False
        self._restart(0.0)

    def tick(self, waited: float) -> None:
        """One more step is done.

        Args:
          waited: seconds that the loader has kept the loop waiting since the run's start.
        """
        if self._is_started:
            self._steps += 1
        else:
            self._is_started = True
            self._restart(waited)

    def _restart(self, waited: float) -> None:
        self._began, self._waited_before = time.perf_counter(), waited
        self._paused, self._steps = 0.0, 0

    def pause(self, seconds: float) -> None:
        """Leaves so many seconds out."""
        self._paused += seconds

    def report(self, waited: float, steps_left: int) -> dict[str, float]:
        """Scalars under `time/` since the last report, and a new start.

        Args:
          waited: as of `tick`.

        Returns:
          Images per second, share of the time spent waiting for data, in [0, 1], and seconds that
          the steps left will take; and as `time/mfu` the share of the peak speed, if it is known.
          Nothing after the first step.
        """
        if not self._steps:
            return {}
        seconds = max(time.perf_counter() - self._began - self._paused, 1e-9)
        speed = self._steps * self._batch_size / seconds
        scalars = {
            "time/images_per_second": speed,
            "time/data_wait": min(1.0, (waited - self._waited_before) / seconds),
            "time/seconds_left": seconds / self._steps * steps_left,
        }
        if self._images_at_peak is not None:
            scalars["time/mfu"] = speed / self._images_at_peak
        self._restart(waited)
        return scalars


class Progress:
    """Prints a run's progress, on one process only."""

    def __init__(self, start: int, total_steps: int, *, shown: bool):
        self._shown, self._total = shown, total_steps
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            form = "{desc} |{bar:20}| {postfix}"
            self._bar = tqdm(total=total_steps, initial=start, bar_format=form, leave=True)

    def step(self, step: int, scalars: Mapping[str, float]) -> None:
        """Shows the scalars that `train/` and, where they are known yet, `time/` name."""
        text = f"loss {scalars['train/loss']:.4f}, rate {scalars['train/lr']:.2e}"
        if "time/images_per_second" in scalars:
            left = timedelta(seconds=round(scalars["time/seconds_left"]))
            mfu = f"MFU {scalars['time/mfu']:.1%}, " if "time/mfu" in scalars else ""
            text += (
                f", {scalars['time/images_per_second']:,.0f} img/s, {mfu}"
                f"waiting for data {scalars['time/data_wait']:.0%}, {left} left"
            )
        if scalars["train/skipped"]:
            text += f", {scalars['train/skipped']:,.0f} images skipped"
        if self._bar is not None:
            self._bar.set_description_str(f"step {step}/{self._total}", refresh=False)
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
            self._bar.refresh()
        elif self._shown:
            print(f"step {step}/{self._total}: {text}", flush=True)

    def message(self, text: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.write(text)
        elif self._shown:
            print(text, flush=True)

    def close(self) -> None:
        """Leaves the last line as it is."""
        if self._bar is not None:
            self._bar.close()
