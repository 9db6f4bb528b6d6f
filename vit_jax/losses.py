"""Classification losses, one value for each example."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

Loss = Literal["softmax", "sigmoid"]


def cross_entropy(logits: Array, labels: Array, loss: Loss, label_smoothing: float) -> Array:
    """Cross-entropy of each example.

    `sigmoid` scores each class on its own and sums over the classes, as the paper's pre-training
    does. `softmax` is for one class in each example; if there are k, each has the target 1/k, as in
    Mahajan et al.'s training on hashtags (arXiv 1805.00932, section 2.2).

    Args:
      logits: float [batch, classes].
      labels: int [batch] in [0, classes), or [batch, labels] for any number of classes in each
        example, padded with -1. A class that is listed twice counts once.
      label_smoothing: share s of the target that is taken from the true class. Softmax spreads
        it evenly over all classes. Sigmoid's targets are 1 - s and s, so s must be below 1/2.

    Returns:
      float32 [batch], in nats. With `softmax`, 0 for an example without any class.
    """
    logits = logits.astype(jnp.float32)
    if labels.ndim == 2:
        return _multi_label_cross_entropy(logits, labels, loss, label_smoothing)
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    if loss == "softmax":
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))
    targets = targets * (1 - 2 * label_smoothing) + label_smoothing
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=-1)


def _multi_label_cross_entropy(
    logits: Array, labels: Array, loss: Loss, label_smoothing: float
) -> Array:
    """As `cross_entropy`, in forms that keep the targets as sparse as the labels.

    With logits x and multi-hot targets y, the sigmoid loss is the sum of log(1 + exp(x)) - y x, and
    the softmax loss is log(sum(exp(x))) - sum(y x). A y of [batch, classes], or worse of [batch,
    labels, classes], would need more memory than the logits.
    """
    classes = logits.shape[-1]
    repeated = jnp.tril(labels[:, :, None] == labels[:, None, :], -1).any(axis=-1)
    counts = (labels >= 0) & (labels < classes) & ~repeated
    chosen = jnp.take_along_axis(logits, jnp.clip(labels, 0, classes - 1), axis=-1)
    of_labels, number = jnp.where(counts, chosen, 0).sum(axis=-1), counts.sum(axis=-1)
    if loss == "softmax":
        target = (1 - label_smoothing) * of_labels / jnp.maximum(number, 1)
        losses = jax.nn.logsumexp(logits, axis=-1) - target
        return jnp.where(number > 0, losses - label_smoothing * logits.mean(axis=-1), 0)
    target = (1 - 2 * label_smoothing) * of_labels + label_smoothing * logits.sum(axis=-1)
    return jax.nn.softplus(logits).sum(axis=-1) - target


def weighted_sum(values: Array, weights: Array) -> Array:
    """Sum of `values` [batch] over the rows that count.

    A row of weight 0 may hold any value, NaN included, and its gradient is 0. The computation of
    that value must still be finite for the 0 to travel further back: 0 times NaN is NaN.
    """
    return jnp.where(weights > 0, values * weights, 0).sum()
