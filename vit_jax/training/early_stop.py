"""Which step of a run was the best on held-out data, and when to take no more."""

import math
from dataclasses import dataclass, field
from typing import Literal

import jax

from vit_jax.errors import UserError
from vit_jax.models.functional import Params
from vit_jax.runs.checkpoints import Checkpoints
from vit_jax.training.step import TrainState, final_params


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
      improvements: each step that was the best when it came, and its value; the last is the best.
      since: evaluations after that one.
    """

    config: EarlyStopConfig
    improvements: dict[int, float] = field(default_factory=dict)
    since: int = 0

    def add(self, step: int, value: float) -> None:
        """Takes the next value; one that only equals the best, or is NaN, is no improvement."""
        sign = -1 if self.config.metric == "loss" else 1
        best = max((sign * old for old in self.improvements.values()), default=-math.inf)
        if sign * value > best:
            self.improvements[step] = value
            self.since = 0
        else:
            self.since += 1

    @property
    def is_over(self) -> bool:
        """Whether patience has come to its end."""
        return self.config.patience is not None and self.since >= self.config.patience


def best_params(
    best: BestStep, last: int, state: TrainState, checkpoints: Checkpoints
) -> tuple[int, Params]:
    """The best step whose checkpoint can be read, and its weights; else the last step's.

    Args:
      state: of the step `last`; of its arrays, those of the optimizer are given up.
    """
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    # So that another state has room, where gradients and activations had it.
    jax.tree.map(lambda x: x.delete(), state.opt_state)
    for step in sorted(best.improvements, reverse=True):
        if step == last:
            break
        restored = checkpoints.restore_step(step, like)
        if restored is not None:
            return step, final_params(restored)
    return last, final_params(state)
