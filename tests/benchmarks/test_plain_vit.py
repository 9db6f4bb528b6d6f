"""The plain ViT of the benchmarks is the same function of the same parameters as ours."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.plain_vit import plain_adamw, plain_params, plain_vit, train_step
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import apply_model, init_params

CONFIG = ModelConfig("ViT-Ti/16", image_size=48, num_classes=7, depth=2, width=32, num_heads=4)


@pytest.fixture(scope="module")
def drawn() -> Any:
    return jax.jit(lambda: init_params(CONFIG.completed(), 0))()


@pytest.fixture(scope="module")
def params(drawn: Any) -> Any:
    # The head, the class token and the biases are drawn as zeros, which would hide them.
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.05 * rng.normal(size=x.shape).astype(np.float32), drawn)


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), np.uint8)
LABELS = np.array([0, 3, 6], np.int32)


@pytest.mark.parametrize(("scan", "remat"), [(False, "none"), (True, "dots"), (False, "block")])
def test_logits_equal_ours(params: Any, scan: Any, remat: Any) -> None:
    model = plain_vit(CONFIG, scan=scan, remat=remat)
    images = IMAGES / np.float32(127.5) - 1
    actual = jax.jit(model.apply)({"params": plain_params(params, scan=scan)}, images)
    expected = jax.jit(apply_model(CONFIG.completed()))(params, images)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_it_draws_what_ours_draws(drawn: Any, scan: Any) -> None:
    model = plain_vit(CONFIG, scan=scan)
    theirs = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 48, 48, 3)))["params"]
    ours = plain_params(drawn, scan=scan)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (theirs, ours)]
    assert shapes[0] == shapes[1]

    def compare(path: Any, x: Any, y: Any) -> None:
        np.testing.assert_allclose(x.std(), y.std(), rtol=0.3, atol=1e-6, err_msg=str(path))

    jax.tree_util.tree_map_with_path(compare, theirs, ours)


def test_activations_have_the_type_that_is_asked_for(params: Any) -> None:
    model = plain_vit(ModelConfig(**{**vars(CONFIG), "dtype": "bfloat16"}))
    images = IMAGES / np.float32(127.5) - 1
    variables = {"params": plain_params(params)}
    apply = jax.jit(functools.partial(model.apply, capture_intermediates=True))
    logits, state = apply(variables, images)
    assert logits.dtype == jnp.float32
    inner = state["intermediates"]["blocks_0"]
    types = {str(x.dtype) for x in jax.tree.leaves(inner)}
    assert types == {"bfloat16"}
    exact = jax.jit(plain_vit(CONFIG).apply)(variables, images)
    np.testing.assert_allclose(logits, exact, rtol=0, atol=0.05)


def test_its_step_descends_by_the_gradient_of_our_loss(params: Any) -> None:
    """With AdamW's first step each parameter moves by the rate in the gradient's direction."""
    model, optimizer = plain_vit(CONFIG), plain_adamw(1e-3, weight_decay=0.0, clip_norm=1e9)
    start = plain_params(params)
    step = jax.jit(train_step(model, optimizer))
    after, _, loss = step(start, optimizer.init(start), IMAGES, LABELS)
    apply = apply_model(CONFIG.completed())

    def ours(params: Any) -> Any:
        logits = apply(params, jnp.float32(IMAGES) / 127.5 - 1)
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

    expected, gradient = jax.jit(jax.value_and_grad(ours))(params)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    moved = after["head"]["kernel"] - start["head"]["kernel"]
    np.testing.assert_allclose(moved, -1e-3 * np.sign(gradient["head"]["kernel"]), rtol=1e-2)
