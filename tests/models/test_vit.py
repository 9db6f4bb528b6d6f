"""ViT: counts of parameters, tokens, positions and pooling, and what a call refuses."""

import functools
import logging
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from tests.models.vit_parts import (
    encode,
    features_of,
    gelu_tanh,
    layer_norm,
    logits_of,
    module_of,
    random_images,
    redrawn,
)
from tests.small_models import Seen, refusal, small_vit
from vit_jax import create_model
from vit_jax.errors import UserError
from vit_jax.models import ModelConfig
from vit_jax.models.attention import AttentionPooling, Mlp
from vit_jax.models.functional import abstract_params, apply_model
from vit_jax.models.positions import sincos2d
from vit_jax.preprocessing import PreprocessingConfig

# Parameters.


@pytest.mark.parametrize(
    ("name", "pooling", "count"),
    [
        # models_test.py of google-research/vision_transformer, at 224 pixels and 1000 classes.
        ("ViT-Ti/16", "token", 5_717_416),
        ("ViT-S/32", "token", 22_878_952),
        ("ViT-S/16", "token", 22_050_664),
        ("ViT-S/32", "gap", 22_878_184),
        ("ViT-S/16", "gap", 22_049_896),
        ("ViT-B/32", "token", 88_224_232),
        ("ViT-B/16", "token", 86_567_656),
        ("ViT-B/32", "gap", 88_222_696),
        ("ViT-B/16", "gap", 86_566_120),
        ("ViT-B/8", "token", 86_576_872),
        ("ViT-L/32", "token", 306_535_400),
        ("ViT-L/16", "token", 304_326_632),
        ("ViT-H/14", "token", 632_045_800),
    ],
)
def test_parameter_counts(name: Any, pooling: Any, count: Any) -> None:
    params = abstract_params(ModelConfig(name, pooling=pooling, num_classes=1000))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(params)) == count


def test_create_model() -> None:
    model = create_model("ViT-mu/8", image_size=(16, 24), head_bias=0.5)
    logits = jax.jit(lambda images: model(images))(jnp.ones((2, 16, 24, 3)))
    np.testing.assert_array_equal(logits, np.full((2, 1000), 0.5))
    with pytest.raises(ValueError, match="images are 24x16"):
        model(jnp.ones((2, 24, 16, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 7}, "image_size 7x7 is below one patch"),
        ({"width": 15}, "width 15 is not a multiple of num_heads 2"),
        ({"width": 18, "positions": "sincos2d"}, "sincos2d.*multiple of 4, not 18"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"num_classes": -1}, "num_classes must not be negative"),
        ({"depth": 0}, "depth must be from 1 to 1,024"),
        ({"depth": 10**9}, "depth must be from 1 to 1,024"),
        ({"registers": -1}, "registers must be from 0 "),
        ({"representation_size": 0}, "representation_size must be from 1 "),
        ({"attention": "cudnn"}, "attention='cudnn' needs dtype='bfloat16'"),
    ],
)
def test_options_that_do_not_fit_together(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_vit(**options)


# Input, tokens and pooling.


def test_a_grid_that_is_not_whole_is_floored_with_one_notice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        configs = [small_vit(image_size=(29, 18), depth=1) for _ in range(2)]
    assert caplog.messages == [
        "an image of 29x18 pixels is not a whole number of 8x8 patches: the model sees its upper "
        "left 24x16"
    ]
    images = random_images(configs[0])
    whole = logits_of(small_vit(image_size=(24, 16), depth=1), images[:, :24, :16])
    np.testing.assert_allclose(logits_of(configs[0], images), whole, rtol=1e-5, atol=1e-6)


def test_paper_s_grid_of_h14_at_384_pixels() -> None:
    config = ModelConfig("ViT-H/14", image_size=384)
    assert (config.grid, config.sequence_length) == ((27, 27), 730)


def test_sincos2d() -> None:
    rows, columns, width = 3, 5, 16
    actual = np.asarray(sincos2d((rows, columns), width))
    assert actual.shape == (1, rows * columns, width)
    for row in range(rows):
        for column in range(columns):
            for i in range(4):
                omega = 10_000 ** (-i / 3)
                wave = [f(v * omega) for v in (column, row) for f in (math.sin, math.cos)]
                np.testing.assert_allclose(
                    actual[0, row * columns + column, i::4], wave, rtol=1e-5, atol=1e-6
                )


def _swap_patches(images: Any) -> Any:
    """Exchanges the first and the last 8x8 patch."""
    first, last = images[:, :8, :8], images[:, -8:, -8:]
    return images.at[:, :8, :8].set(last).at[:, -8:, -8:].set(first)


@pytest.mark.parametrize("positions", ["none", "learned", "sincos2d"])
def test_only_positions_tell_patches_apart(positions: Any) -> None:
    config = small_vit(pooling="gap", positions=positions, image_size=(16, 24), depth=1)
    assert ("pos_embedding" in abstract_params(config)) == (positions == "learned")
    images = random_images(config)
    logits, swapped = jnp.split(
        logits_of(config, jnp.concatenate([images, _swap_patches(images)])), 2
    )
    assert np.allclose(logits, swapped, rtol=1e-4, atol=1e-4) == (positions == "none")


@pytest.mark.parametrize("pooling", ["token", "gap", "gap_timm"])
def test_pooling_leaves_registers_out(pooling: str) -> None:
    config = small_vit(pooling=pooling, registers=3, depth=1, norm_epsilon=0.1)
    params = redrawn(abstract_params(config))
    has_class_token = pooling != "gap"
    assert params["pos_embedding"].shape == (1, 4 + has_class_token, 16)
    assert params["registers"].shape == (1, 3, 16)
    assert ("cls" in params) == has_class_token

    @jax.jit
    def run(params: Any, images: np.ndarray) -> Any:
        model = module_of(config, params)
        embedded = model.tokens(model.patches(images))
        return embedded, encode(model, embedded, None), features_of(model, images)

    embedded, tokens, features = map(np.asarray, run(params, random_images(config)))
    assert embedded.shape == (2, 4 + has_class_token + 3, 16)
    np.testing.assert_array_equal(embedded[:, -3:], params["registers"].repeat(2, axis=0))

    patches = tokens[:, 1:5] if has_class_token else tokens[:, :4]
    normalised = functools.partial(layer_norm, norm=params["norm"], epsilon=0.1)
    expected = {
        "token": normalised(tokens[:, 0]),
        "gap": normalised(patches).mean(axis=1),
        "gap_timm": normalised(patches.mean(axis=1)),
    }[pooling]
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_registers_take_part_in_attention() -> None:
    config = small_vit(registers=3, depth=1)
    params, images = redrawn(abstract_params(config)), random_images(config)

    def total(registers: Any) -> Any:
        return apply_model(config)(params | {"registers": registers}, images).sum()

    gradient = jax.jit(jax.grad(total))(params["registers"])
    assert (np.abs(gradient).max(axis=-1) > 1e-3).all()


def test_attention_pooling() -> None:
    config = small_vit(norm_epsilon=0.1)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: AttentionPooling(config, rngs=nnx.Rngs(0))))
    params = redrawn(nnx.to_pure_dict(state))
    assert params["probe"].shape == (1, 1, 16)
    tokens = np.random.default_rng(1).normal(size=(3, 7, 16)).astype(np.float32)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(params: Any) -> Any:
        pooled = nnx.merge(graphdef, params)(tokens, None)
        return pooled.sum(), pooled

    gradient, actual = run(params)
    attention, mlp = params["attention"], params["mlp"]
    query, key, value = (
        np.einsum("btd,dhk->bthk", x, attention[part]["kernel"]) + attention[part]["bias"]
        for part, x in (("query", params["probe"]), ("key", tokens), ("value", tokens))
    )
    scores = np.exp(np.einsum("xqhk,bthk->bhqt", query, key) / math.sqrt(8))
    mixed = np.einsum("bhqt,bthk->bqhk", scores / scores.sum(-1, keepdims=True), value)
    pooled = np.einsum("bqhk,hkd->bqd", mixed, attention["out"]["kernel"])[:, 0]
    pooled += attention["out"]["bias"]
    hidden = layer_norm(pooled, params["norm"], 0.1) @ mlp["dense1"]["kernel"]
    hidden = gelu_tanh(hidden + mlp["dense1"]["bias"])
    expected = pooled + hidden @ mlp["dense2"]["kernel"] + mlp["dense2"]["bias"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)

    gradient = traverse_util.flatten_dict(gradient, sep="/")
    largest = {path: float(np.abs(g).max()) for path, g in gradient.items()}
    # Softmax does not see the bias of the keys.
    assert largest.pop("attention/key/bias") < 1e-4
    assert all(math.isfinite(g) and g > 1e-3 for g in largest.values()), largest


def _gelu_exact(x: Any) -> Any:
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize(("kind", "gelu"), [("tanh", gelu_tanh), ("exact", _gelu_exact)])
def test_kinds_of_gelu(kind: str, gelu: Any) -> None:
    x = np.linspace(-4, 4, 81)
    mlp = Mlp(small_vit(gelu=kind), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(mlp.gelu(jnp.asarray(x)), gelu(x), rtol=1e-5, atol=1e-6)
    assert np.abs(gelu_tanh(x) - _gelu_exact(x)).max() > 1e-4


@pytest.mark.parametrize("pooling", ["token", "attention"])
def test_bfloat16_activations(pooling: str) -> None:
    options = {"pooling": pooling, "representation_size": 16, "registers": 1}
    config = small_vit(dtype="bfloat16", **options)
    assert {p.dtype for p in jax.tree.leaves(abstract_params(config))} == {jnp.dtype("float32")}
    logits, exact = logits_of(config), logits_of(small_vit(**options))
    assert logits.dtype == exact.dtype == jnp.float32
    assert 0 < np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()


def test_activations_are_bfloat16_from_the_first_token_to_the_features() -> None:
    config = small_vit(dtype="bfloat16", positions="sincos2d", registers=1)
    seen = Seen()
    model = module_of(config, redrawn(abstract_params(config)))
    features = jax.eval_shape(
        lambda x: features_of(model, x, placement=seen), random_images(config)
    )
    assert features.dtype == jnp.bfloat16
    # The tokens at the stem, and those after the (scanned) block.
    assert set(seen.activations) == {((2, 6, 16), jnp.dtype("bfloat16"))}
    assert len(seen.activations) >= 2


# What a call refuses.


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((16, 16, 3), np.float32), "images[None]"),
        (np.zeros((2, 2, 16, 16, 3), np.float32), "[batch, height, width, 3]"),
        (np.zeros((2, 3, 16, 16), np.float32), "[batch, height, width, 3]"),
        (np.zeros((2, 16, 16, 3), np.uint8), "uint8"),
        (np.full((2, 16, 16, 3), 255.0, np.float32), "up to 255"),
        (jnp.full((2, 16, 16, 3), 200.0), "up to 200"),
        (np.full((2, 16, 16, 3), -128, np.int64), "int64"),
    ],
)
def test_images_that_no_model_expects(images: Any, words: str) -> None:
    model = create_model("ViT-mu/8", image_size=16, num_classes=5, depth=1)
    assert words in refusal(model, images)


def test_pixels_are_right_where_the_preprocessing_leaves_them() -> None:
    pixels = PreprocessingConfig(mean=(0, 0, 0), std=(1 / 255,) * 3)
    model = create_model("ViT-mu/8", image_size=16, num_classes=5, depth=1, preprocessing=pixels)
    images = np.full((2, 16, 16, 3), 255.0, np.float32)
    assert model(images).shape == (2, 5)
    # Under jit nobody sees the values, but type and shape.
    assert jax.jit(lambda x: model(x))(9 * images).shape == (2, 5)
    assert "uint8" in refusal(jax.jit(lambda x: model(x)), images.astype(np.uint8))
