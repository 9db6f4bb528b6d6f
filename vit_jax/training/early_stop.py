"""Early stopping: the best step so far by one score, and when patience runs out."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from vit_jax.errors import UserError


@dataclass(frozen=True)
class EarlyStopConfig:
    """The final weights are those of the best step, by a score of one of the run's evaluations.

    The paper trains on subsets of JFT-300M like this (section 4.3): with early stopping in place of
    more regularisation, and with the best validation accuracy during training as the result.
    """

    eval: str
    """Name of the evaluation in `evals`. It needs `every_steps`."""
    metric: str = "top1"
    """Name of one of its scores."""
    mode: Literal["min", "max"] | None = None
    """Whether the lowest or the highest value is best. None: as the evaluation says."""
    patience: int | None = None
    """The run ends after this many evaluations without a new best one. None takes all steps."""

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise UserError(f"patience must be at least 1, not {self.patience}")

    @property
    def name(self) -> str:
        """The name of the score in the metrics, such as `val/top1`."""
        return f"{self.eval}/{self.metric}"


@dataclass
class BestStep:
    """The best step so far.

    Attributes:
      step: None until a score was a number.
      value: the score of that step.
      evals_since: evaluations after that step.
    """

    lower_is_better: bool
    patience: int | None = None
    step: int | None = None
    value: float | None = None
    evals_since: int = 0

    def add(self, step: int, value: float) -> None:
        """Takes the next score. One that equals the best one, or is NaN, is no improvement."""
        if not math.isnan(value) and (self.value is None or self._is_better(value, self.value)):
            self.step, self.value, self.evals_since = step, value, 0
        else:
            self.evals_since += 1

    def _is_better(self, value: float, than: float) -> bool:
        return value < than if self.lower_is_better else value > than

    @property
    def is_over(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.evals_since >= self.patience

    def notes(self) -> dict[str, Any]:
        """What a checkpoint stores of the best step so far, as JSON; `noted` restores it."""
        return {"step": self.step, "value": self.value, "evals_since": self.evals_since}

    def noted(self, notes: Mapping[str, Any]) -> Self:
        """Restores what `notes` returned."""
        return dataclasses.replace(self, **notes)
