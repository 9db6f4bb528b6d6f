"""A small model with named classes, and which of the images of the fixture `photos` it can see."""

import dataclasses
from pathlib import Path

from tests.small_models import CROP, SMALL, random_params
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import write_weights

MODEL = dataclasses.replace(SMALL, preprocessing=CROP)
NAMES = ("ant", "bee, wasp", 'dog "wild"', "élan", "fox")
ERRORS = {
    "a.png": "truncated",
    "d.jpg": "not in a known format",
    "deep/f.gif": "not in a known format",
    "g.png": "No such file",
}
READABLE = ("b.png", "c.JPG", "deep/er/e.webp")


def write(path: Path, model: ModelConfig = MODEL, names: tuple[str, ...] | None = NAMES) -> Path:
    params = random_params(model)
    if model.num_classes:  # Else one class has it all.
        params["head"]["kernel"] *= 0.2
    write_weights(path, params, model, class_names=names)
    return path
