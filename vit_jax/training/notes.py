"""What a resumed run must know besides its arrays; every checkpoint holds it as JSON."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from vit_jax.parallel.agreement import on_all_processes
from vit_jax.runs.metrics import read_metrics
from vit_jax.training.early_stop import BestStep
from vit_jax.training.spikes import RecentLosses


@dataclass
class Notes:
    """The evaluations, rewinds and latest losses of a run.

    Attributes:
      step: the step after which the latest evaluations ran.
      evaluated: names of the evaluations that are done for that step.
      scores: the latest value of each score, such as `val/top1`.
      best: None without early stopping.
      losses: the latest ones.
      best_scores: the scores of the best step.
      passed: first and last step of each range that passed without an update, a rewind each.
    """

    best: BestStep | None
    losses: RecentLosses
    step: int = 0
    evaluated: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    best_scores: dict[str, float] = field(default_factory=dict)
    passed: list[list[int]] = field(default_factory=list)

    @property
    def passed_steps(self) -> int:
        """How many steps passed without an update."""
        return sum(last - first + 1 for first, last in self.passed)

    def add(self, step: int, name: str, scores: Mapping[str, float], judged_by: str | None) -> None:
        """Notes an evaluation.

        Args:
          judged_by: the score that early stopping goes by, such as `val/top1`; None without it.
        """
        named = {f"{name}/{key}": value for key, value in scores.items()}
        if step != self.step:
            self.step, self.evaluated = step, []
        self.evaluated.append(name)
        self.scores |= named
        if self.best is not None and judged_by in named:
            self.best.add(step, named[judged_by])
            if self.best.step == step:
                self.best_scores = {}
        if self.best is not None and self.best.step == step:
            self.best_scores |= named

    def is_done(self, step: int, name: str) -> bool:
        """Whether an evaluation has run for this step."""
        return step == self.step and name in self.evaluated

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it; `noted` inverts it."""
        return {
            "step": self.step,
            "evaluated": self.evaluated,
            "scores": self.scores,
            "best": None if self.best is None else self.best.notes(),
            "best_scores": self.best_scores,
            "passed": self.passed,
            "losses": self.losses.values,
        }

    def noted(self, json: Mapping[str, Any]) -> Self:
        """The notes that a checkpoint holds."""
        best = None if self.best is None else self.best.noted(json["best"])
        # Checkpoints of earlier versions have no losses.
        losses = dataclasses.replace(self.losses, values=json.get("losses", []))
        return dataclasses.replace(self, **{**json, "best": best, "losses": losses})


def notes_of_0_1_0(
    start: int, directory: Path, names: list[str], notes: Notes, judged_by: str | None
) -> Notes:
    """The notes of a run whose checkpoint has none: version 0.1.0 had them in its metrics only.

    Args:
      start: the checkpoint's step; later metrics do not count.
      names: of the run's evaluations.
      notes: empty ones.
    """
    # Process 0 cuts the file back next, so it must not before the others have read it.
    with on_all_processes():
        for line in read_metrics(directory):
            for name in names if line["step"] <= start else ():
                prefix = f"{name}/"
                scores = {
                    k.removeprefix(prefix): v for k, v in line.items() if k.startswith(prefix)
                }
                if scores:
                    notes.add(int(line["step"]), name, scores, judged_by)
    return notes
