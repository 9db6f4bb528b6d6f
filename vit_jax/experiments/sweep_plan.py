"""What a sweep runs: a grid on a part of train, then final runs on all of it."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vit_jax.analysis.published.recipes import FINAL_RUNS, HELD_OUT, TABLE_4
from vit_jax.config import load_config
from vit_jax.data.sources.published import DATASETS
from vit_jax.errors import UserError
from vit_jax.evaluation.frozen_features import FrozenConfig
from vit_jax.experiments.sweep_splits import parts_of
from vit_jax.schema import build, to_dict
from vit_jax.spelling import nearest
from vit_jax.training.config import TrainConfig
from vit_jax.training.open_keys import open_keys
from vit_jax.weights.catalogue.hub import SCHEME, HubName

HELD_OUT_EVAL = "held_out"
"""The evaluation that scores the runs of the grid."""

# Keys with values as they are typed.
Point = Mapping[str, str]
Grid = Mapping[str, Sequence[str]]
Mode = Literal["max", "min"]

# Scores of the package's own evaluators that are better when they are lower.
_LOWER_IS_BETTER = ("loss", "calibration_error")
# Keys of a config that the sweep itself sets, and how a user sets them.
_OWN = {"seed": "--seeds", "data.train": "--held_out", "evals": "--score", "early_stop": "--score"}


class PlannedRun(NamedTuple):
    """One run of a sweep.

    Attributes:
      name: its directory within the sweep's.
      setting: what tells it from the others, such as "optimizer.lr=0.003" or "seed=1".
      directory: of the run.
      arguments: of the command `train`, in full.
    """

    name: str
    setting: str
    directory: Path
    arguments: tuple[str, ...]

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.directory / "log.txt"


@dataclass(frozen=True)
class Plan:
    """A checked sweep.

    Attributes:
      config: the text of `--config`.
      overrides: of this config, such as "--config.total_steps=100".
      values: the config that they make.
      workdir: of the sweep.
      grid: the values of each key, as typed.
      fit, held_out: splits on which runs of the grid train, and are scored.
      evaluation, metric: of the score that chooses, as the config names them.
      mode: whether the highest or the lowest is best.
      seeds: of the final runs.
    """

    config: str
    overrides: tuple[str, ...]
    values: dict[str, Any]
    workdir: Path
    grid: Grid
    fit: str
    held_out: str
    evaluation: str
    metric: str
    mode: Mode
    seeds: tuple[int, ...]

    @property
    def score(self) -> str:
        """The score by which a run of the grid is chosen."""
        return f"{HELD_OUT_EVAL}/{self.metric}"

    @property
    def points(self) -> list[Point]:
        """All combinations of the grid's values; the last key changes fastest."""
        combinations = itertools.product(*self.grid.values())
        return [dict(zip(self.grid, values, strict=True)) for values in combinations]

    def grid_runs(self) -> list[PlannedRun]:
        """The runs that try the grid on the split `fit`, one for each of `points` in order."""
        own = (f"--config.data.train={self.fit}", *self._held_out_evaluation())
        return [
            self._run(f"grid/{index}-{_as_name(point)}", shown(point), point, own)
            for index, point in enumerate(self.points)
        ]

    def final_runs(self, point: Point) -> list[PlannedRun]:
        """The runs of a point on all of train, one for each seed."""
        return [
            self._run(f"final/seed={seed}", f"seed={seed}", point, (f"--config.seed={seed}",))
            for seed in self.seeds
        ]

    def stated(self) -> dict[str, Any]:
        """What tells this sweep from others, as JSON has it."""
        return {
            "config": to_dict(build(TrainConfig, self.values)),
            "grid": {key: list(values) for key, values in self.grid.items()},
            "held_out": self.held_out,
            "score": f"{self.evaluation}/{self.metric}",
            "mode": self.mode,
            "seeds": list(self.seeds),
        }

    def _run(self, name: str, setting: str, point: Point, own: Sequence[str]) -> PlannedRun:
        directory = self.workdir / name
        arguments = (
            f"--config={self.config}",
            *self.overrides,
            *_overrides(point),
            *own,
            f"--workdir={directory}",
            # Runs of one shape share what does not depend on the rate and the seed.
            f"--compile_cache={self.workdir / 'compile_cache'}",
            "--report=off",
        )
        return PlannedRun(name, setting, directory, arguments)

    def _held_out_evaluation(self) -> list[str]:
        """Replaces all evaluations by one like that of the score, on the held-out part."""
        chosen = dict(self.values["evals"][self.evaluation])
        chosen.pop("dataset", None)
        chosen["split"] = self.held_out
        if isinstance(build(TrainConfig, self.values).evals[self.evaluation], FrozenConfig):
            chosen["train_split"] = self.fit  # All of train would hold what is scored.
        off = [f"--config.evals.{name}=none" for name in self.values["evals"]]
        kept = [
            f"--config.evals.{HELD_OUT_EVAL}.{key}={value}"
            for key, value in chosen.items()
            if value is not None
        ]
        return [*off, *kept]


def make_plan(
    config: str,
    workdir: Path,
    *,
    overrides: Sequence[str] = (),
    grid: Grid | None = None,
    held_out: int | None = None,
    score: str | None = None,
    mode: Mode = "max",
    seeds: Sequence[int] | None = None,
) -> Plan:
    """Checks a sweep and every config of its grid; opens no data and no devices.

    Args:
      config: the text of `--config`, such as "configs/finetune.py:b16,pets".
      overrides: such as "--config.total_steps=100".
      grid: values of keys such as "optimizer.lr"; None is the rates of the paper's Table 4.
      held_out: percent of train, 1 to 99, at its end; None is the paper's part (appendix B.1.1).
      score: EVALUATION/METRIC of the config; None is `top1` of the evaluation `test`, or of the
        only one.
      mode: whether the highest or the lowest score is best.
      seeds: of the final runs; None is three from the config's own.

    Raises:
      UserError: the grid is empty or has a key that does not exist; the data set is none of the
        paper's, and something is left open; or a config of the grid does not build.
    """
    values = load_config(config, overrides)
    checked = _check_base(values)
    published = next((n for n, d in DATASETS.items() if d.tfds == checked.data.dataset), None)
    grid = _grid(grid, published, checked.data.dataset)
    if held_out is None and (held_out := HELD_OUT.get(published or "")) is None:
        raise UserError(
            f"the paper holds out no part of {checked.data.dataset!r}; say how much of train does, "
            "such as --held_out=10%"
        )
    fit, held = parts_of(checked.data.train, held_out)
    evaluation, metric = _score(score, checked)
    if metric in _LOWER_IS_BETTER and mode == "max":
        raise UserError(f"--score={score}: the lowest is best; add --mode=min")
    first = checked.seed
    plan = Plan(
        config=config,
        overrides=tuple(overrides),
        values=values,
        workdir=workdir.expanduser().absolute(),
        grid=grid,
        fit=fit,
        held_out=held,
        evaluation=evaluation,
        metric=metric,
        mode=mode,
        seeds=tuple(range(first, first + FINAL_RUNS) if seeds is None else seeds),
    )
    check_seeds(plan.seeds)
    _check_points(plan)
    return plan


def shown(point: Point) -> str:
    """A point for people, such as "optimizer.lr=0.003, optimizer.weight_decay=0.1"."""
    return ", ".join(f"{key}={value}" for key, value in point.items())


def _check_base(values: Mapping[str, Any]) -> TrainConfig:
    for key in open_keys(values):
        raise UserError(
            f"config.{key} is 'auto', which each run would choose for itself; set it with "
            f"--config.{key}=VALUE"
        )
    checked = build(TrainConfig, values)
    if checked.early_stop is not None:
        raise UserError(
            "config.early_stop: final runs train on all of train, so nothing is held out to stop "
            "by; switch it off with --config.early_stop=none"
        )
    if checked.max_minutes is not None:
        raise UserError(
            "config.max_minutes would end runs before their last step, and they would not compare; "
            "switch it off with --config.max_minutes=none"
        )
    start = checked.init_from or ""
    if start.startswith(SCHEME) and not HubName.parse(start).is_pinned:
        raise UserError(
            f"config.init_from={start}: a branch or tag may move between two runs, which would "
            "start from different weights; name a commit of 40 letters, as in "
            f"{start.partition('@')[0]}@COMMIT"
        )
    return checked


def _grid(grid: Grid | None, published: str | None, dataset: str) -> Grid:
    if grid is None:
        if published not in TABLE_4:
            raise UserError(
                f"the paper has no rates for {dataset!r}; write a grid, such as "
                "--grid.optimizer.lr=0.001,0.003,0.01,0.03"
            )
        return {"optimizer.lr": tuple(f"{rate:g}" for rate in TABLE_4[published].rates)}
    if not grid:
        raise UserError("the grid is empty; write one, such as --grid.optimizer.lr=0.001,0.003")
    for key, values in grid.items():
        if not values:
            raise UserError(
                f"--grid.{key} has no values, so the grid is empty; write --grid.{key}=VALUE,VALUE"
            )
        for value in values:
            if values.count(value) > 1:
                raise UserError(f"--grid.{key}: {value} is there twice; leave one out")
        for own, flag in _OWN.items():
            if f"{key}.".startswith(f"{own}."):
                raise UserError(f"--grid.{key}: the sweep sets config.{own} itself, by {flag}")
    return {key: tuple(values) for key, values in grid.items()}


def _score(score: str | None, config: TrainConfig) -> tuple[str, str]:
    known = list(config.evals)
    if not known:
        raise UserError("the config has no evaluation to choose by; add one, such as evals.test")
    if score is None:
        if "test" not in known and len(known) > 1:
            raise UserError(
                f"--score: say which evaluation chooses: {', '.join(known)}; such as "
                f"--score={known[0]}/top1"
            )
        return ("test" if "test" in known else known[0]), "top1"
    name, slash, metric = score.partition("/")
    if name not in known or not slash or not metric:
        raise UserError(f"--score={score}: write EVALUATION/METRIC{nearest(name, known)}")
    return name, metric


def check_seeds(seeds: Sequence[int]) -> None:
    """Checks the seeds of runs.

    Raises:
      UserError: there is none, one is there twice, or one is out of range.
    """
    for seed in seeds:
        if not 0 <= seed < 2**32 or seeds.count(seed) > 1:
            raise UserError(
                f"--seeds: {seed} is there twice, or not between 0 and 2**32 - 1; write "
                "--seeds=0,1,2"
            )
    if not seeds:
        raise UserError("--seeds is empty; write --seeds=0,1,2")


def _check_points(plan: Plan) -> None:
    """Builds every config of the grid, so that a mistake shows before the first run."""
    given = {override.removeprefix("--config.").partition("=")[0] for override in plan.overrides}
    for key in plan.grid:
        if key in given:
            raise UserError(f"--config.{key} would be ignored: --grid.{key} sets it; leave it out")
    for point in plan.points:
        try:
            build(TrainConfig, load_config(plan.config, [*plan.overrides, *_overrides(point)]))
        except UserError as error:
            raise UserError(f"--grid, at {shown(point)}: {error}") from error


def _overrides(point: Point) -> list[str]:
    return [f"--config.{key}={value}" for key, value in point.items()]


def _as_name(point: Point) -> str:
    """A point as a part of a path."""
    short = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in point.items())
    return file_name(short)


def file_name(text: str) -> str:
    """A text as a part of a path."""
    return re.sub(r"[^\w=.,+-]+", "_", text)[:100]
