"""Speed, and where the time between two reports has gone."""

import time


class Clock:
    """Measures speed between reports, without pauses such as evaluations.

    The first step of all does not count: it waits for the compiler and for the workers to start.

    Args:
      images_at_peak: see `analysis.peaks.images_at_peak`; None if it is unknown.
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
        self._spent: dict[str, float] = {}

    def pause(self, seconds: float) -> None:
        """Leaves these seconds out."""
        self._paused += seconds

    def spend(self, what: str, seconds: float) -> None:
        """Adds to what the next report says under `time/WHAT`; the speed is not affected."""
        self._spent[what] = self._spent.get(what, 0.0) + seconds

    def report(self, waited: float, steps_left: int) -> dict[str, float]:
        """What `measure` gives, and a new start."""
        scalars = self.measure(waited, steps_left)
        if scalars:
            self._restart(waited)
        return scalars

    def seconds(self) -> float:
        """The time since the last report, without pauses."""
        return max(time.perf_counter() - self._began - self._paused, 1e-9)

    def measure(self, waited: float, steps_left: int) -> dict[str, float]:
        """Scalars under `time/` since the last report.

        Args:
          waited: as for `tick`.

        Returns:
          `images_per_second`; `data_wait`, the share of the time spent waiting for data, in [0, 1];
          `seconds_left`, for the steps left; and `mfu`, the share of the peak speed, if the peak is
          known; and what was spent. Empty after the first step.
        """
        if not self._steps:
            return {}
        seconds = self.seconds()
        speed = self._steps * self._batch_size / seconds
        scalars = {
            "time/images_per_second": speed,
            "time/data_wait": min(1.0, (waited - self._waited_before) / seconds),
            "time/seconds_left": seconds / self._steps * steps_left,
        }
        if self._images_at_peak is not None:
            scalars["time/mfu"] = speed / self._images_at_peak
        return scalars | {f"time/{what}": seconds for what, seconds in self._spent.items()}
