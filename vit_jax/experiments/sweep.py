"""A sweep as in the paper: rates are tried on a held-out part of train, then final runs follow.

Each run of a grid trains on the rest of train, and is scored on the part. The point with the
best score is chosen; of equal ones, the first. The final runs train on all of train, one for
each seed, and are scored as the config says (arXiv 2010.11929, appendix B.1.1).

    from vit_jax.experiments.sweep import run_sweep
    from vit_jax.experiments.sweep_plan import make_plan

    config = "configs/finetune.py:b16,pets,weights=imagenet21k/ViT-B_16"
    plan = make_plan(config, Path("sweeps/pets"))
    results = run_sweep(plan)
    print(results.mean["test/top1"], results.deviation["test/top1"])

All that is done lies in the runs' directories, so the same call resumes after a kill. Several
processes share the work by calling `run_index`, each with an index of its own.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vit_jax.errors import UserError
from vit_jax.experiments.sweep_plan import Plan, PlannedRun, Point, shown
from vit_jax.experiments.sweep_results import Results, make_results, write_results
from vit_jax.experiments.sweep_runs import Outcome, carry_out, outcome
from vit_jax.locks import lock
from vit_jax.reading import read_bytes
from vit_jax.runs.changes import changes
from vit_jax.runs.config_file import is_run, write_json
from vit_jax.runs.saved import upgrade_config
from vit_jax.schema import build, difference, to_dict
from vit_jax.training.config import TrainConfig

Say = Callable[[str], object]


def run_sweep(plan: Plan, say: Say = print) -> Results:
    """Carries out what is left of a sweep, one run after the other, and writes its results.

    Args:
      say: gets a line for each run that starts, ends or had ended.

    Raises:
      UserError: the directory holds another sweep, a run failed, or all runs of the grid diverged.
      Stopped: SIGTERM or SIGHUP came; the same call resumes.
    """
    _claim(plan)
    grid = plan.grid_runs()
    count = len(grid) + len(plan.seeds)
    tried = [_ended(run, f"run {i} of {count}", say) for i, run in enumerate(grid, 1)]
    chosen = _choose(plan, tried)
    say(f"chosen: {shown(chosen)}")
    for i, run in enumerate(plan.final_runs(chosen), len(grid) + 1):
        _ended(run, f"run {i} of {count}", say)
    results = _results(plan)
    assert not isinstance(results, str)
    return results


def run_index(plan: Plan, index: int, say: Say = print) -> Results | None:
    """Carries out one run of a sweep, as a job of an array does.

    Args:
      index: from 0: first the runs of the grid, then the final ones.
      say: as for `run_sweep`; gets what is still missing in one line.

    Returns:
      The results if no run is missing now.

    Raises:
      UserError: as `run_sweep`; the index is out of range; or it is that of a final run, and the
        grid has not ended.
      Stopped: as `run_sweep`.
    """
    grid = plan.grid_runs()
    count = len(grid) + len(plan.seeds)
    if not 0 <= index < count:
        raise UserError(
            f"--index={index}: the runs of this sweep are 0 to {count - 1}, the grid being 0 to "
            f"{len(grid) - 1}; write such an index, or --array=0-{count - 1}"
        )
    _claim(plan)
    if index < len(grid):
        run = grid[index]
    else:
        missing = [run.name for run in grid if outcome(run) is None]
        if missing:
            raise UserError(
                f"--index={index} is a final run, which waits for the grid; missing: "
                f"{', '.join(missing)}; start it when they have ended, as with sbatch "
                "--dependency=afterok:JOB"
            )
        run = plan.final_runs(_chosen(plan))[index - len(grid)]
    _ended(run, f"run {index}, of 0 to {count - 1}", say)
    results = _results(plan)
    if isinstance(results, str):
        say(results)
        return None
    return results


def _ended(run: PlannedRun, which: str, say: Say) -> Outcome:
    """What a run gave that has ended, or that is carried out now."""
    found = outcome(run)
    if found is not None:
        say(f"{which}, {run.name}: had ended")
        return found
    say(f"{which}, {run.name}: starts; its log is {run.log}")
    found = carry_out(run)
    how = "has ended" if found.diverged is None else f"diverged ({found.diverged})"
    say(f"{which}, {run.name}: {how}" + ("" if found.cost is None else f"; {found.cost}"))
    return found


def _choose(plan: Plan, tried: list[Outcome]) -> Point:
    """The point of the best score; of equal ones, the first."""
    for run, each in zip(plan.grid_runs(), tried, strict=True):
        if each.diverged is None and plan.score not in each.scores:
            known = [name.partition("/")[2] for name in each.scores if name.count("/") == 1]
            raise UserError(
                f"run {run.name} has no score {plan.metric!r}; --score="
                f"{plan.evaluation}/METRIC takes one of {', '.join(known)}, in a new --workdir"
            )
    scored = [
        (each.scores[plan.score], point)
        for point, each in zip(plan.points, tried, strict=True)
        if each.diverged is None
    ]
    if not scored:
        raise UserError(
            f"every run of the grid diverged ({plan.grid_runs()[0].name}: {tried[0].diverged}); "
            "try lower learning rates, in a new --workdir"
        )
    best = max if plan.mode == "max" else min
    return best(scored, key=lambda pair: pair[0])[1]


def _chosen(plan: Plan) -> Point:
    """The choice of a grid that has ended."""
    found = [outcome(run) for run in plan.grid_runs()]
    return _choose(plan, [each for each in found if each is not None])


def _results(plan: Plan) -> Results | str:
    """Writes the results of a sweep and returns them, or a line that says what is missing."""
    grid = plan.grid_runs()
    tried = [outcome(run) for run in grid]
    missing = [run.name for run, each in zip(grid, tried, strict=True) if each is None]
    if missing:
        return f"missing: {', '.join(missing)}, then the {len(plan.seeds)} final runs"
    ended = [each for each in tried if each is not None]
    chosen = _choose(plan, ended)
    runs = plan.final_runs(chosen)
    final = [outcome(run) for run in runs]
    missing = [run.name for run, each in zip(runs, final, strict=True) if each is None]
    if missing:
        return f"chosen: {shown(chosen)}; missing: {', '.join(missing)}"
    results = make_results(plan, ended, chosen, [each for each in final if each is not None])
    with _locked(plan.workdir):
        write_results(results, plan.workdir)
    return results


def _claim(plan: Plan) -> None:
    """States the sweep in its directory, or checks that it is the one that is there.

    Raises:
      UserError: another sweep or a run is there, or the directory cannot be written.
    """
    if is_run(plan.workdir):
        raise UserError(f"{plan.workdir} is the directory of a run; choose another with --workdir")
    file = plan.workdir / "sweep.json"
    try:
        plan.workdir.mkdir(parents=True, exist_ok=True)
        with _locked(plan.workdir):
            if not file.exists():
                write_json(file, plan.stated())
            stored = json.loads(read_bytes(file))
            if not isinstance(stored, dict):
                raise ValueError("no JSON object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}); restore it or remove it") from error
    except OSError as error:
        raise UserError(
            f"cannot write to {plan.workdir} ({error.strerror}); free space, change its "
            "permissions, or choose another with --workdir"
        ) from error
    changed = _changes(stored, json.loads(json.dumps(plan.stated())))
    if changed:
        raise UserError(
            f"{plan.workdir} holds another sweep ({'; '.join(changed)}); use its flags, or another "
            "--workdir"
        )


def _changes(stored: Mapping[str, Any], stated: Mapping[str, Any]) -> list[str]:
    """What makes two sweeps different; what a run may change when it resumes does not."""
    before, after = dict(stored), dict(stated)
    saved = upgrade_config(before.pop("config", {}))
    with suppress(UserError):  # The differences name the keys.
        saved = to_dict(build(TrainConfig, saved))
    changed = changes(saved, after.pop("config"))
    return [*difference(before, after), *(f"config.{line}" for line in changed)]


@contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    """Keeps other jobs from writing the files of the sweep at the same time."""
    with open(workdir / "sweep.lock", "ab") as file:
        lock(file)
        yield
