import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from vit_jax.errors import UserError
from vit_jax.models import ModelConfig
from vit_jax.models.dot_product import attend
from vit_jax.models.placement import OneDevice


def _inputs(tokens: Any, size: Any, heads: int = 1) -> Any:
    keys = jax.random.split(jax.random.key(tokens), 4)
    return [jax.random.normal(key, (1, tokens, heads, size)) for key in keys]


def _value_and_grads(implementation: Any, query: Any, key: Any, value: Any, weights: Any) -> Any:
    def loss(query: Any, key: Any, value: Any) -> Any:
        mixed = attend(query, key, value, implementation, OneDevice())
        return (mixed * weights).sum(), mixed

    with jax.default_matmul_precision("highest"):
        grads, mixed = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(query, key, value)
    return mixed, *grads


def test_xla_is_the_paper_s_formula() -> None:
    query, key, value, _ = (np.asarray(x, np.float64)[0, :, 0] for x in _inputs(5, 8))
    scores = np.exp(query @ key.T / math.sqrt(8))
    expected = scores / scores.sum(axis=1, keepdims=True) @ value
    q, k, v, _ = _inputs(5, 8)
    actual = attend(q, k, v, "xla", OneDevice())[0, :, 0]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def _plain(query: Any, key: Any, value: Any) -> Any:
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)


@pytest.mark.parametrize("queries", [7, 1])
def test_gradients_are_those_of_the_formula(queries: int) -> None:
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        lengths = (queries, 7, 7, queries)
        query, key, value, weights = (
            # So spread that some weights are almost 0 and others almost 1.
            3 * jax.random.normal(k, (2, length, 3, 8), jnp.float64)
            for k, length in zip(keys, lengths, strict=True)
        )

        def gradients(mix: Any) -> Any:
            return jax.grad(lambda *qkv: (mix(*qkv) * weights).sum(), argnums=(0, 1, 2))(
                query, key, value
            )

        mix = functools.partial(attend, implementation="xla", placement=OneDevice())
        np.testing.assert_allclose(mix(query, key, value), _plain(query, key, value), atol=1e-12)
        for actual, expected in zip(gradients(mix), gradients(_plain), strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-11)


def test_large_scores_do_not_overflow() -> None:
    query, key, value, weights = (100 * x for x in _inputs(6, 8))
    for found in _value_and_grads("xla", query, key, value, weights):
        assert np.isfinite(found).all()


def test_no_scores_are_kept_or_computed_in_float32() -> None:
    shape = jax.ShapeDtypeStruct((1, 50, 2, 16), jnp.bfloat16)
    mix = functools.partial(attend, implementation="xla", placement=OneDevice())
    kept = jax.eval_shape(lambda *qkv: jax.vjp(mix, *qkv)[1], shape, shape, shape)
    assert all(leaf.shape[-2:] != (50, 50) for leaf in jax.tree.leaves(kept))

    def loss(*qkv: Any) -> Any:
        return mix(*qkv).sum()

    program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(shape, shape, shape)
    products = [eqn for eqn in program.eqns if eqn.primitive.name == "dot_general"]
    assert products
    for eqn in products:
        assert {x.aval.dtype for x in (*eqn.invars, *eqn.outvars)} == {jnp.dtype("bfloat16")}


# Those of B/16 and L/16 at 224 and 384, H/14 at 224, B/16 at 512; whole blocks, and less than one.
@pytest.mark.parametrize(
    ("tokens", "size"),
    [
        *((197, 64), (257, 80), (128, 32)),
        *(pytest.param(tokens, 64, marks=pytest.mark.slow) for tokens in (577, 1025)),
    ],
)
def test_the_tpu_s_kernel_agrees_with_xla(tokens: int, size: int) -> None:
    inputs = _inputs(tokens, size)
    expected = _value_and_grads("xla", *inputs)
    with pltpu.force_tpu_interpret_mode():
        actual = _value_and_grads("pallas", *inputs)
    for one, other in zip(actual, expected, strict=True):
        assert np.abs(one - other).max() < 1e-5 * np.abs(other).max()


def test_heads_are_not_mixed_up() -> None:
    query, key, value, _ = _inputs(20, 8, heads=3)
    with pltpu.force_tpu_interpret_mode():
        mixed = attend(query, key, value, "pallas", OneDevice())
    one_head = functools.partial(attend, implementation="xla", placement=OneDevice())
    for head in range(3):
        at = slice(head, head + 1)
        expected = one_head(query[:, :, at], key[:, :, at], value[:, :, at])
        np.testing.assert_allclose(mixed[:, :, at], expected, atol=1e-5)


def test_bfloat16_stays() -> None:
    q, k, v = (x.astype(jnp.bfloat16) for x in _inputs(30, 16)[:3])
    with pltpu.force_tpu_interpret_mode():
        mixed = attend(q, k, v, "pallas", OneDevice())
    assert mixed.dtype == jnp.bfloat16


def test_gpu_s_kernel_has_no_float32() -> None:
    with pytest.raises(UserError, match="attention='cudnn' needs dtype='bfloat16'"):
        ModelConfig(attention="cudnn")
