"""Training steps with Mixup and CutMix: what they score, and that it does not depend on parts."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.small_models import small_vit
from vit_jax.losses import cross_entropy
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params, apply_model
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import replicated
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.step import init_state, make_train_step
from vit_jax.training.supervised import Supervised

ROWS, CLASSES, HEIGHT, WIDTH = 16, 3, 8, 16
MODEL = small_vit(image_size=(HEIGHT, WIDTH), num_classes=CLASSES, depth=1, scan=False)
# Plain gradient descent: the change of the parameters is the gradient.
OPTIMIZER = make_optimizer(
    OptimizerConfig("sgd", momentum=0.0),
    optax.constant_schedule(1.0),
    abstract_params(MODEL),
    parameter_table(MODEL),
)


def _mesh() -> Any:
    return make_mesh(MeshConfig(), jax.devices()[:1])


@functools.cache
def _step(
    mixup: Any = 0.0,
    cutmix: Any = 0.0,
    *,
    micro_batches: Any = 1,
    loss: Any = "softmax",
    flip: Any = True,
) -> Any:
    step = make_train_step(
        Supervised(MODEL, loss=loss, label_smoothing=0.1, flip=flip, mixup=mixup, cutmix=cutmix),
        OPTIMIZER,
        _mesh(),
        micro_batches=micro_batches,
        average=None,
        seed=0,
    )
    return jax.jit(step)


@functools.cache
def _params() -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda p: rng.normal(0, 0.3, p.shape).astype(p.dtype), abstract_params(MODEL)
    )


def _at(number: Any) -> Any:
    state = init_state(_params(), OPTIMIZER, average=False)
    return jax.device_put(dataclasses.replace(state, step=jnp.int32(number)), replicated(_mesh()))


def _batch(weights: Any = (1,) * ROWS) -> Any:
    rng = np.random.default_rng(1)
    return {
        "images": rng.integers(0, 256, (ROWS, HEIGHT, WIDTH, 3), np.uint8),
        "labels": rng.integers(0, CLASSES, ROWS, np.int32),
        "weights": np.asarray(weights, np.float32),
    }


# Rows 3, 5 and 8, in other parts of eight, and the partner of the first row do not count.
VALID = np.array([1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0])


@functools.partial(jax.jit, static_argnums=2)
def _row_losses(images: Any, labels: Any, loss: Any) -> Any:
    """Without a training step: of float images in 0 to 255."""
    apply = apply_model(MODEL)
    logits = apply(_params(), images / 127.5 - 1, key=jax.random.key(0))
    return cross_entropy(logits, labels, loss, 0.1)


def _share(step: Any, number: Any, loss: Any = "softmax") -> Any:
    """The own part of a row, from a step in which all images are the same.

    The first two rows alone count. The first has no partner that does, so that only the second
    is mixed, and only in its label.
    """
    weights = (np.arange(ROWS) < 2).astype(np.float32)
    same = {"images": np.full((ROWS, HEIGHT, WIDTH, 3), 90, np.uint8), "weights": weights}
    labels = np.zeros(ROWS, np.int32)
    first, second = (_row_losses(np.float32(same["images"]), labels + k, loss)[0] for k in (0, 1))
    labels[1] = 1
    value = float(step(_at(number), same | {"labels": labels})[1]["loss"])
    return (2 * value - 2 * first) / (second - first)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_loss_of_a_mixed_batch(loss: str) -> None:
    step, batch = _step(0.8, loss=loss, flip=False), _batch(VALID)
    for number in range(3):
        share = np.full(ROWS, _share(step, number, loss))
        assert 0.5 <= share[0] < 1
        share[np.roll(VALID, 1) == 0] = 1
        images, labels = batch["images"].astype(np.float32), batch["labels"]
        own = share[:, None, None, None].astype(np.float32)
        mixed = own * images + (1 - own) * np.roll(images, 1, axis=0)
        rows = share * _row_losses(mixed, labels, loss)
        rows += (1 - share) * _row_losses(mixed, np.roll(labels, 1), loss)
        value = step(_at(number), batch)[1]["loss"]
        np.testing.assert_allclose(value, rows[VALID == 1].mean(), rtol=2e-5)


def _kind(step: int, number: Any) -> str:
    """CutMix's shares are of whole pixels; Mixup's would be by chance."""
    pixels = _share(step, number) * HEIGHT * WIDTH
    return "cutmix" if abs(pixels - round(pixels)) < 2e-3 else "mixup"


def test_eight_micro_batches_equal_one_batch() -> None:
    one, eight = _step(0.8, 1.0), _step(0.8, 1.0, micro_batches=8)
    numbers = range(6)
    assert {_kind(one, number) for number in numbers} == {"mixup", "cutmix"}
    for number in numbers:
        expected_state, expected = one(_at(number), _batch(VALID))
        state, metrics = eight(_at(number), _batch(VALID))
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
            state.params,
            expected_state.params,
        )


def test_every_step_mixes_anew() -> None:
    step = _step(0.8, 1.0)
    shares = [_share(step, number) for number in range(6)]
    assert len(np.unique(np.round(shares, 4))) == 6
    assert _share(step, 3) == shares[3]


@pytest.mark.parametrize("micro_batches", [1, 8])
def test_content_of_invalid_rows_has_no_effect(micro_batches: int) -> None:
    batch = _batch(VALID)
    garbage = {key: batch[key].copy() for key in batch}
    garbage["images"][VALID == 0] = 255
    garbage["labels"][VALID == 0] = [-1, CLASSES, 2**31 - 1, 0]
    step = _step(0.8, 1.0, micro_batches=micro_batches)
    for number in range(3):
        found, expected = (step(_at(number), b) for b in (garbage, batch))
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_rows_without_partners_are_scored_as_without_mixing() -> None:
    # Nor do their flips depend on it.
    batch = _batch(np.arange(ROWS) % 2)
    for number in range(3):
        found, plain = (_step(*options)(_at(number), batch) for options in ((0.8, 1.0), (0.0, 0.0)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found, plain)
