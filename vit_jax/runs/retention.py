"""Which checkpoints stay."""

from collections.abc import Sequence
from dataclasses import dataclass

from orbax.checkpoint.checkpoint_managers import (
    PolicyCheckpointInfo,
    PreservationContext,
    PreservationPolicy,
)


@dataclass
class Retention(PreservationPolicy):
    """Keeps the newest checkpoints and the best one.

    Attributes:
      keep: how many of the newest.
      best: the step of the best; None if there is none.
    """

    keep: int
    best: int | None = None

    def should_preserve(
        self, checkpoints: Sequence[PolicyCheckpointInfo], *, context: PreservationContext
    ) -> list[bool]:
        """Whether each checkpoint stays; Orbax asks after each save."""
        del context
        newest = sorted(info.step for info in checkpoints)[-self.keep :]
        return [info.step in newest or info.step == self.best for info in checkpoints]
