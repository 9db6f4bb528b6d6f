"""Fine-tunes released weights in a plain JAX loop, without the package's own trainer.

python examples/fine_tune.py WEIGHTS photos/

The folder holds a folder of images for each class. WEIGHTS is a released name or a file.
"""

import sys
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx
from jax import Array

import vit_jax
from vit_jax.models import Model


def main(weights: str, folder: str, steps: int = 100, batch_size: int = 16) -> float:
    files = sorted(file for file in Path(folder).glob("*/*") if file.is_file())
    names = sorted({file.parent.name for file in files})
    labels = np.array([names.index(file.parent.name) for file in files])

    model = vit_jax.load_model(weights=weights, num_classes=len(names))
    optimizer = nnx.Optimizer(model, optax.adamw(1e-4), wrt=nnx.Param)

    @nnx.jit
    def step(
        model: Model,
        optimizer: nnx.Optimizer[Model],
        images: np.ndarray,
        labels: np.ndarray,
        key: Array,
    ) -> Array:
        def mean_loss(model: Model) -> Array:
            logits = model(images, key=key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, gradients = nnx.value_and_grad(mean_loss)(model)
        optimizer.update(model, gradients)
        return loss

    rng = np.random.default_rng(0)
    for number in range(steps):
        chosen = rng.choice(len(files), batch_size)
        images = vit_jax.preprocess([files[i] for i in chosen], model)
        loss = step(model, optimizer, images, labels[chosen], jax.random.key(number))
        if number % 10 == 0 or number == steps - 1:
            print(f"step {number}: loss {loss:.4f}")
    return float(loss)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
