"""The classes of images that have no labels."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.transforms import EvalTransform
from vit_jax.data.sources.files import FileSource
from vit_jax.data.sources.reading import read_image_file
from vit_jax.errors import UserError
from vit_jax.inference.local import on_local_devices
from vit_jax.inference.passes import Pass
from vit_jax.inference.requests import Arrays, Request
from vit_jax.models.model import Model


class Prediction(NamedTuple):
    """The best classes of one image.

    Attributes:
      image: its file.
      classes: the most probable first; empty if the image cannot be read.
      probabilities: of these classes.
      error: why the image cannot be read; None if it can.
    """

    image: str
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]
    error: str | None = None


def predict(
    model: Model,
    files: Sequence[str],
    *,
    top_k: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
) -> Iterator[Prediction]:
    """Predicts the classes of image files, in the order of the files.

    A model whose weights record that it was trained with the sigmoid loss gives each class a
    probability of its own. Other models, and released files, which do not record their loss, give
    probabilities that sum to 1. The order of the classes is the same.

    Batches are split over all devices of this process.

    Args:
      top_k: classes for each image, at most as many as the model has. None: 5, or all of fewer.
      batch_size: images at a time, rounded up to a multiple of the number of devices.
      workers: processes that decode images; 0 decodes them in threads.

    Raises:
      UserError: the model has no head or fewer than `top_k` classes, or `top_k` or `batch_size` is
        below 1.
    """
    if not model.config.num_classes:
        raise UserError("the model has no head, so it predicts no classes; give weights with one")
    top_k = min(5, model.config.num_classes) if top_k is None else top_k
    if top_k < 1 or batch_size < 1:
        raise UserError(f"top_k={top_k}, batch_size={batch_size}: both must be at least 1")
    if top_k > model.config.num_classes:
        raise UserError(
            f"top_k={top_k}: the model has {model.config.num_classes} classes; use "
            f"top_k={model.config.num_classes} or fewer"
        )
    return _predictions(model, files, top_k, batch_size, workers)


def _predictions(
    model: Model, files: Sequence[str], top_k: int, batch_size: int, workers: int
) -> Iterator[Prediction]:
    # As logarithms: many classes may have a sigmoid that rounds to 1.
    shares = jax.nn.log_sigmoid if model.loss == "sigmoid" else jax.nn.log_softmax

    def best(batch: Arrays) -> Arrays:
        logarithms, classes = jax.lax.top_k(shares(batch["logits"]), top_k)
        return {"classes": classes, "probabilities": jnp.exp(logarithms)}

    mesh, params = on_local_devices(model)
    requests = {"best": Request(FileSource(files), rows=best)}
    with Pass(
        model.config, mesh, requests, batch_size=batch_size, workers=workers, on_error="ignore"
    ) as each:
        for batch in each.stream(params):
            rows = {name: array.tolist() for name, array in batch.rows["best"].items()}
            for row, readable in enumerate(batch.readable):
                file = files[batch.start + row]
                if readable:
                    classes, probabilities = rows["classes"][row], rows["probabilities"][row]
                    yield Prediction(file, tuple(classes), tuple(probabilities))
                else:
                    yield Prediction(file, (), (), _why_unreadable(model, file))


def _why_unreadable(model: Model, file: str) -> str:
    """The reason, found by reading the file once more."""
    preprocessing = model.config.preprocessing
    assert preprocessing is not None
    try:
        EvalTransform(model.config.input_size, preprocessing)(read_image_file(file))
    except ImageError as error:
        return str(error)
    return "cannot read the file (it has changed meanwhile)"
