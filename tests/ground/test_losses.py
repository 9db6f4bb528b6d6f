"""Losses against NumPy, with one label and with sets of labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from vit_jax.losses import Loss, cross_entropy, weighted_sum

LOGITS = np.array([[1.5, -2.0, 0.25, 3.0], [0.0, 0.0, 0.0, 0.0], [-30.0, 5.0, 90.0, 4.0]])
LABELS = np.array([3, 1, 0])


def _one_hot() -> np.ndarray:
    return np.eye(LOGITS.shape[1])[LABELS]


@pytest.mark.parametrize("smoothing", [0.0, 1e-4, 0.1])
def test_softmax(smoothing: float) -> None:
    # Smoothing spreads its share evenly over all classes, the true one included.
    targets = (1 - smoothing) * _one_hot() + smoothing / LOGITS.shape[1]
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    actual = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), "softmax", smoothing)
    np.testing.assert_allclose(actual, -(targets * log_p).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 1e-4, 0.1])
def test_sigmoid_sums_over_classes(smoothing: float) -> None:
    targets = np.where(_one_hot() == 1, 1 - smoothing, smoothing)
    log_p, log_not_p = -np.log1p(np.exp(-LOGITS)), -np.log1p(np.exp(LOGITS))
    expected = -(targets * log_p + (1 - targets) * log_not_p).sum(axis=1)
    actual = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), "sigmoid", smoothing)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_first_loss_of_pre_training_on_jft() -> None:
    # A zero head with bias -10 on JFT's 18,291 classes.
    classes = 18_291
    expected = np.log1p(np.exp(10)) + (classes - 1) * np.log1p(np.exp(-10))  # 10.83
    actual = cross_entropy(jnp.full((1, classes), -10.0), jnp.array([7]), "sigmoid", 0.0)
    np.testing.assert_allclose(actual, [expected], rtol=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_computed_in_float32(loss: Loss) -> None:
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    actual = cross_entropy(logits, jnp.asarray(LABELS), loss, 0.1)
    assert actual.dtype == jnp.float32
    exact = cross_entropy(logits.astype(jnp.float32), jnp.asarray(LABELS), loss, 0.1)
    np.testing.assert_array_equal(actual, exact)


def test_weighted_sum() -> None:
    values, weights = jnp.array([2.0, 3.0, 5.0]), jnp.array([1.0, 0.5, 0.0])
    assert weighted_sum(values, weights) == 3.5


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
def test_a_value_without_weight_may_be_anything(garbage: float) -> None:
    values, weights = jnp.array([2.0, garbage, 5.0]), jnp.array([1.0, 0.0, 1.0])
    value, gradient = jax.value_and_grad(weighted_sum)(values, weights)
    assert value == 7
    np.testing.assert_array_equal(gradient, [1, 0, 1])


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("label", [-1, 4, 2**31 - 1])
def test_a_row_without_weight_has_no_gradient(loss: Loss, label: int) -> None:
    def total(logits: Array, labels: Array, weights: Array) -> Array:
        return weighted_sum(cross_entropy(logits, labels, loss, 0.1), weights)

    logits = jnp.asarray(LOGITS).at[2].set(jnp.array([-3e38, 0.0, 3e38, 1.0]))
    labels = jnp.asarray(LABELS).at[2].set(label)
    weights = jnp.array([1.0, 1.0, 0.0])
    value, gradient = jax.value_and_grad(total)(logits, labels, weights)
    expected = jax.value_and_grad(total)(logits[:2], labels[:2], weights[:2])
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient[:2], expected[1], rtol=1e-6)
    np.testing.assert_array_equal(gradient[2], 0)


# Any number of labels, in any order, with padding anywhere and one of them twice.
SETS = np.array([[3, -1, 0, 3], [-1, -1, -1, -1], [1, 2, -1, 0]])
MULTI_HOT = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]])


def _gradient(labels: np.ndarray, loss: Loss, smoothing: float) -> Array:
    def total(logits: Array) -> Array:
        return cross_entropy(logits, jnp.asarray(labels), loss, smoothing).sum()

    return jax.grad(total)(jnp.asarray(LOGITS, jnp.float32))


@pytest.mark.parametrize("smoothing", [0.0, 1e-4, 0.1])
def test_sigmoid_of_label_sets_has_multi_hot_targets(smoothing: float) -> None:
    targets = np.where(MULTI_HOT == 1, 1 - smoothing, smoothing)
    log_p, log_not_p = -np.log1p(np.exp(-LOGITS)), -np.log1p(np.exp(LOGITS))
    expected = -(targets * log_p + (1 - targets) * log_not_p).sum(axis=1)
    actual = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(SETS), "sigmoid", smoothing)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    # The derivative by a logit x with target t is sigmoid(x) - t.
    gradient = _gradient(SETS, "sigmoid", smoothing)
    np.testing.assert_allclose(gradient, np.exp(log_p) - targets, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_of_label_sets_shares_the_target(smoothing: float) -> None:
    labelled = [0, 2]
    shared = MULTI_HOT[labelled] / MULTI_HOT[labelled].sum(axis=1, keepdims=True)
    targets = (1 - smoothing) * shared + smoothing / LOGITS.shape[1]
    log_p = (LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True)))[labelled]
    actual = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(SETS), "softmax", smoothing)
    np.testing.assert_allclose(actual[jnp.array(labelled)], -(targets * log_p).sum(1), rtol=1e-5)
    gradient = _gradient(SETS, "softmax", smoothing)
    np.testing.assert_allclose(gradient[np.array(labelled)], np.exp(log_p) - targets, atol=1e-6)
    # No label, nothing to learn.
    assert actual[1] == 0 and not gradient[1].any()


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_one_label_is_the_same_as_a_set_of_one(loss: Loss) -> None:
    single = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), loss, 0.1)
    padded = np.stack([np.full(3, -1), LABELS], axis=1)
    np.testing.assert_allclose(
        cross_entropy(jnp.asarray(LOGITS), jnp.asarray(padded), loss, 0.1), single, rtol=1e-6
    )
    np.testing.assert_allclose(
        _gradient(padded, loss, 0.1), _gradient(LABELS, loss, 0.1), atol=1e-6
    )


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_padding_changes_no_bit(loss: Loss) -> None:
    compute = jax.jit(lambda labels: _gradient(labels, loss, 0.1))
    wide = np.concatenate([SETS, np.full((3, 60), -1)], axis=1)
    np.testing.assert_array_equal(compute(SETS), compute(wide))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_label_sets_take_no_memory_of_the_size_of_the_logits(loss: Loss) -> None:
    logits = jax.ShapeDtypeStruct((64, 18_291), jnp.float32)
    labels = jax.ShapeDtypeStruct((64, 64), jnp.int32)

    def total(logits: Array, labels: Array) -> Array:
        return cross_entropy(logits, labels, loss, 0.1).sum()

    compiled = jax.jit(jax.grad(total), donate_argnums=0).lower(logits, labels).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < logits.size * 4
