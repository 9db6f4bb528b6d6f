"""Files of a small model with a description of its own, and `convert` as a user types it."""

import dataclasses
from pathlib import Path
from typing import Any

from tests.small_models import CROP, SMALL, random_params
from vit_jax.__main__ import main
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import write_weights

NAMES = ("ant", "bee", "cat", "dog", "élan")
EXACT = dataclasses.replace(SMALL, gelu="exact", norm_epsilon=1e-12, preprocessing=CROP)


def write(path: Path, model: ModelConfig = EXACT, **options: Any) -> Path:
    write_weights(path, random_params(model), model, class_names=NAMES, **options)
    return path


def convert(source: Path, target: Path, layout: str, *flags: str) -> Path:
    command = ["convert", f"--source={source}", f"--target={target}", f"--layout={layout}"]
    assert main([*command, *flags]) == 0
    return target
