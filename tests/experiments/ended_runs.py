"""Directories of runs as `train` leaves them, made from configs without training."""

import json
from collections.abc import Mapping
from pathlib import Path

from vit_jax.config import load_config
from vit_jax.runs.directory import RunDirectory
from vit_jax.runs.metrics import MetricsWriter
from vit_jax.schema import build, to_dict
from vit_jax.training.config import TrainConfig


def ended_run(directory: Path, spec: str, scores: Mapping[str, float], *changes: str) -> Path:
    """Makes the directory of a run that has ended.

    Args:
      spec: a config and its argument, such as `finetune.py:b16,cifar10`.
      scores: of the final weights, such as `test/top1`.
    """
    config = build(TrainConfig, load_config(f"configs/{spec}", changes))
    with RunDirectory(directory, to_dict(config), writer=True) as run:
        metrics = MetricsWriter(run.path, 0)
        metrics.write(7, scores)
        metrics.close()
        run.weights.touch()
        facts = {"step": 7, "scores": scores}
        run.weights.with_suffix(".json").write_text(json.dumps(facts))
    return directory
