"""The classes of images that have no labels."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.analysis.attention_maps import attention_maps
from vit_jax.data.images.errors import ImageError
from vit_jax.data.images.transforms import EvalTransform
from vit_jax.data.sources.files import FileSource
from vit_jax.data.sources.reading import read_image_file
from vit_jax.errors import UserError
from vit_jax.inference.local import on_local_devices
from vit_jax.inference.passes import IMAGES_PER_DEVICE, Pass
from vit_jax.inference.requests import Arrays, Request
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import model_params
from vit_jax.models.model import Model
from vit_jax.schema import to_dict

# Bytes of the attention of all blocks on one device, in a batch whose size nobody has chosen.
_ATTENTION_BYTES = 2**29


class Prediction(NamedTuple):
    """The best classes of one image.

    Attributes:
      image: its file.
      classes: the most probable first; empty if the image cannot be read.
      probabilities: of these classes.
      error: why the image cannot be read; None if it can.
      seen: what the model saw and where it looked, if that was asked for.
    """

    image: str
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]
    error: str | None = None
    seen: "Seen | None" = None


class Seen(NamedTuple):
    """An image as the model sees it.

    Attributes:
      pixels: uint8 [height, width, 3].
      attention: float32 [rows, columns], by rollout; the largest is 1.
    """

    pixels: np.ndarray
    attention: np.ndarray


def predict(
    model: Model,
    files: Sequence[str],
    *,
    top_k: int | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    attention: bool = False,
) -> Iterator[Prediction]:
    """Predicts the classes of image files, in the order of the files.

    A model whose weights record that it was trained with the sigmoid loss gives each class a
    probability of its own. Other models, and released files, which do not record their loss, give
    probabilities that sum to 1. The order of the classes is the same.

    Batches are split over all devices of this process.

    Args:
      top_k: classes for each image, at most as many as the model has. None: 5, or all of fewer.
      batch_size: images at a time, rounded up to a multiple of the number of devices. None: 32 a
        device, or fewer if they do not fit.
      workers: processes that decode images; 0 decodes them in threads.
      attention: whether predictions have `seen`.

    Raises:
      UserError: the model has no head, fewer than `top_k` classes, or no attention over all
        patches, or `top_k` or `batch_size` is below 1.
    """
    top_k = require_classes(model, top_k)
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size={batch_size} must be at least 1")
    if attention and "attention" not in model.captured:
        raise UserError(
            f"attention maps: {model.config.name} has no attention over all patches; leave them out"
        )
    if attention and batch_size is None:
        batch_size = batch_with_attention(model.config)
    return _predictions(model, files, top_k, batch_size, workers, attention)


def require_classes(model: Model, top_k: int | None) -> int:
    """How many classes to name: `top_k`, or 5, or all of fewer.

    Raises:
      UserError: the model has no head or fewer classes, or `top_k` is below 1.
    """
    if not model.config.num_classes:
        raise UserError("the model has no head, so it predicts no classes; give weights with one")
    top_k = min(5, model.config.num_classes) if top_k is None else top_k
    if top_k < 1:
        raise UserError(f"top_k={top_k} must be at least 1")
    if top_k > model.config.num_classes:
        raise UserError(
            f"top_k={top_k}: the model has {model.config.num_classes} classes; use "
            f"top_k={model.config.num_classes} or fewer"
        )
    return top_k


def digest(model: Model) -> str:
    """A hash of all that decides what a model answers: its config, parameters and loss."""
    found = hashlib.blake2b(repr((to_dict(model.config), model.loss)).encode(), digest_size=16)
    for leaf in jax.tree.leaves(model_params(model)):
        found.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def batch_with_attention(model: ModelConfig) -> int:
    """Images on all devices, so that what all blocks attend to stays a small part of memory."""
    depth, heads, tokens = model.size.depth, model.size.num_heads, model.sequence_length
    fitting = _ATTENTION_BYTES // (depth * heads * tokens**2 * 4)
    return min(max(fitting, 1), IMAGES_PER_DEVICE) * jax.local_device_count()


def _predictions(
    model: Model,
    files: Sequence[str],
    top_k: int,
    batch_size: int | None,
    workers: int,
    attention: bool,
) -> Iterator[Prediction]:
    if not files:
        return
    config = model.config
    # As logarithms: many classes may have a sigmoid that rounds to 1.
    shares = jax.nn.log_sigmoid if model.loss == "sigmoid" else jax.nn.log_softmax

    def rows(batch: Arrays) -> Arrays:
        logarithms, classes = jax.lax.top_k(shares(batch["logits"]), top_k)
        found = {"classes": classes, "probabilities": jnp.exp(logarithms)}
        if attention:
            has_class_token = config.has_class_token
            found["attention"] = attention_maps(
                batch["attention"], config.grid, has_class_token=has_class_token
            )
            found["pixels"] = batch["images"]
        return found

    mesh, params = on_local_devices(model)
    outputs = ("attention",) if attention else ()
    requests = {"best": Request(FileSource(files), outputs=outputs, rows=rows)}
    with Pass(
        config, mesh, requests, batch_size=batch_size, workers=workers, on_error="ignore"
    ) as each:
        for batch in each.stream(params):
            found = batch.rows["best"]
            classes, probabilities = found["classes"].tolist(), found["probabilities"].tolist()
            for row, readable in enumerate(batch.readable):
                file = files[batch.start + row]
                if not readable:
                    yield Prediction(file, (), (), why_unreadable(model, file))
                    continue
                seen = Seen(found["pixels"][row], found["attention"][row]) if attention else None
                yield Prediction(file, tuple(classes[row]), tuple(probabilities[row]), seen=seen)


def why_unreadable(model: Model, file: str) -> str:
    """Why an image file cannot be read, found by reading it once more."""
    preprocessing = model.config.preprocessing
    assert preprocessing is not None
    try:
        EvalTransform(model.config.input_size, preprocessing)(read_image_file(file))
    except ImageError as error:
        return str(error)
    return "cannot read the file (it has changed meanwhile)"
