"""Carries out a study: a `train` process for each cell and seed, resumed where it was ended.

What is done lies in the runs' directories, so the same call goes on after a kill.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vit_jax.config import load_config
from vit_jax.errors import UserError
from vit_jax.experiments.studies.study import Cell, Study
from vit_jax.experiments.sweep_plan import PlannedRun, check_seeds, file_name
from vit_jax.experiments.sweep_runs import Outcome, carry_out, outcome
from vit_jax.runs.cost import Cost
from vit_jax.schema import build
from vit_jax.spelling import nearest
from vit_jax.training.config import TrainConfig

Say = Callable[[str], object]


@dataclass(frozen=True)
class CellResult:
    """What the runs of a cell gave.

    Attributes:
      scores: one for each seed that did not diverge, as a share.
      diverged: seeds whose loss was not finite.
      cost: of all its runs; None if that of one is not known.
    """

    cell: Cell
    scores: tuple[float, ...]
    diverged: tuple[int, ...]
    cost: Cost | None


def run_study(
    study: Study, workdir: Path, seeds: Sequence[int], say: Say = print
) -> list[CellResult]:
    """Carries out what is left of a study, one run after the other, seed by seed.

    Args:
      say: gets a line for each run that starts, ends or had ended.

    Raises:
      UserError: a config does not build, a run failed or has no such score, or a run that another
        starts from diverged.
      Stopped: SIGTERM or SIGHUP came; the same call resumes.
    """
    check_seeds(seeds)
    check_study(study)
    workdir = workdir.expanduser().absolute()
    found: dict[tuple[str, int], Outcome] = {}
    count = len(seeds) * len(study.cells)
    for seed in seeds:
        for cell in study.cells:
            run = planned(cell, workdir, seed)
            which = f"run {len(found) + 1} of {count}, {run.name}"
            found[cell.name, seed] = _ended(run, cell, which, say)
    return [_result(cell, seeds, found) for cell in study.cells]


def check_study(study: Study) -> None:
    """Builds the config of each cell, so that a mistake shows before the first run.

    Raises:
      UserError: one does not build, or has no such evaluation.
    """
    for cell in study.cells:
        try:
            config = build(TrainConfig, load_config(cell.config, cell.changes))
        except UserError as error:
            raise UserError(f"study {study.name}, {cell.name}: {error}") from error
        evaluation = cell.score.partition("/")[0]
        if evaluation not in config.evals:
            raise UserError(
                f"study {study.name}, {cell.name}: the config has no evaluation {evaluation!r}; "
                f"write --score=EVALUATION/METRIC{nearest(evaluation, config.evals)}"
            )


def planned(cell: Cell, workdir: Path, seed: int) -> PlannedRun:
    """The run of a cell with a seed."""
    name = f"{file_name(cell.name)}/seed={seed}"
    start = []
    if cell.after is not None:
        before = workdir / file_name(cell.after) / f"seed={seed}"
        start = [f"--config.init_from={before}"]
    arguments = (
        f"--config={cell.config}",
        *cell.changes,
        *start,
        f"--config.seed={seed}",
        f"--workdir={workdir / name}",
        f"--compile_cache={workdir / 'compile_cache'}",
        "--report=off",
    )
    return PlannedRun(name, f"{cell.name}, seed {seed}", workdir / name, arguments)


def _ended(run: PlannedRun, cell: Cell, which: str, say: Say) -> Outcome:
    found = outcome(run)
    if found is not None:
        say(f"{which}: had ended")
    else:
        say(f"{which}: starts; its log is {run.log}")
        found = carry_out(run)
        say(f"{which}: " + ("has ended" if found.diverged is None else "diverged"))
    if found.diverged is None and cell.score not in found.scores:
        known = ", ".join(name for name in found.scores if name.count("/") == 1)
        raise UserError(f"run {run.name} has no score {cell.score!r}; --score takes one of {known}")
    return found


def _result(cell: Cell, seeds: Sequence[int], found: dict[tuple[str, int], Outcome]) -> CellResult:
    outcomes = {seed: found[cell.name, seed] for seed in seeds}
    costs = [each.cost for each in outcomes.values() if each.cost is not None]
    return CellResult(
        cell,
        tuple(each.scores[cell.score] for each in outcomes.values() if each.diverged is None),
        tuple(seed for seed, each in outcomes.items() if each.diverged is not None),
        Cost.total(costs) if len(costs) == len(outcomes) else None,
    )
