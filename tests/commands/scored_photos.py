"""Photographs that a small model classifies, and how `evaluate` and `predict` score them."""

import csv
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from tests.small_models import SMALL, random_params
from vit_jax.__main__ import main
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import apply_model
from vit_jax.preprocessing import normalize
from vit_jax.weights.files import write_weights

NAMES = ("cat", "dog", "emu", "fox", "gnu")
COUNT = 40


def make_params(model: ModelConfig = SMALL, seed: int = 0) -> Any:
    """Random ones, whose head gives each class about as many images as the others."""
    params = random_params(model, seed)
    if model.num_classes:
        images = normalize(np.stack([draw(i) for i in range(COUNT)]), model.preprocessing)
        kernel = params["head"]["kernel"]
        logits = np.asarray(jax.jit(apply_model(model))(params, images)) - params["head"]["bias"]
        spread = logits.std(axis=0)
        params["head"] = {"kernel": kernel / spread, "bias": -logits.mean(axis=0) / spread}
    return params


def write_model(path: Path, model: ModelConfig = SMALL, names: Any = NAMES, seed: int = 0) -> Path:
    write_weights(path, make_params(model, seed), model, class_names=names)
    return path


def draw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)


def write_photos(folder: Path, classes: dict[str, list[int]]) -> Path:
    """A folder for each class, with images that its numbers draw."""
    for name, seeds in classes.items():
        (folder / name).mkdir(parents=True)
        for seed in seeds:
            Image.fromarray(draw(seed)).save(folder / name / f"{seed}.png")
    return folder


def predicted(weights: Path, folder: Path, *flags: str) -> dict[int, list[str]]:
    """The names of the classes by the image's number, the most probable first."""
    output = folder.parent / f"{folder.name}.csv"
    command = ["predict", f"--weights={weights}", f"--images={folder}", f"--output={output}"]
    assert main([*command, *flags]) == 0
    answers: dict[int, list[str]] = {}
    with open(output, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            answers.setdefault(int(Path(row["image"]).stem), []).append(row["name"])
    return answers


def accuracy(weights: Path, folder: Path, names: dict[str, str], own_only: bool = False) -> float:
    """As `predict` sees it.

    Args:
      names: the model's name of each folder's.
      own_only: whether the names that no folder has are left out.
    """
    hits = []
    for seed, best in predicted(weights, folder).items():
        (path,) = folder.glob(f"*/{seed}.png")
        kept = [name for name in best if not own_only or name in names.values()]
        hits.append(kept[0] == names[path.parent.name])
    return float(np.mean(hits))


def evaluate(output: Path, *flags: str) -> list[dict[str, Any]]:
    assert main(["evaluate", *flags, f"--output={output}"]) == 0
    return json.loads(output.read_text())


def score(output: Path, weights: Path, folder: Path, *flags: str) -> dict[str, float]:
    (row,) = evaluate(output, f"--weights={weights}", f"--dataset={folder}", *flags)
    assert row["weights"] == str(weights) and row["evaluation"] == "classification"
    return row["scores"]
