"""Folders of pictures, heads and logits for the tests of label sets."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.small_models import SMALL
from vit_jax.data.sources.labels import labels_of_source
from vit_jax.data.sources.records import Source
from vit_jax.evaluation.context import EvalContext, Opener
from vit_jax.evaluation.evaluator import Scores
from vit_jax.inference.requests import Answer
from vit_jax.weights.classes import imagenet_names

NAMES = imagenet_names()
HEAD = dataclasses.replace(SMALL, num_classes=1000)


def write_folders(root: Path, files: Iterable[str]) -> Path:
    """A small picture for each path below the root; all are one file."""
    root.mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(root.parent / "picture.png")
    for file in files:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).symlink_to(root.parent / "picture.png")
    return root


def opener(kind: str, dataset: Path, names: Sequence[str] | None = NAMES, **changes: Any) -> Opener:
    model = dataclasses.replace(HEAD, **changes)
    context = EvalContext(names, dataset=str(dataset), option=lambda name, key: f"--{key}")
    return Opener(kind, model, context)


def source_of(evaluator: Any) -> Source:
    return evaluator.requests["test"].source


def folders_of(evaluator: Any) -> list[str]:
    """The name of the folder of each record, in the order of the records."""
    source: Any = source_of(evaluator)
    return [source.class_names[label] for label in source.labels()]


def judged(evaluator: Any, logits: np.ndarray, labels: Any = None) -> Scores:
    """What the evaluator makes of a logit of each class for each record."""
    if labels is None:
        labels = labels_of_source(source_of(evaluator))
    batch = {"logits": logits, "labels": np.asarray(labels), "weights": np.ones(len(logits))}
    request = evaluator.requests["test"]
    sums = {} if request.sums is None else request.sums(batch)
    rows = {} if request.rows is None else request.rows(batch)
    answer = Answer(
        {name: float(value) for name, value in sums.items()},
        {name: np.asarray(value) for name, value in rows.items()},
        np.arange(len(logits)),
    )
    return evaluator.scores({"test": answer})
