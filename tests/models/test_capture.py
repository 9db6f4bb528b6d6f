import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import SMALL, random_params, refusal
from vit_jax.models.functional import apply_model
from vit_jax.models.vit import ViT

CAPTURED = ViT.captured
# 2 x 3 patches, so that rows, columns, heads and blocks have different lengths.
MODEL = dataclasses.replace(SMALL, image_size=(16, 24), depth=3, num_heads=4)
IMAGES = np.random.default_rng(1).normal(size=(2, 16, 24, 3)).astype(np.float32)


def _params(model: Any) -> Any:
    # Small enough for attention that is spread over several tokens.
    return jax.tree.map(lambda leaf: leaf * np.float32(0.2), random_params(model))


@functools.cache
def _captured(capture: Any = CAPTURED, **changes: Any) -> Any:
    model = dataclasses.replace(MODEL, **changes)
    run = jax.jit(functools.partial(apply_model(model), capture=capture))
    outputs = run(_params(model), IMAGES)
    return jax.tree.map(np.asarray, outputs)


@functools.cache
def _logits(**changes: Any) -> Any:
    model = dataclasses.replace(MODEL, **changes)
    return np.asarray(jax.jit(apply_model(model))(_params(model), IMAGES))


def _normed(x: Any, norm: Any) -> Any:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + MODEL.norm_epsilon)
    return x * norm["scale"] + norm["bias"]


def _gelu(x: Any) -> Any:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _dense(x: Any, layer: Any) -> Any:
    return x @ layer["kernel"] + layer["bias"]


def test_shapes_and_types() -> None:
    logits, captured = _captured(registers=2)
    assert logits.shape == (2, 5)
    assert {name: array.shape for name, array in captured.items()} == {
        "features": (2, 32),
        "tokens": (2, 1 + 6 + 2, 32),
        "layers": (3, 2, 9, 32),
        "normed_layers": (3, 2, 9, 32),
        "attention": (3, 2, 4, 9, 9),
    }
    logits, captured = _captured(registers=2, dtype="bfloat16")
    assert logits.dtype == captured["attention"].dtype == np.float32
    assert {captured[name].dtype for name in ("features", "layers")} == {np.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("name", CAPTURED)
def test_each_comes_alone_too_and_leaves_the_logits_as_they_are(name: Any) -> None:
    logits, captured = _captured((name,))
    assert captured.keys() == {name}
    np.testing.assert_allclose(logits, _logits(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(captured[name], _captured()[1][name], rtol=1e-4, atol=1e-5)


def test_rows_of_attention_sum_to_one_and_are_the_softmax_of_products() -> None:
    _, captured = _captured()
    weights, layers = captured["attention"], captured["layers"]
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert weights.min() > 0 and weights.max() < 0.99
    blocks = _params(MODEL)["blocks"]
    for i in (1, 2):  # what these see is known: the output of the block before
        block = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
        x = _normed(layers[i - 1], block["norm1"])
        query, key = (
            np.einsum("btd,dhk->bhtk", x, block["attention"][part]["kernel"])
            + block["attention"][part]["bias"][:, None]
            for part in ("query", "key")
        )
        scores = np.exp(query @ key.swapaxes(-1, -2) / math.sqrt(8))
        expected = scores / scores.sum(-1, keepdims=True)
        np.testing.assert_allclose(weights[i], expected, rtol=1e-3, atol=1e-5)


def test_attention_and_layers_give_each_block_s_output() -> None:
    _, captured = _captured()
    blocks = _params(MODEL)["blocks"]
    for i in (1, 2):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
        attention, x = block["attention"], captured["layers"][i - 1]
        value = np.einsum("btd,dhk->bhtk", _normed(x, block["norm1"]), attention["value"]["kernel"])
        value += attention["value"]["bias"][:, None]
        mixed = captured["attention"][i] @ value
        x = x + np.einsum("bhtk,hkd->btd", mixed, attention["out"]["kernel"])
        x += attention["out"]["bias"]
        hidden = _gelu(_dense(_normed(x, block["norm2"]), block["mlp"]["dense1"]))
        x = x + _dense(hidden, block["mlp"]["dense2"])
        np.testing.assert_allclose(captured["layers"][i], x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pooling", ["token", "gap", "gap_timm", "attention"])
def test_tokens_are_the_last_layer_s_and_features_what_the_head_sees(pooling: Any) -> None:
    logits, captured = _captured(pooling=pooling, registers=2)
    model = dataclasses.replace(MODEL, pooling=pooling, registers=2)
    params = _params(model)
    last, tokens = captured["layers"][-1], captured["tokens"]
    np.testing.assert_array_equal(captured["normed_layers"][-1], tokens)
    normed = _normed(captured["layers"], params["norm"])
    np.testing.assert_allclose(captured["normed_layers"], normed, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(tokens, _normed(last, params["norm"]), rtol=1e-3, atol=1e-4)
    first = int(model.has_class_token)
    patches = slice(first, first + 6)
    expected = {
        "token": tokens[:, 0],
        "gap": tokens[:, patches].mean(axis=1),
        "gap_timm": _normed(last[:, patches].mean(axis=1), params["norm"]),
    }
    features = captured["features"]
    if pooling in expected:
        np.testing.assert_allclose(features, expected[pooling], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(logits, _dense(features, params["head"]), rtol=1e-3, atol=1e-4)


def test_features_are_after_the_representation_layer() -> None:
    changes = {"representation_size": 24}
    logits, captured = _captured(**changes)
    params = _params(dataclasses.replace(MODEL, **changes))
    expected = np.tanh(_dense(captured["tokens"][:, 0], params["pre_logits"]))
    np.testing.assert_allclose(captured["features"], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        logits, _dense(captured["features"], params["head"]), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("changes", [{"scan": False}, {"remat": "block"}, {"remat": "dots"}])
def test_unrolled_and_rematerialised_capture_the_same(changes: dict[str, Any]) -> None:
    expected, actual = _captured(), _captured(**changes)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), actual, expected
    )


def test_without_a_head_the_features_come_in_its_place() -> None:
    features, captured = _captured(num_classes=0)
    np.testing.assert_array_equal(features, captured["features"])
    np.testing.assert_allclose(features, _logits(num_classes=0), rtol=1e-4, atol=1e-5)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    run = functools.partial(apply_model(MODEL), _params(MODEL), IMAGES)
    assert "no 'atention'; did you mean 'attention'?" in refusal(run, capture=["atention"])
    message = refusal(run, capture=["features", "gradients"])
    assert (
        "no 'gradients'" in message
        and "features, tokens, layers, normed_layers, attention" in message
    )
