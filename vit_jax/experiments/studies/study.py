"""What a study is: cells that train, and claims about which of them is better."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vit_jax.errors import UserError

Verdict = Literal["seen", "not seen", "cannot be told here"]

LEAST_SEEDS = 3
"""Seeds below which no verdict is given."""
STANDARD_ERRORS = 2.0
"""A difference below so many standard errors is no verdict."""


class Cell(NamedTuple):
    """One variant.

    Attributes:
      name: its own in the study, such as "relative, stem".
      config: the text of `--config`.
      changes: of the config, such as "--config.model.pooling=gap".
      score: EVALUATION/METRIC of the final weights.
      after: the cell whose run of the same seed it starts from; None starts as the config says.
    """

    name: str
    config: str
    changes: tuple[str, ...]
    score: str
    after: str | None = None


class Claim(NamedTuple):
    """What the paper found: one cell is better than another.

    Attributes:
      text: in words.
      source: section, table or figure.
      better, worse: names of cells.
      within: for the claim that the two hardly differ, the share that counts as hardly; None claims
        that the first is better.
    """

    text: str
    source: str
    better: str
    worse: str
    within: float | None = None

    def verdict(self, found: "Difference") -> Verdict:
        """What a difference of the two cells says of the claim.

        Two cells are alike if the whole interval of two standard errors is, and differ if none of
        it is.
        """
        if self.within is None:
            return found.verdict
        spread = STANDARD_ERRORS * found.error
        if found.seeds < LEAST_SEEDS or abs(abs(found.value) - self.within) <= spread:
            return "cannot be told here"
        return "seen" if abs(found.value) < self.within else "not seen"


@dataclass(frozen=True)
class Study:
    """Cells that train and are compared.

    Attributes:
      name: as it is typed.
      title: what is compared.
      source: where the paper has it.
      published: the paper's figure of a cell, as a share, where it prints one.
      notes: choices that the paper leaves open.
    """

    name: str
    title: str
    source: str
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [cell.name for cell in self.cells]
        if len(set(names)) < len(names):
            raise UserError(f"study {self.name}: two cells have one name: {', '.join(names)}")
        for cell in self.cells:
            if cell.after is not None and cell.after not in names[: names.index(cell.name)]:
                raise ValueError(
                    f"cell {cell.name} starts from {cell.after}, which is not before it"
                )
        for claim in self.claims:
            if missing := {claim.better, claim.worse} - {*names}:
                raise ValueError(f"the claim {claim.text!r} names no cell {missing.pop()!r}")


class Difference(NamedTuple):
    """The mean of one cell less that of another.

    Attributes:
      value: as a share.
      error: its standard error, sqrt(s1^2 / n1 + s2^2 / n2); infinite if a cell has one seed.
      seeds: of the cell with fewer.
    """

    value: float
    error: float
    seeds: int

    @property
    def verdict(self) -> Verdict:
        """Whether the first is better, beyond two standard errors over at least three seeds."""
        if self.seeds < LEAST_SEEDS or abs(self.value) <= STANDARD_ERRORS * self.error:
            return "cannot be told here"
        return "seen" if self.value > 0 else "not seen"


def difference(better: Sequence[float], worse: Sequence[float]) -> Difference:
    """Compares the scores of two cells, a score for each seed.

    The seeds are taken as independent: those of one number share the order of data, so the error
    is rather too large.
    """
    seeds = min(len(better), len(worse))
    error = math.inf
    if seeds > 1:
        error = math.sqrt(sum(statistics.variance(x) / len(x) for x in (better, worse)))
    return Difference(statistics.fmean(better) - statistics.fmean(worse), error, seeds)
