"""What each policy keeps for the backward pass, and that all of them give one gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.vit_parts import random_images, redrawn
from tests.small_models import small_vit
from vit_jax.models.functional import abstract_params, apply_model


def _loss(config: Any) -> Any:
    apply = apply_model(config)
    images = random_images(config)

    def loss(params: Any) -> Any:
        return (apply(params, images, key=jax.random.key(7)) ** 2).mean()

    return loss


@functools.cache
def _gradient(**options: Any) -> Any:
    config = small_vit(depth=3, **options).completed()
    params = jax.tree.map(lambda p: 0.3 * p, redrawn(abstract_params(config)))
    return jax.jit(jax.grad(_loss(config)))(params)


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("remat", ["none", "dots", "block"])
def test_policies_and_loops_give_one_gradient(remat: str, scan: bool) -> None:
    options = {"dropout": 0.1, "stochastic_depth": 0.1}
    expected = _gradient(remat="block", scan=False, **options)
    actual = _gradient(remat=remat, scan=scan, **options)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * largest)


def test_masks_of_dropout_are_kept_as_one_byte() -> None:
    config = small_vit(depth=3, dropout=0.1).completed()
    kept = jax.eval_shape(lambda p: jax.vjp(_loss(config), p)[1], abstract_params(config))
    tokens = [x for x in jax.tree.leaves(kept) if x.shape[:3] == (3, 2, 5) and x.ndim == 4]
    masks = [x.shape[-1] for x in tokens if x.dtype == jnp.bool]
    assert masks == [16, 32, 16]
    assert {x.dtype for x in tokens} == {jnp.dtype("bool"), jnp.dtype("float32")}
