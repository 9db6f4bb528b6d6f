"""What a run's directory tells of it: its config, versions, curves and final scores."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from etils import epath

from vit_jax.errors import StorageError, UserError
from vit_jax.runs.config_file import is_run, read_config
from vit_jax.runs.cost import Cost, read_cost
from vit_jax.runs.metrics import read_metrics
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path
from vit_jax.training.config import OWN_METRICS


class Curve(NamedTuple):
    """One scalar over the steps at which it was logged; values that were not finite are NaN."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class RunRecord:
    """What a run's directory records.

    Attributes:
      config: nested, as in `config.json`.
      versions: versions and devices of the latest start, as in `versions.json`.
      curves: logged scalars by name, such as `train/loss` and `test/top1`.
      step: the step of the final weights; None if the run has not ended.
      scores: scores of the final weights by name; the latest ones if the run has not ended.
      cost: what the run has taken so far; None if no version wrote it down.
      resumes: whether its weights are those of a start whose time was up.
    """

    path: epath.Path
    config: dict[str, Any]
    versions: dict[str, Any]
    curves: dict[str, Curve]
    step: int | None
    scores: dict[str, float]
    cost: Cost | None
    resumes: bool

    @property
    def name(self) -> str:
        """The directory's last name."""
        return self.path.name

    @property
    def has_ended(self) -> bool:
        """Whether its weights are written."""
        return self.step is not None

    def flat_config(self) -> Iterator[tuple[str, str]]:
        """Keys such as `optimizer.lr` with their values as text, without what is off or empty."""
        yield from _flat(self.config)

    def flat_versions(self) -> Iterator[tuple[str, str]]:
        """Keys such as `packages.jax` with their values as text."""
        yield from _flat(self.versions)


def read_run(path: str | os.PathLike[str]) -> RunRecord:
    """Reads a run's directory, while it runs or later.

    Raises:
      UserError: it is not the directory of a run.
    """
    directory = as_path(path)
    if not is_run(directory):
        raise UserError(f"{path}: not the directory of a run; name what --workdir named")
    curves: dict[str, Curve] = {}
    for line in read_metrics(directory):
        step = line.pop("step")
        for name, value in line.items():
            curve = curves.setdefault(name, Curve([], []))
            curve.steps.append(step)
            curve.values.append(value)
    facts = _read_json(directory / "weights.json")
    step = facts.get("step") if objects.exists(directory / "weights.npz") else None
    scores = facts.get("scores") if step is not None else None
    if scores is None:
        scores = {k: c.values[-1] for k, c in curves.items() if not is_training(k)}
    return RunRecord(
        path=directory,
        config=read_config(directory),
        versions=_read_json(directory / "versions.json"),
        curves=curves,
        step=step,
        scores=scores,
        cost=read_cost(directory),
        resumes=not facts.get("has_ended", True),
    )


def _read_json(file: epath.Path) -> dict[str, Any]:
    """An object of a file that may be missing; a run that has not ended has no `weights.json`."""
    try:
        value = json.loads(objects.read_small(file))
    except StorageError:
        raise
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def is_training(scalar: str) -> bool:
    """Whether a scalar is training's own, and no score of an evaluation."""
    return scalar.partition("/")[0] in OWN_METRICS


def _flat(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, [], (), "", False) or value == 0:
            text = f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)
            yield f"{prefix}{key}", text
