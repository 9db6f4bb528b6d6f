"""The `evals` section of a config: each entry is one evaluation, of a registered kind.

A kind is a dataclass that is registered with `EvalConfig.kinds`; its `make` returns the evaluator.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from vit_jax.errors import UserError
from vit_jax.evaluation.context import Opener
from vit_jax.evaluation.evaluator import Evaluator
from vit_jax.kinds import Kinds


@dataclass(frozen=True)
class EvalConfig:
    """One evaluation; its name in `evals` prefixes its metrics."""

    kinds: ClassVar[Kinds["EvalConfig"]] = Kinds("evaluator", default="classification")
    kind: ClassVar[str]

    split: str
    """The examples to score, in TFDS syntax, such as `test` or `train[98%:]`."""
    dataset: str | None = None
    """A TFDS name or a folder. None is the training data's."""
    every_steps: int | None = None
    """Steps between two evaluations. None evaluates after the last step only."""
    batch_size: int | None = None
    """Images in one batch over all devices, rounded up to a multiple of them. None takes the rows
    of a training micro-batch, and without training 32 a device or as many as fit."""

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps < 1:
            raise UserError(f"every_steps must be at least 1, not {self.every_steps}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {self.batch_size}")

    def beyond_reading(self) -> Mapping[str, str]:
        """What it does besides reading files that are here, by the key that decides it.

        The config of a run that someone sent must not do so by itself.
        """
        return {}

    def output_files(self) -> Mapping[str, str]:
        """The files that it replaces, by the key that names each."""
        return {}

    def make(self, opener: Opener) -> Evaluator:
        """Opens the data and returns the evaluator.

        Raises:
          UserError: the data is missing, or does not fit the model.
        """
        raise NotImplementedError
