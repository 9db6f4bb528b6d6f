"""The end of a start's time: `--max_minutes`."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

# What a checkpoint and the file of weights of a model take that minutes are enough for.
_SAVE_SECONDS = 5.0
# Measured times may grow by this share.
_SPARE = 1.2


@dataclass
class Deadline:
    """Says when a start must stop taking steps, so that its end still fits into its minutes.

    The end is a checkpoint, the evaluations of the weights, the file of weights, and what callbacks
    do after that.

    Attributes:
      minutes: of this start; None sets no end.
      began: when it began, by `time.monotonic`.
      agree_every: steps between two agreements of several processes.
      evaluation_steps: the steps that take as long as all evaluations, until those were timed.
      seconds_later: what callbacks take, by the seconds of all evaluations; None is nothing.
    """

    minutes: float | None
    began: float
    agree_every: int
    evaluation_steps: float
    seconds_later: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        self._evaluation: float | None = None
        self._steps: deque[float] = deque(maxlen=5)
        self._last: float | None = None

    @property
    def seconds_for_the_end(self) -> float:
        """What the end takes, by what was measured."""
        evaluation = self._evaluation
        if evaluation is None:
            evaluation = self.evaluation_steps * max(self._steps, default=0.0)
        later = 0.0 if self.seconds_later is None else self.seconds_later(evaluation)
        return _SPARE * (evaluation + _SAVE_SECONDS + later)

    @contextmanager
    def timing_evaluation(self) -> Iterator[None]:
        """Around evaluations; the longest counts. Their time is no step's."""
        began = time.monotonic()
        yield
        self._evaluation = max(time.monotonic() - began, self._evaluation or 0.0)
        self._last = None

    def is_reached(self, step: int) -> bool:
        """Whether no further step fits; every process calls this after each step."""
        if self.minutes is None:
            return False
        now = time.monotonic()
        if self._last is not None:
            self._steps.append(now - self._last)
        self._last = now
        left = self.minutes * 60 - (now - self.began)
        reached = left < self.seconds_for_the_end + max(self._steps, default=0.0)
        if jax.process_count() == 1:
            return reached
        if step % self.agree_every:
            return False
        return bool(multihost_utils.broadcast_one_to_all(np.array(reached)))
