"""Classification losses, one value an example."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

Loss = Literal["softmax", "sigmoid"]


def cross_entropy(logits: Array, labels: Array, loss: Loss, label_smoothing: float) -> Array:
    """Cross-entropy of each example.

    `softmax` is for one class an example; `sigmoid` scores each class on its own and sums over
    the classes, as the paper's pre-training does.

    Args:
      logits: float [batch, classes].
      labels: int [batch] in [0, classes).
      label_smoothing: share s of the target that is taken from the true class. Softmax spreads
        it evenly over all classes; sigmoid's targets are 1 - s and s.

    Returns:
      float32 [batch], in nats.
    """
    logits = logits.astype(jnp.float32)
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    if loss == "softmax":
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))
    targets = targets * (1 - 2 * label_smoothing) + label_smoothing
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=-1)


def weighted_sum(values: Array, weights: Array) -> Array:
    """Sum of `values` [batch] over the rows that count.

    A row of weight 0 may hold any value, NaN included, and its gradient is 0. What made the value
    must still be finite for that 0 to travel further back: 0 times NaN is NaN.
    """
    return jnp.where(weights > 0, values * weights, 0).sum()
