"""Scores that `evaluate --output=FILE.json` wrote, with what the weights were trained on."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from etils import epath

from vit_jax.errors import StorageError, UserError
from vit_jax.experiments.paper.lineage import UnknownOriginError, of_weights, released
from vit_jax.experiments.paper.runs import scored_by
from vit_jax.experiments.paper.scored import OWN_LOGITS, Result, Scored
from vit_jax.runs.config_file import is_run, read_config
from vit_jax.storage import objects


def read_scores(file: epath.Path) -> list[Result]:
    """Reads the file; each weights in it is a result.

    Raises:
      UserError: the file cannot be read, or `evaluate` did not write it.
    """
    try:
        rows = json.loads(objects.read_small(file).decode("utf-8-sig"))
        if not rows or not isinstance(rows, list):
            raise ValueError("no list of scores")
        by_weights: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            by_weights.setdefault(str(row["weights"]), []).append(row)
        return [
            Result(f"{file}: {weights}", tuple(_scored(weights, row) for row in each))
            for weights, each in by_weights.items()
        ]
    except StorageError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"--runs={file}: not what evaluate --output=FILE.json writes ({error!r}); name such a "
            "file or a run's directory"
        ) from error


def _scored(weights: str, row: Mapping[str, Any]) -> Scored:
    height, width = row["image_size"]
    base = replace(_base(weights), image_size=height if height == width else None)
    # The sources of an evaluation; the last one is what is scored.
    dataset, _, split = str(row["data"]).rpartition(", ")[2].rpartition("/")
    values = {str(name): float(value) for name, value in row["scores"].items()}
    kind = str(row["evaluation"])
    # The published figures of A and R are over their own 200 logits; the line states the rule.
    if kind in OWN_LOGITS and "over all" in row["text"]:
        kind = "classification"
    return base.on(kind, dataset, split, values)


def _base(weights: str) -> Scored:
    """What the weights are, without scores."""
    if is_run(weights):
        return scored_by(weights, read_config(weights))
    release = released(weights)
    unknown = ""
    try:
        stages = of_weights(weights)
    except UnknownOriginError as error:
        stages, unknown = (), str(error)
    return Scored(
        weights=weights,
        model=None if release is None else release.model,
        changes=(),
        positions=None,
        image_size=None if release is None else release.resolution,
        stages=stages,
        unknown=unknown,
        dataset="",
        split="",
        values={},
    )
