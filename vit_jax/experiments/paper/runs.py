"""The final scores of runs, with what their models are and were trained on."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from etils import epath

from vit_jax.errors import UserError
from vit_jax.experiments.paper.lineage import Stage, UnknownOriginError, of_config
from vit_jax.experiments.paper.scored import COST, OWN_LOGITS, Result, Scored
from vit_jax.experiments.report.record import RunRecord, read_run
from vit_jax.models.config import ModelConfig
from vit_jax.runs.config_file import is_run
from vit_jax.schema import build
from vit_jax.storage import objects
from vit_jax.storage.paths import given_path, is_bucket

# How deep runs may lie in a directory, such as those of a sweep.
_DEEPEST = 4


def read_runs(directory: epath.Path) -> list[Result]:
    """Reads a run, or all runs in a directory, such as those of VTAB's tasks.

    Raises:
      UserError: it is neither.
    """
    if is_bucket(directory):
        runs = _runs_in_bucket(directory)
    else:
        runs = list(_runs_in(directory, _DEEPEST)) if directory.is_dir() else []
    if not runs:
        raise UserError(
            f"--runs={directory}: neither the directory of a run nor one that holds runs; name "
            "what --workdir named, or a .json file that evaluate --output wrote"
        )
    return [_read_run(run) for run in runs]


def _runs_in(directory: epath.Path, deepest: int) -> Iterator[epath.Path]:
    if is_run(directory):
        yield directory
    elif deepest:
        try:
            inner = sorted(directory.iterdir())
        except OSError as error:
            raise UserError(
                f"--runs={directory}: {error.strerror}; name the runs that can be read"
            ) from error
        for each in inner:
            if each.is_dir():
                yield from _runs_in(each, deepest - 1)


def _runs_in_bucket(directory: epath.Path) -> list[epath.Path]:
    """As `_runs_in`, by one listing of all that lies below the directory."""
    files = [PurePosixPath(name) for name in objects.list_files(directory)]
    locked = {file.parent for file in files if file.name == "lock"}
    folders = {file.parent for file in files if file.name == "config.json"} & locked
    return [
        directory / folder
        for folder in sorted(folders)
        if len(folder.parts) <= _DEEPEST and folders.isdisjoint(folder.parents)
    ]


def _read_run(directory: epath.Path) -> Result:
    run, name = read_run(directory), str(directory)
    if not run.has_ended or run.resumes:
        return Result(name, (), "it has not ended, so it has no final scores")
    try:
        return _result(run, name)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"--runs={name}: its config.json or weights.json is damaged ({error}); restore it, or "
            "leave this run out"
        ) from error


def _result(run: RunRecord, name: str) -> Result:
    base = scored_by(name, run.config)
    scored = []
    for evaluation, section in (run.config.get("evals") or {}).items():
        prefix = f"{evaluation}/"
        values = {
            k.removeprefix(prefix): float(v) for k, v in run.scores.items() if k.startswith(prefix)
        }
        if values and section:
            dataset = section.get("dataset") or run.config["data"]["dataset"]
            kind = section.get("kind", "classification")
            if kind in OWN_LOGITS and section.get("classes") == "all":
                kind = "classification"
            scored.append(base.on(kind, dataset, section["split"], values))
    nothing = "" if scored else "it has no scores of an evaluation"
    if (costs := _costs(run)) is not None:
        scored.append(replace(base, dataset=COST, values=costs))
    return Result(name, tuple(scored), nothing)


def _costs(run: RunRecord) -> dict[str, float] | None:
    """What the run took; core-days only of TPUv3, since those of other devices do not compare."""
    if run.cost is None:
        return None
    kinds = run.versions.get("devices")
    is_v3 = isinstance(kinds, list) and bool(kinds) and {*map(str, kinds)} == {"TPU v3"}
    found = {"core_days": run.cost.core_days if is_v3 else None, "exaflops": run.cost.exaflops}
    return {name: value for name, value in found.items() if value is not None}


def scored_by(weights: str, config: Mapping[str, Any]) -> Scored:
    """A run's model, without scores.

    Args:
      weights: the run's directory.
      config: nested, as in `config.json`.

    Raises:
      UserError: the config is not one of a run.
    """
    unknown: str = ""
    stages: tuple[Stage, ...] = ()
    try:
        stages = of_config(config, given_path(weights))
    except UnknownOriginError as error:
        unknown = str(error)
    model = build(ModelConfig, config.get("model") or {})
    size, named = model.image_size, ModelConfig(model.name).shape
    changed = [f"{key}={value}" for key, value in model.shape.items() if named.get(key) != value]
    if model.registers:
        changed.append(f"registers={model.registers}")
    return Scored(
        weights=weights,
        model=model.name,
        changes=tuple(changed),
        positions=model.positions,
        image_size=size if isinstance(size, int) else None,
        stages=stages,
        unknown=unknown,
        dataset="",
        split="",
        values={},
    )
