"""A run's final weights on one of its evaluations, image by image."""

import contextlib
import functools
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from vit_jax.analysis.attention_maps import attention_maps
from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.transforms import EvalTransform
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.evaluation.classification import ClassificationConfig
from vit_jax.evaluation.context import EvalContext, Opener
from vit_jax.evaluation.evaluator import Scores
from vit_jax.evaluation.per_class import PerClassConfig, PerClassEvaluator
from vit_jax.inference.local import on_local_devices
from vit_jax.inference.passes import Pass
from vit_jax.inference.requests import Answer
from vit_jax.models.functional import apply_model, model_params
from vit_jax.models.model import Model
from vit_jax.preprocessing import normalize
from vit_jax.training.config import TrainConfig
from vit_jax.weights.load import load_model


@dataclass(frozen=True)
class Judged:
    """What a model says of each image of an evaluation that can be read and has a label.

    Attributes:
      evaluation: its name in the config.
      positions: int [images], in the source.
      labels, predicted: int [images]; `name` names them.
      confidence, share_of_label: float [images], probabilities of the predicted and right class.
      unreadable: positions of images that cannot be read.
      scores: of `evaluation.per_class`.
    """

    evaluation: str
    source: Source
    model: Model
    positions: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    share_of_label: np.ndarray
    unreadable: list[int]
    scores: Scores
    name: Callable[[int], str]

    @property
    def right(self) -> np.ndarray:
        """bool [images]."""
        return self.labels == self.predicted

    def most_wrong(self, count: int) -> np.ndarray:
        """Indices of wrong answers, those that give the right class the least probability first."""
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(self.share_of_label[wrong], kind="stable")][:count]

    def some_right(self, count: int) -> np.ndarray:
        """Indices of right answers, drawn at random but always the same."""
        right = np.flatnonzero(self.right)
        drawn = np.random.default_rng(0).permutation(len(right))[:count]
        return right[np.sort(drawn)]


@dataclass(frozen=True)
class Seen:
    """An image as the model sees it.

    Attributes:
      pixels: uint8 [height, width, 3].
      attention: float32 [rows, columns], the largest 1; None if the model has no attention.
    """

    pixels: np.ndarray
    attention: np.ndarray | None


def scored_by_class(config: TrainConfig) -> str | None:
    """The name of the first evaluation whose images have one label each, by its kind."""
    for name, each in config.evals.items():
        if isinstance(each, ClassificationConfig):
            return name
    return None


def judge(config: TrainConfig, workdir: Path, evaluation: str, *, seconds: float) -> Judged:
    """Runs the final weights over an evaluation's images, on the devices of this process.

    Args:
      config: the run's.
      seconds: the longest that it may take, but for opening the model.

    Raises:
      UserError: the weights or the data are missing or damaged, images have several labels, or the
        time is up.
    """
    model = load_model(weights=workdir)
    section = config.evals[evaluation]
    assert isinstance(section, ClassificationConfig)
    context = EvalContext.of_run(
        config.data, class_names=model.class_names, loss=config.loss, batch_size=None
    )
    evaluator = PerClassConfig(
        split=section.split,
        dataset=section.dataset,
        classes=section.classes,
        class_map=section.class_map,
    ).make(Opener(evaluation, model.config, context))
    assert isinstance(evaluator, PerClassEvaluator)
    mesh, params = on_local_devices(model)
    requests = dict(evaluator.requests)
    source = requests["test"].source
    ends = time.monotonic() + seconds
    positions: list[np.ndarray] = []
    rows: list[dict[str, np.ndarray]] = []
    unreadable: list[int] = []
    with Pass(
        model.config,
        mesh,
        requests,
        batch_size=None,
        workers=config.data.workers,
        on_error="ignore",
    ) as each:
        for batch in each.stream(params):
            if time.monotonic() > ends:
                raise UserError(
                    f"that takes more than {seconds:.0f} s; "
                    f"`python -m vit_jax report {shlex.quote(str(workdir))}` does it"
                )
            unreadable += (batch.start + np.flatnonzero(~batch.readable)).tolist()
            kept = batch.readable & (batch.rows["test"]["label"] >= 0)
            positions.append(batch.start + np.flatnonzero(kept))
            rows.append({name: array[kept] for name, array in batch.rows["test"].items()})
    joined = {name: np.concatenate([each[name] for each in rows]) for name in rows[0]}
    if not len(joined["label"]):
        raise UserError(f"{source.name}: no image can be read and has a label")
    return Judged(
        evaluation=evaluation,
        source=source,
        model=model,
        positions=np.concatenate(positions),
        labels=joined["label"],
        predicted=joined["predicted"],
        confidence=joined["confidence"].astype(np.float64),
        share_of_label=joined["share_of_label"].astype(np.float64),
        unreadable=unreadable,
        scores=evaluator.scores({"test": Answer({}, joined, np.concatenate(positions))}),
        name=evaluator.name,
    )


def see(judged: Judged, indices: np.ndarray) -> list[tuple[int, Seen]]:
    """Images of a `Judged` as the model sees them, with attention rollout over the patches.

    Returns:
      Pairs of an index and its image, without those that can no longer be read.
    """
    model = judged.model
    config, preprocessing = model.config, model.config.preprocessing
    assert preprocessing is not None
    transform = EvalTransform(config.input_size, preprocessing)
    pixels: dict[int, np.ndarray] = {}
    for index in indices.tolist():
        with contextlib.suppress(ImageError, UserError):  # Its file may have changed meanwhile.
            pixels[index] = transform(judged.source[int(judged.positions[index])].image)
    if not pixels or "attention" not in model.captured:
        return [(index, Seen(image, None)) for index, image in pixels.items()]
    images = normalize(np.stack(list(pixels.values())), preprocessing)
    forward = jax.jit(functools.partial(apply_model(config), capture=("attention",)))
    _, captured = forward(model_params(model), images)
    maps = attention_maps(
        np.asarray(captured["attention"]), config.grid, has_class_token=config.has_class_token
    )
    seen = zip(pixels.items(), maps, strict=True)
    return [(index, Seen(image, attention)) for (index, image), attention in seen]
