import functools
import logging
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from tests.small_models import Seen, refusal
from vit_jax import create_model
from vit_jax.errors import UserError
from vit_jax.models import ModelConfig, ViT
from vit_jax.models.attention import AttentionPooling, Mlp
from vit_jax.models.blocks import run as run_blocks
from vit_jax.models.blocks import skip
from vit_jax.models.functional import abstract_params, apply_model, init_params
from vit_jax.models.placement import OneDevice
from vit_jax.models.positions import sincos2d
from vit_jax.preprocessing import PreprocessingConfig


def _config(**options: Any) -> Any:
    small = {"name": "ViT-B/8", "image_size": 16, "num_classes": 5, "depth": 2}
    small |= {"width": 16, "mlp_dim": 32, "num_heads": 2}
    return ModelConfig(**small | options).completed()


def _redrawn(shapes: Any, seed: int = 0) -> Any:
    """Parameters far from their initial values, so that each of them matters."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: rng.normal(0, 0.4, p.shape).astype(p.dtype), shapes)


def _module(config: Any, params: Any) -> Any:
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0))))
    return nnx.merge(graphdef, params)


def _images(config: Any, batch: int = 2, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-1, 1, (batch, *config.input_size, 3)), jnp.float32)


@functools.cache
def _forward(config: Any) -> Any:
    return jax.jit(apply_model(config))


def _logits(config: Any, images: Any = None, key: Any = None) -> Any:
    images = _images(config) if images is None else images
    return _forward(config)(_redrawn(abstract_params(config)), images, key=key)


def _features(model: Any, images: np.ndarray, **options: Any) -> Any:
    return model(images, capture=["features"], **options)[1]["features"]


def _encode(model: Any, tokens: Any, key: Any) -> Any:
    return run_blocks(model.blocks, tokens, model.config, key, OneDevice(), ())[0]


def _tokens(model: Any, images: Any, key: Any) -> Any:
    return model.tokens(model.patches(images), key=key)


def _layer_norm(x: Any, norm: Any, epsilon: Any) -> Any:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * norm["scale"] + norm["bias"]


# Parameters


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


@functools.cache
def _initial() -> Any:
    config = _config(
        image_size=64,
        depth=3,
        width=128,
        mlp_dim=512,
        num_heads=4,
        representation_size=96,
        head_bias=-10.0,
        registers=4,
    )
    params = jax.jit(lambda: init_params(config, seed=0))()
    return traverse_util.flatten_dict(jax.device_get(params), sep="/")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("cls", 0), ("head/kernel", 0), ("head/bias", -10), ("embedding/bias", 0)),
        *(("pre_logits/bias", 0), ("norm/scale", 1), ("norm/bias", 0)),
        *(("blocks/norm1/scale", 1), ("blocks/norm2/scale", 1), ("blocks/norm1/bias", 0)),
        *(("blocks/attention/query/bias", 0), ("blocks/attention/out/bias", 0)),
    ],
)
def test_initial_constants(path: Any, value: Any) -> None:
    assert (_initial()[path] == value).all()


@pytest.mark.parametrize(
    ("path", "deviation"),
    [
        ("pos_embedding", 0.02),
        ("registers", 0.02),
        ("blocks/mlp/dense1/bias", 1e-6),
        ("blocks/mlp/dense2/bias", 1e-6),
        # LeCun: 1 / sqrt(inputs).
        ("embedding/kernel", 1 / math.sqrt(8 * 8 * 3)),
        ("pre_logits/kernel", 1 / math.sqrt(128)),
    ],
)
def test_initial_normal_values(path: str, deviation: Any) -> None:
    values = _initial()[path]
    # Three deviations of the estimate.
    assert values.std() == pytest.approx(deviation, rel=3 / math.sqrt(2 * values.size))
    assert abs(values.mean()) < 3 * deviation / math.sqrt(values.size)


@pytest.mark.parametrize(
    ("path", "inputs", "outputs"),
    [
        # The 2-D shape counts, not the one split into 4 heads.
        *((f"attention/{part}", 128, 128) for part in ("query", "key", "value", "out")),
        ("mlp/dense1", 128, 512),
        ("mlp/dense2", 512, 128),
    ],
)
def test_initial_kernels_are_xavier_uniform(path: Any, inputs: Any, outputs: Any) -> None:
    values = _initial()[f"blocks/{path}/kernel"]
    bound = math.sqrt(6 / (inputs + outputs))
    assert 0.999 * bound < np.abs(values).max() <= bound
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_each_parameter_of_each_block_has_its_own_values() -> None:
    drawn = [v for p, v in _initial().items() if p.endswith("kernel") and p != "head/kernel"]
    blocks = [b for p, v in _initial().items() if p.startswith("blocks/") for b in v if b.std() > 0]
    assert len(blocks) == 3 * 8
    arrays = [*drawn, *blocks]
    assert len({a.tobytes() for a in arrays}) == len(arrays)


def test_initial_values_depend_on_the_seed() -> None:
    config = ModelConfig("ViT-mu/8", image_size=8, num_classes=1)
    first, again, other = (init_params(config, seed)["embedding"]["kernel"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


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
        _config(**options)


# Input, tokens and pooling


def test_a_grid_that_is_not_whole_is_floored_with_one_notice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        configs = [_config(image_size=(29, 18), depth=1) for _ in range(2)]
    assert caplog.messages == [
        "an image of 29x18 pixels is not a whole number of 8x8 patches: the model sees its upper "
        "left 24x16"
    ]
    images = _images(configs[0])
    whole = _logits(_config(image_size=(24, 16), depth=1), images[:, :24, :16])
    np.testing.assert_allclose(_logits(configs[0], images), whole, rtol=1e-5, atol=1e-6)


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
    config = _config(pooling="gap", positions=positions, image_size=(16, 24), depth=1)
    assert ("pos_embedding" in abstract_params(config)) == (positions == "learned")
    images = _images(config)
    logits, swapped = jnp.split(
        _logits(config, jnp.concatenate([images, _swap_patches(images)])), 2
    )
    assert np.allclose(logits, swapped, rtol=1e-4, atol=1e-4) == (positions == "none")


@pytest.mark.parametrize("pooling", ["token", "gap", "gap_timm"])
def test_pooling_leaves_registers_out(pooling: str) -> None:
    config = _config(pooling=pooling, registers=3, depth=1, norm_epsilon=0.1)
    params = _redrawn(abstract_params(config))
    has_class_token = pooling != "gap"
    assert params["pos_embedding"].shape == (1, 4 + has_class_token, 16)
    assert params["registers"].shape == (1, 3, 16)
    assert ("cls" in params) == has_class_token

    @jax.jit
    def run(params: Any, images: np.ndarray) -> Any:
        model = _module(config, params)
        embedded = model.tokens(model.patches(images))
        return embedded, _encode(model, embedded, None), _features(model, images)

    embedded, tokens, features = map(np.asarray, run(params, _images(config)))
    assert embedded.shape == (2, 4 + has_class_token + 3, 16)
    np.testing.assert_array_equal(embedded[:, -3:], params["registers"].repeat(2, axis=0))

    patches = tokens[:, 1:5] if has_class_token else tokens[:, :4]
    normalised = functools.partial(_layer_norm, norm=params["norm"], epsilon=0.1)
    expected = {
        "token": normalised(tokens[:, 0]),
        "gap": normalised(patches).mean(axis=1),
        "gap_timm": normalised(patches.mean(axis=1)),
    }[pooling]
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_registers_take_part_in_attention() -> None:
    config = _config(registers=3, depth=1)
    params, images = _redrawn(abstract_params(config)), _images(config)

    def total(registers: Any) -> Any:
        return apply_model(config)(params | {"registers": registers}, images).sum()

    gradient = jax.jit(jax.grad(total))(params["registers"])
    assert (np.abs(gradient).max(axis=-1) > 1e-3).all()


def test_attention_pooling() -> None:
    config = _config(norm_epsilon=0.1)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: AttentionPooling(config, rngs=nnx.Rngs(0))))
    params = _redrawn(nnx.to_pure_dict(state))
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
    hidden = _layer_norm(pooled, params["norm"], 0.1) @ mlp["dense1"]["kernel"]
    hidden = _gelu_tanh(hidden + mlp["dense1"]["bias"])
    expected = pooled + hidden @ mlp["dense2"]["kernel"] + mlp["dense2"]["bias"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)

    gradient = traverse_util.flatten_dict(gradient, sep="/")
    largest = {path: float(np.abs(g).max()) for path, g in gradient.items()}
    # Softmax does not see the bias of the keys.
    assert largest.pop("attention/key/bias") < 1e-4
    assert all(math.isfinite(g) and g > 1e-3 for g in largest.values()), largest


def _gelu_tanh(x: Any) -> Any:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _gelu_exact(x: Any) -> Any:
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize(("kind", "gelu"), [("tanh", _gelu_tanh), ("exact", _gelu_exact)])
def test_kinds_of_gelu(kind: str, gelu: Any) -> None:
    x = np.linspace(-4, 4, 81)
    mlp = Mlp(_config(gelu=kind), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(mlp.gelu(jnp.asarray(x)), gelu(x), rtol=1e-5, atol=1e-6)
    assert np.abs(_gelu_tanh(x) - _gelu_exact(x)).max() > 1e-4


@pytest.mark.parametrize("pooling", ["token", "attention"])
def test_bfloat16_activations(pooling: str) -> None:
    options = {"pooling": pooling, "representation_size": 16, "registers": 1}
    config = _config(dtype="bfloat16", **options)
    assert {p.dtype for p in jax.tree.leaves(abstract_params(config))} == {jnp.dtype("float32")}
    logits, exact = _logits(config), _logits(_config(**options))
    assert logits.dtype == exact.dtype == jnp.float32
    assert 0 < np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()


def test_activations_are_bfloat16_from_the_first_token_to_the_features() -> None:
    config = _config(dtype="bfloat16", positions="sincos2d", registers=1)
    seen = Seen()
    model = _module(config, _redrawn(abstract_params(config)))
    features = jax.eval_shape(lambda x: _features(model, x, placement=seen), _images(config))
    assert features.dtype == jnp.bfloat16
    # The tokens at the stem, and those after the (scanned) block.
    assert set(seen.activations) == {((2, 6, 16), jnp.dtype("bfloat16"))}
    assert len(seen.activations) >= 2


# Dropout and stochastic depth


def test_no_key_is_no_randomness() -> None:
    random = _logits(_config(dropout=0.5, stochastic_depth=0.5))
    np.testing.assert_allclose(random, _logits(_config()), rtol=1e-5, atol=1e-6)


def test_a_key_decides_scanned_and_unrolled_alike() -> None:
    options = {"dropout": 0.3, "stochastic_depth": 0.3}
    scanned, unrolled = (
        _logits(_config(**options, scan=scan), key=jax.random.key(3)) for scan in (True, False)
    )
    np.testing.assert_allclose(unrolled, scanned, rtol=1e-4, atol=1e-5)
    other = _logits(_config(**options), key=jax.random.key(4))
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
    config = _config(depth=DEPTH, **options)
    params = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), abstract_params(config))
    ones = jnp.eye(2 * DEPTH, 16)
    params["blocks"]["attention"]["out"]["bias"] = ones[::2]
    params["blocks"]["mlp"]["dense2"]["bias"] = ones[1::2]
    model = _module(config, params)
    run = jax.jit(lambda x, key: _encode(model, x, key))
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
    config = _config(image_size=64, dropout=0.25, depth=1)
    params = jax.tree.map(lambda p: jnp.ones(p.shape, p.dtype), abstract_params(config))
    images = jnp.zeros((20, 64, 64, 3))
    # Patch tokens are the bias and the position, 1 + 1; the class token and its position too.
    embedded = np.asarray(_tokens(_module(config, params), images, jax.random.key(0)))
    assert set(np.unique(embedded.round(4))) == {np.float32(0), np.float32(2.6667)}
    assert embedded.mean() == pytest.approx(2, rel=0.02)

    mlp = Mlp(config, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(mlp)
    state = jax.tree.map(jnp.zeros_like, nnx.to_pure_dict(state))
    # All 32 hidden units are gelu(3) and are summed in each output.
    state["dense1"]["bias"] += 3.0
    state["dense2"]["kernel"] += 1.0
    out = np.asarray(nnx.merge(graphdef, state)(jnp.zeros((4000, 16)), jax.random.key(0)))
    hidden_units = out / (_gelu_tanh(3.0) / 0.75 / 0.75)
    np.testing.assert_allclose(hidden_units, hidden_units.round(), atol=1e-3)
    assert out.mean() == pytest.approx(32 * _gelu_tanh(3.0), rel=0.02)
    assert (out > 0).mean() == pytest.approx(0.75, abs=0.02)
    kept = np.where(out > 0, hidden_units, 0).max(axis=1)
    assert kept.mean() == pytest.approx(24, abs=0.2)


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
