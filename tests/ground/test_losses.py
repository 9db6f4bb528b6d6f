import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.losses import cross_entropy, weighted_sum

LOGITS = np.array([[1.5, -2.0, 0.25, 3.0], [0.0, 0.0, 0.0, 0.0], [-30.0, 5.0, 90.0, 4.0]])
LABELS = np.array([3, 1, 0])


def _one_hot():
    return np.eye(LOGITS.shape[1])[LABELS]


@pytest.mark.parametrize("smoothing", [0.0, 1e-4, 0.1])
def test_softmax(smoothing):
    # Smoothing spreads its share evenly over all classes, the true one included.
    targets = (1 - smoothing) * _one_hot() + smoothing / LOGITS.shape[1]
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    actual = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), "softmax", smoothing)
    np.testing.assert_allclose(actual, -(targets * log_p).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 1e-4, 0.1])
def test_sigmoid_sums_over_classes(smoothing):
    targets = np.where(_one_hot() == 1, 1 - smoothing, smoothing)
    log_p, log_not_p = -np.log1p(np.exp(-LOGITS)), -np.log1p(np.exp(LOGITS))
    expected = -(targets * log_p + (1 - targets) * log_not_p).sum(axis=1)
    actual = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), "sigmoid", smoothing)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_first_loss_of_pre_training_on_jft():
    # A zero head with bias -10 on JFT's 18,291 classes.
    classes = 18_291
    expected = np.log1p(np.exp(10)) + (classes - 1) * np.log1p(np.exp(-10))  # 10.83
    actual = cross_entropy(jnp.full((1, classes), -10.0), jnp.array([7]), "sigmoid", 0.0)
    np.testing.assert_allclose(actual, [expected], rtol=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_computed_in_float32(loss):
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    actual = cross_entropy(logits, jnp.asarray(LABELS), loss, 0.1)
    assert actual.dtype == jnp.float32
    exact = cross_entropy(logits.astype(jnp.float32), jnp.asarray(LABELS), loss, 0.1)
    np.testing.assert_array_equal(actual, exact)


def test_weighted_sum():
    values, weights = jnp.array([2.0, 3.0, 5.0]), jnp.array([1.0, 0.5, 0.0])
    assert weighted_sum(values, weights) == 3.5


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
def test_a_value_without_weight_may_be_anything(garbage):
    values, weights = jnp.array([2.0, garbage, 5.0]), jnp.array([1.0, 0.0, 1.0])
    value, gradient = jax.value_and_grad(weighted_sum)(values, weights)
    assert value == 7
    np.testing.assert_array_equal(gradient, [1, 0, 1])


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("label", [-1, 4, 2**31 - 1])
def test_a_row_without_weight_has_no_gradient(loss, label):
    def total(logits, labels, weights):
        return weighted_sum(cross_entropy(logits, labels, loss, 0.1), weights)

    logits = jnp.asarray(LOGITS).at[2].set(jnp.array([-3e38, 0.0, 3e38, 1.0]))
    labels = jnp.asarray(LABELS).at[2].set(label)
    weights = jnp.array([1.0, 1.0, 0.0])
    value, gradient = jax.value_and_grad(total)(logits, labels, weights)
    expected = jax.value_and_grad(total)(logits[:2], labels[:2], weights[:2])
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient[:2], expected[1], rtol=1e-6)
    np.testing.assert_array_equal(gradient[2], 0)
