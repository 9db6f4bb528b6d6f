"""Which step of a run was the best on held-out data, and when to take no more."""

import math
from dataclasses import dataclass, field
from typing import Literal

from vit_jax.errors import UserError


@dataclass(frozen=True)
class EarlyStopConfig:
    """The best step, by one of the run's evaluations, gives its final weights.

    So the paper trains on subsets of JFT-300M (section 4.3): without more regularisation, but with
    early stopping, and with the best validation accuracy that training achieves as its result.
    """

    # The evaluation's name in `evals`.
    eval: str
    # The loss is best when lowest, the others when highest.
    metric: Literal["top1", "top5", "loss"] = "top1"
    # After so many evaluations without a new best the run ends; None takes all its steps.
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise UserError(f"patience must be at least 1, not {self.patience}")

    @property
    def name(self) -> str:
        """As metrics have it, such as `val/top1`."""
        return f"{self.eval}/{self.metric}"


@dataclass
class BestStep:
    """The best step so far, which follows from the evaluation's values alone.

    Attributes:
      values: of every evaluated step.
      improvements: each step that was the best when it came, and its value; the last is the best.
      since: evaluations after that one.
    """

    config: EarlyStopConfig
    values: dict[int, float] = field(default_factory=dict)
    improvements: dict[int, float] = field(default_factory=dict)
    since: int = 0

    def add(self, step: int, value: float) -> None:
        """Takes the next value; one that only equals the best, or is NaN, is no improvement."""
        self.values[step] = value
        if self._score(step) > max(map(self._score, self.improvements), default=-math.inf):
            self.improvements[step] = value
            self.since = 0
        else:
            self.since += 1

    def ranked(self, last: int) -> list[int]:
        """The steps whose weights may be the final ones, the best first; of equals the earlier.

        Args:
          last: the step that is one of them in any case.
        """
        return sorted({*self.improvements, last}, key=lambda step: (-self._score(step), step))

    def _score(self, step: int) -> float:
        """The higher, the better; a step that gave no number is the worst."""
        value = self.values.get(step, math.nan)
        if math.isnan(value):
            return -math.inf
        return -value if self.config.metric == "loss" else value

    @property
    def is_over(self) -> bool:
        """Whether patience has come to its end."""
        return self.config.patience is not None and self.since >= self.config.patience
