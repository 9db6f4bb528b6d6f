"""What a sweep found: the chosen point, the final scores with mean and deviation, and the cost."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from vit_jax import atomic
from vit_jax.experiments.sweep_plan import Mode, Plan, Point, shown
from vit_jax.experiments.sweep_runs import Outcome
from vit_jax.runs.config_file import write_json
from vit_jax.runs.cost import Cost


class Row(NamedTuple):
    """One run.

    Attributes:
      setting: what tells it from the others.
      scores: by name; empty if it diverged.
      cost: None if it is not known.
    """

    setting: str
    scores: dict[str, float]
    diverged: str | None
    cost: Cost | None


@dataclass(frozen=True)
class Results:
    """A sweep whose runs have all ended.

    Attributes:
      fit, held_out: splits on which runs of the grid trained, and were scored.
      score: the one that chose.
      mode: whether the highest or the lowest was best.
      grid, final: the runs.
      chosen: keys with their values, as typed.
      seeds: of the final runs, in their order.
      mean: of each score over the final runs.
      deviation: the sample's, with n - 1 in the denominator; empty if there is one run.
      cost: of all runs together; None if that of one is not known.
    """

    fit: str
    held_out: str
    score: str
    mode: Mode
    grid: list[Row]
    chosen: dict[str, str]
    seeds: tuple[int, ...]
    final: list[Row]
    mean: dict[str, float]
    deviation: dict[str, float]
    cost: Cost | None

    def __str__(self) -> str:
        """Tables in Markdown, and lines on the choice and the result."""
        names = [name for name in self.mean if not name.endswith("/examples")]
        grid = [_cells(row, [self.score]) for row in self.grid]
        final = [_cells(row, names) for row in self.final]
        final.append(["mean", *(f"{self.mean[name]:.4f}" for name in names)])
        if self.deviation:
            final.append(["deviation", *(f"{self.deviation[name]:.4f}" for name in names)])
        kind = "deviation of the sample, with n - 1"
        lines = [
            f"Grid, trained on {self.fit} and scored on {self.held_out}:",
            "",
            *_table(["run", self.score, *_COSTS], grid),
            "",
            f"Chosen: {shown(self.chosen)}, by the {_BEST[self.mode]} {self.score}.",
            "",
            f"Final runs, with seeds {', '.join(map(str, self.seeds))} ({kind}):",
            "",
            *_table(["run", *names, *_COSTS], final),
            "",
            "Cost of all runs: " + ("not known" if self.cost is None else f"{self.cost}") + ".",
        ]
        return "\n".join(lines)


_BEST = {"max": "highest", "min": "lowest"}
_COSTS = ("device-hours", "core-days", "images", "exaFLOPs")


def make_results(
    plan: Plan, tried: Sequence[Outcome], chosen: Point, final: Sequence[Outcome]
) -> Results:
    """Puts together what the runs of a sweep gave.

    Args:
      tried: of the grid, in the order of `plan.points`.
      final: one for each of the plan's seeds.
    """
    names = [name for name in final[0].scores if name.count("/") == 1]
    names.sort(key=lambda name: name != f"{plan.evaluation}/{plan.metric}")  # What chose is first.
    columns = {name: [each.scores[name] for each in final] for name in names}
    costs = [each.cost for each in (*tried, *final)]
    known = [cost for cost in costs if cost is not None]
    return Results(
        fit=plan.fit,
        held_out=plan.held_out,
        score=plan.score,
        mode=plan.mode,
        grid=[_row(shown(p), each) for p, each in zip(plan.points, tried, strict=True)],
        chosen=dict(chosen),
        seeds=plan.seeds,
        final=[_row(f"seed={s}", each) for s, each in zip(plan.seeds, final, strict=True)],
        mean={name: statistics.fmean(values) for name, values in columns.items()},
        deviation={
            name: statistics.stdev(values) for name, values in columns.items() if len(values) > 1
        },
        cost=Cost.total(known) if len(known) == len(costs) else None,
    )


def write_results(results: Results, workdir: Path) -> None:
    """Writes `results.json` and `results.md`."""
    value = asdict(results)
    for key in ("grid", "final"):
        rows: list[Row] = getattr(results, key)
        value[key] = [
            {**row._asdict(), "cost": None if row.cost is None else asdict(row.cost)}
            for row in rows
        ]
    write_json(workdir / "results.json", {**value, "deviation_of": "sample, n - 1"})
    atomic.write_bytes(workdir / "results.md", f"{results}\n".encode())


def _row(setting: str, each: Outcome) -> Row:
    return Row(setting, each.scores, each.diverged, each.cost)


def _cells(row: Row, names: Iterable[str]) -> list[str]:
    scores = [
        "diverged" if row.diverged is not None else f"{row.scores[name]:.4f}" for name in names
    ]
    if row.cost is None:
        return [row.setting, *scores]
    flops = "" if row.cost.exaflops is None else f"{row.cost.exaflops:.3g}"
    hours, days = f"{row.cost.device_hours:.3g}", f"{row.cost.core_days:.3g}"
    return [row.setting, *scores, hours, days, f"{row.cost.images:,}", flops]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown, its columns aligned; short rows are filled up."""
    full = [list(head), *([*row, *[""] * (len(head) - len(row))] for row in rows)]
    widths = [max(len(row[i]) for row in full) for i in range(len(head))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in full
    ]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return [lines[0], rule, *lines[1:]]
