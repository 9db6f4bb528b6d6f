"""Dropout and stochastic depth: what a key decides, and how often."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.models.vit_parts import encode, gelu_tanh, logits_of, module_of
from tests.small_models import small_vit
from vit_jax.models.attention import Mlp
from vit_jax.models.blocks import skip
from vit_jax.models.functional import abstract_params


def _tokens(model: Any, images: Any, key: Any) -> Any:
    return model.tokens(model.patches(images), key=key)


def test_no_key_is_no_randomness() -> None:
    random = logits_of(small_vit(dropout=0.5, stochastic_depth=0.5))
    np.testing.assert_allclose(random, logits_of(small_vit()), rtol=1e-5, atol=1e-6)


def test_a_key_decides_scanned_and_unrolled_alike() -> None:
    options = {"dropout": 0.3, "stochastic_depth": 0.3}
    scanned, unrolled = (
        logits_of(small_vit(**options, scan=scan), key=jax.random.key(3)) for scan in (True, False)
    )
    np.testing.assert_allclose(unrolled, scanned, rtol=1e-4, atol=1e-5)
    other = logits_of(small_vit(**options), key=jax.random.key(4))
    assert (other != scanned).all()


def test_skip_keeps_the_mean() -> None:
    branch = jnp.ones((4000, 2, 3)) * jnp.arange(1.0, 4.0)
    skipped = np.asarray(skip(branch, jax.random.key(0), jnp.float32(0.25)))
    kept = skipped[:, 0, 0] > 0
    expected = np.where(kept[:, None, None], branch / 0.75, 0)
    np.testing.assert_allclose(skipped, expected, rtol=1e-6)  # whole examples only
    assert kept.mean() == pytest.approx(0.75, abs=0.03)
    np.testing.assert_array_equal(skip(branch, None, jnp.float32(0.25)), branch)
    np.testing.assert_array_equal(skip(branch, jax.random.key(0), None), branch)


DEPTH = 5


def _traces(batch: Any, tokens: Any, **options: Any) -> Any:
    """What each of the 2 * DEPTH branches added: [batch, tokens, branch].

    Kernels are zero and branch i adds 1 in channel i alone, so that dropout and stochastic depth
    leave their factors there.
    """
    config = small_vit(depth=DEPTH, **options)
    params = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), abstract_params(config))
    ones = jnp.eye(2 * DEPTH, 16)
    params["blocks"]["attention"]["out"]["bias"] = ones[::2]
    params["blocks"]["mlp"]["dense2"]["bias"] = ones[1::2]
    model = module_of(config, params)
    run = jax.jit(lambda x, key: encode(model, x, key))
    added = run(jnp.zeros((batch, tokens, 16)), jax.random.key(0))
    return np.asarray(added)[..., : 2 * DEPTH]


def _assert_independent(draws: Any) -> None:
    correlation = np.corrcoef(draws, rowvar=False)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.1


def test_stochastic_depth_falls_linearly_to_none_at_the_first_block() -> None:
    rates = np.array([0.0, 0.1, 0.2, 0.3, 0.4]).repeat(2)
    factors = _traces(4000, 2, stochastic_depth=0.4)
    np.testing.assert_array_equal(factors[:, 0], factors[:, 1])  # an example's tokens together
    factors = factors[:, 0]
    kept = factors > 0
    np.testing.assert_allclose(factors, np.where(kept, 1 / (1 - rates), 0), rtol=1e-6)
    assert kept[:, :2].all()
    np.testing.assert_allclose(kept.mean(axis=0), 1 - rates, atol=0.03)
    # Each branch of each block is drawn on its own.
    _assert_independent(kept[:, 2:])


def test_dropout_after_attention_and_mlp_differs_in_every_layer() -> None:
    factors = _traces(40, 100, dropout=0.25).reshape(-1, 2 * DEPTH)
    kept = factors > 0
    np.testing.assert_allclose(factors, np.where(kept, 1 / 0.75, 0), rtol=1e-6)
    np.testing.assert_allclose(kept.mean(axis=0), 0.75, atol=0.03)
    _assert_independent(kept)


def test_dropout_after_positions_and_within_the_mlp() -> None:
    config = small_vit(image_size=64, dropout=0.25, depth=1)
    params = jax.tree.map(lambda p: jnp.ones(p.shape, p.dtype), abstract_params(config))
    images = jnp.zeros((20, 64, 64, 3))
    # Patch tokens are the bias and the position, 1 + 1; the class token and its position too.
    embedded = np.asarray(_tokens(module_of(config, params), images, jax.random.key(0)))
    assert set(np.unique(embedded.round(4))) == {np.float32(0), np.float32(2.6667)}
    assert embedded.mean() == pytest.approx(2, rel=0.02)

    mlp = Mlp(config, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(mlp)
    state = jax.tree.map(jnp.zeros_like, nnx.to_pure_dict(state))
    # All 32 hidden units are gelu(3) and are summed in each output.
    state["dense1"]["bias"] += 3.0
    state["dense2"]["kernel"] += 1.0
    out = np.asarray(nnx.merge(graphdef, state)(jnp.zeros((4000, 16)), jax.random.key(0)))
    hidden_units = out / (gelu_tanh(3.0) / 0.75 / 0.75)
    np.testing.assert_allclose(hidden_units, hidden_units.round(), atol=1e-3)
    assert out.mean() == pytest.approx(32 * gelu_tanh(3.0), rel=0.02)
    assert (out > 0).mean() == pytest.approx(0.75, abs=0.02)
    kept = np.where(out > 0, hidden_units, 0).max(axis=1)
    assert kept.mean() == pytest.approx(24, abs=0.2)
