"""What every kind of evaluation is: it asks for passes over sources and turns answers into scores.

An evaluator knows no processes, no batches and no devices: `inference.passes` does.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from vit_jax.inference.requests import Answer, Request


class Scores(NamedTuple):
    """What an evaluation found.

    Attributes:
      values: by name, as they go to the metrics.
      line: the same for a person, without the evaluation's name.
    """

    values: dict[str, float]
    line: str


class Evaluator(Protocol):
    """Scores a model on one or more sources."""

    @property
    def requests(self) -> Mapping[str, Request]:
        """What the evaluator needs of each source; keys are the sources' roles, such as `test`."""
        ...

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of all scores that `scores` returns."""
        ...

    @property
    def lower_is_better(self) -> frozenset[str]:
        """The scores that are better when they are lower."""
        ...

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """Turns the answers to `requests`, by the same roles, into scores; on process 0 only.

        Raises:
          UserError: the answers hold nothing to score.
        """
        ...
