"""Class probabilities of images that have no labels."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vit_jax.data.images.decoding import ImageError
from vit_jax.data.images.transforms import EvalTransform
from vit_jax.errors import UserError
from vit_jax.models.model import Model
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import batch_sharding, replicated
from vit_jax.preprocessing import normalize


class Prediction(NamedTuple):
    """What a model says of one image.

    `classes` and `probabilities` hold the best classes, the most probable first; where the image
    cannot be read they are empty, and `error` says why.
    """

    image: str
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]
    error: str | None = None


def predict(
    model: Model, files: Sequence[str], *, top_k: int = 5, batch_size: int = 32
) -> Iterator[Prediction]:
    """The best classes of image files, in their order, with their probabilities.

    Of a model that is known to be trained with the sigmoid loss, each class has a probability of
    its own. Else those of all classes sum to 1, as for released files: none says its loss, be it
    sigmoid as on ImageNet-21k. The order of the classes is the same.

    Batches are split over all devices of this process; the next one is decoded in threads while
    the devices work.

    Args:
      top_k: classes an image; all of them if the model has fewer.
      batch_size: rounded up to a multiple of the number of devices.

    Raises:
      UserError: the model has no head, or `top_k` or `batch_size` is below 1.
    """
    if not model.config.num_classes:
        raise UserError("the model has no head, so it predicts no classes; give weights with one")
    if top_k < 1 or batch_size < 1:
        raise UserError(f"top_k={top_k}, batch_size={batch_size}: both must be at least 1")
    return _predictions(model, files, min(top_k, model.config.num_classes), batch_size)


def _predictions(
    model: Model, files: Sequence[str], top_k: int, batch_size: int
) -> Iterator[Prediction]:
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    # A few images need no larger batch.
    batch_size = -(-min(batch_size, len(files) or 1) // mesh.size) * mesh.size
    preprocessing = model.config.preprocessing
    assert preprocessing is not None
    graphdef, params = nnx.split(model)
    params = jax.device_put(params, replicated(mesh))

    @jax.jit
    def best(params: nnx.State, images: Array) -> tuple[Array, Array]:
        logits = nnx.merge(graphdef, params)(normalize(images, preprocessing))
        # As logarithms: many classes may have a sigmoid that rounds to 1.
        shares = jax.nn.log_sigmoid if model.loss == "sigmoid" else jax.nn.log_softmax
        logarithms, classes = jax.lax.top_k(shares(logits), top_k)
        return jnp.exp(logarithms), classes

    transform = EvalTransform(model.config.input_size, preprocessing)
    batches = [files[i : i + batch_size] for i in range(0, len(files), batch_size)]
    with ThreadPoolExecutor() as pool:
        decoded = [pool.submit(_read, transform, file) for file in batches[0]] if batches else []
        for i, batch in enumerate(batches):
            results = [future.result() for future in decoded]
            images = np.zeros((batch_size, *model.config.input_size, 3), np.uint8)
            for row, result in zip(images, results, strict=False):
                if not isinstance(result, str):
                    row[...] = result
            outputs = best(params, jax.device_put(images, batch_sharding(mesh)))
            following = batches[i + 1] if i + 1 < len(batches) else []
            decoded = [pool.submit(_read, transform, file) for file in following]
            probabilities, classes = map(np.asarray, outputs)
            for place, (file, result) in enumerate(zip(batch, results, strict=True)):
                if isinstance(result, str):
                    yield Prediction(file, (), (), result)
                else:
                    yield Prediction(
                        file, tuple(classes[place].tolist()), tuple(probabilities[place].tolist())
                    )


def _read(transform: EvalTransform, file: str) -> np.ndarray | str:
    """The image, or why there is none."""
    try:
        return transform(Path(file).read_bytes())
    except OSError as error:
        return f"cannot read the file ({error.strerror})"
    except ImageError as error:
        return str(error)
