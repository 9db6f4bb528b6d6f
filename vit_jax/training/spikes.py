"""Losses far above those of the steps before: when a step counts as a spike."""

import statistics
from dataclasses import dataclass, field

from vit_jax.errors import SpikeError

# The losses of which the median is taken. Before there are as many, no step is a spike.
WINDOW = 100


@dataclass
class RecentLosses:
    """The losses of the latest steps with an update, which every checkpoint holds.

    So the median is the same after a resume, and on all processes.

    Attributes:
      multiple: of the median, above which a loss is a spike; None looks for none.
      values: at most `WINDOW`, the oldest first.
    """

    multiple: float | None
    values: list[float] = field(default_factory=list)

    def add(self, step: int, loss: float) -> None:
        """Takes the loss of the next step.

        Raises:
          SpikeError: it is a spike. Losses of an objective whose median is not positive never are.
        """
        if self.multiple is not None and len(self.values) == WINDOW:
            median = statistics.median(self.values)
            if 0 < self.multiple * median < loss:
                raise SpikeError(
                    step,
                    f"step {step}: loss is {loss:.4g}, more than {self.multiple:g} times "
                    f"{median:.4g}, the median of the {WINDOW} steps before",
                )
        self.values = [*self.values, loss][-WINDOW:]
