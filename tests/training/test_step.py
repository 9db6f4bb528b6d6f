import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.small_models import small_vit
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import replicated
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.step import _strided, init_state, make_train_step
from vit_jax.training.supervised import Supervised

ROWS, RATE, AVERAGE = 8, 0.5, 0.75
MODEL = small_vit(image_size=(8, 16), num_classes=3, depth=1, scan=False)
# Plain gradient descent: the change of the parameters is the gradient.
OPTIMIZER = make_optimizer(
    OptimizerConfig("sgd", momentum=0.0),
    optax.constant_schedule(RATE),
    abstract_params(MODEL),
    parameter_table(MODEL),
)


def _mesh() -> Any:
    return make_mesh(MeshConfig(), jax.devices()[:1])


@functools.cache
def _step(micro_batches: Any, *, dropout: float = 0.0, flip: bool = False, seed: int = 0) -> Any:
    return jax.jit(
        make_train_step(
            Supervised(dataclasses.replace(MODEL, dropout=dropout), flip=flip),
            OPTIMIZER,
            _mesh(),
            micro_batches=micro_batches,
            average=AVERAGE,
            seed=seed,
        )
    )


@functools.cache
def _state() -> Any:
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: jnp.asarray(rng.normal(0, 0.3, p.shape), p.dtype), abstract_params(MODEL)
    )
    return jax.device_put(init_state(params, OPTIMIZER, average=True), replicated(_mesh()))


def _at(step: int) -> Any:
    return dataclasses.replace(_state(), step=jax.device_put(jnp.int32(step), replicated(_mesh())))


def _batch(weights: Any = (1,) * ROWS, **changes: Any) -> Any:
    rng = np.random.default_rng(1)
    batch = {
        "images": rng.integers(0, 256, (ROWS, 8, 16, 3), np.uint8),
        "labels": rng.integers(0, 3, ROWS, np.int32),
        "weights": np.asarray(weights, np.float32),
    }
    return batch | changes


def _row_losses(step: Any, batch: Any, number: Any = 0) -> Any:
    """Each row's loss, from steps in which it alone counts."""
    state = _at(number)
    return np.array(
        [float(step(state, batch | {"weights": w})[1]["loss"]) for w in np.eye(ROWS, dtype="f4")]
    )


def _assert_equal(actual: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


VALID = (1, 1, 0, 1, 0, 1, 0, 1)


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_micro_batches_sum_to_the_batch(micro_batches: int) -> None:
    # Rows 2 and 6 are in one of four parts, so that its share of valid rows differs.
    batch = _batch(VALID)
    state, metrics = _step(micro_batches)(_state(), batch)
    expected_state, expected = _step(1)(_state(), batch)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
        state.params,
        expected_state.params,
    )


def test_loss_is_the_mean_over_rows_that_count() -> None:
    _, metrics = _step(1)(_state(), _batch(VALID))
    rows = _row_losses(_step(1), _batch())
    np.testing.assert_allclose(metrics["loss"], rows[np.array(VALID) == 1].mean(), rtol=1e-5)
    assert metrics["skipped"] == 3


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_content_of_invalid_rows_has_no_effect(micro_batches: int) -> None:
    batch = _batch(VALID)
    garbage = {key: batch[key].copy() for key in batch}
    garbage["images"][[2, 4, 6]] = np.array([0, 255, 128], np.uint8)[:, None, None, None]
    garbage["labels"][[2, 4, 6]] = [-1, 3, 2**31 - 1]
    step = _step(micro_batches)
    _assert_equal(step(_state(), garbage), step(_state(), batch))


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_a_batch_without_weight_changes_nothing(micro_batches: int) -> None:
    state, metrics = _step(micro_batches)(_state(), _batch((0,) * ROWS))
    assert metrics == {"loss": 0, "grad_norm": 0, "skipped": ROWS}
    _assert_equal(state.params, _state().params)


def test_grad_norm_is_that_of_the_gradient() -> None:
    state, metrics = _step(1)(_state(), _batch())
    before, after = (jax.tree.leaves(jax.device_get(s.params)) for s in (_state(), state))
    squares = [(((a - b) / RATE) ** 2).sum() for a, b in zip(before, after, strict=True)]
    np.testing.assert_allclose(metrics["grad_norm"] ** 2, sum(squares), rtol=1e-4)


def test_step_counts_and_average_follows() -> None:
    state = _state()
    averaged = state.params
    for number in range(1, 4):
        state, _ = _step(1)(state, _batch())
        assert state.step == number
        averaged = jax.tree.map(
            lambda a, p: AVERAGE * np.asarray(a) + (1 - AVERAGE) * np.asarray(p),
            averaged,
            state.params,
        )
    assert state.step.dtype == jnp.int32
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        state.averaged,
        averaged,
    )


def test_no_average_unless_asked_for() -> None:
    assert init_state(_state().params, OPTIMIZER, average=False).averaged is None


def test_dropout_is_a_function_of_the_step() -> None:
    step = _step(2, dropout=0.5)
    first = step(_at(7), _batch())
    _assert_equal(step(_at(7), _batch()), first)
    assert step(_at(8), _batch())[1]["loss"] != first[1]["loss"]


def test_no_two_rows_share_their_dropout() -> None:
    # Rows 0, 2, .. and 1, 3, .. are the two micro-batches; all rows hold the same.
    batch = _batch()
    same = batch | {"images": batch["images"][[0] * ROWS], "labels": batch["labels"][[0] * ROWS]}
    assert np.unique(_row_losses(_step(1), same).round(5)).size == 1
    assert np.unique(_row_losses(_step(2, dropout=0.5), same)).size == ROWS


def test_row_r_is_in_part_r_mod_parts() -> None:
    split = _strided({"labels": jnp.arange(6), "images": jnp.zeros((6, 2, 2, 3))}, 3, lambda x: x)
    np.testing.assert_array_equal(split["labels"], [[0, 3], [1, 4], [2, 5]])
    assert split["images"].shape == (3, 2, 2, 2, 3)


def test_flips_are_fair_and_a_function_of_seed_and_step() -> None:
    batch = _batch()
    plain = _row_losses(_step(1), batch)
    mirrored = _row_losses(_step(1), batch | {"images": batch["images"][:, :, ::-1]})
    assert np.abs(plain - mirrored).min() > 1e-4

    def flips(number: Any, seed: int = 0) -> Any:
        losses = _row_losses(_step(1, flip=True, seed=seed), batch, number)
        flipped = np.abs(losses - mirrored) < np.abs(losses - plain)
        np.testing.assert_allclose(losses, np.where(flipped, mirrored, plain), rtol=1e-5)
        return flipped

    drawn = np.array([flips(number) for number in range(8)])
    np.testing.assert_array_equal(flips(3), drawn[3])
    assert (flips(3, seed=1) != drawn[3]).any()
    assert len(np.unique(drawn, axis=0)) > 4
    # 64 fair draws: 32 with a deviation of 4.
    assert 16 < drawn.sum() < 48
