"""The axial ViT of appendix D.6, against full attention and against loops written out."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.models.dots import traced_products
from tests.models.vit_parts import gelu_tanh, layer_norm, logits_of, random_images, redrawn
from tests.small_models import refusal
from vit_jax import create_model
from vit_jax.analysis.macs import count_macs, count_params
from vit_jax.models.attention import Attention
from vit_jax.models.axial import ColumnAttention, RowAttention
from vit_jax.models.config import ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params, apply_model, bind_model
from vit_jax.models.placement import OneDevice
from vit_jax.training.rates import rate_factors


def _model(**options: Any) -> ModelConfig:
    """Two rows of three patches."""
    size = {"depth": 2, "width": 16, "mlp_dim": 32, "num_heads": 2}
    common = {"name": "AxialViT-B/8", "image_size": (16, 24), "num_classes": 5}
    return ModelConfig(**common | size | options).completed()


@pytest.mark.parametrize(
    ("along", "image_size"), [(RowAttention, (8, 48)), (ColumnAttention, (48, 8))]
)
def test_over_one_row_or_column_it_is_full_attention(along: Any, image_size: Any) -> None:
    config = _model(image_size=image_size)
    full, axial = (kind(config, "xla", rngs=nnx.Rngs(0)) for kind in (Attention, along))
    tokens = np.random.default_rng(0).normal(size=(2, 6, 16)).astype(np.float32)
    expected = full(tokens, tokens, OneDevice())
    np.testing.assert_array_equal(axial(tokens, tokens, OneDevice()), expected)
    # Along the other axis a token sees itself alone.
    (other,) = {RowAttention, ColumnAttention} - {along}
    alone = other(config, "xla", rngs=nnx.Rngs(0))
    np.testing.assert_allclose(
        alone(tokens, tokens, OneDevice()), full.out(full.value(tokens)), atol=1e-6
    )


def _attention(x: np.ndarray, params: Any, lines: list[list[int]]) -> np.ndarray:
    """Each token of a line attends to the tokens of that line; heads one by one."""
    mixed = np.zeros_like(x)
    for line in lines:
        for i in line:
            for head in range(2):

                def part(name: str, token: int, head: int = head) -> np.ndarray:
                    own = params[name]
                    kernel, bias = own["kernel"][:, head], own["bias"][head]
                    return np.asarray(x[:, token] @ kernel + bias)

                scores = np.stack(
                    [(part("query", i) * part("key", j)).sum(-1) / math.sqrt(8) for j in line], 1
                )
                weights = np.exp(scores)
                weights /= weights.sum(1, keepdims=True)
                values = np.stack([part("value", j) for j in line], 1)
                mixed[:, i] += (weights[:, :, None] * values).sum(1) @ params["out"]["kernel"][head]
    return mixed + params["out"]["bias"]


def test_logits_are_those_of_a_loop() -> None:
    config = _model()
    params, images = redrawn(abstract_params(config)), random_images(config)
    bound = bind_model(config)(params)
    x = np.asarray(bound.tokens(bound.patches(images)))
    embedded = np.asarray(bound.patches(images)) + params["pos_embedding"]
    np.testing.assert_allclose(x, embedded, atol=1e-5)
    rows, columns = [[0, 1, 2], [3, 4, 5]], [[0, 3], [1, 4], [2, 5]]
    for layer in range(2):
        for kind, lines in (("rows", rows), ("columns", columns)):
            own = jax.tree.map(lambda leaf, i=layer: leaf[i], params["blocks"][kind])
            x = x + _attention(layer_norm(x, own["norm1"], 1e-6), own["attention"], lines)
            first, second = own["mlp"]["dense1"], own["mlp"]["dense2"]
            hidden = layer_norm(x, own["norm2"], 1e-6) @ first["kernel"] + first["bias"]
            x = x + gelu_tanh(hidden) @ second["kernel"] + second["bias"]
    features = layer_norm(x, params["norm"], 1e-6).mean(1)
    expected = features @ params["head"]["kernel"] + params["head"]["bias"]
    largest = np.abs(expected).max()
    np.testing.assert_allclose(logits_of(config, images), expected, atol=1e-4 * largest)


def test_forms_of_the_program_agree() -> None:
    """Scanned, unrolled, rematerialised, and in bfloat16."""
    exact = logits_of(_model())
    for options in ({"scan": False}, {"remat": "block"}, {"dtype": "bfloat16"}):
        loose = 0.05 if "dtype" in options else 1e-5
        np.testing.assert_allclose(
            logits_of(_model(**options)), exact, atol=loose * np.abs(exact).max()
        )


def test_one_key_draws_dropout_and_skips_of_both_halves() -> None:
    config = _model(dropout=0.5, stochastic_depth=0.5)
    run = jax.jit(apply_model(config))
    params, images = redrawn(abstract_params(config)), random_images(config)
    plain, one, same, other = (
        run(params, images, key=None if seed is None else jax.random.key(seed))
        for seed in (None, 1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-2 and np.abs(one - plain).max() > 1e-2


@pytest.mark.parametrize(("patch", "side"), [(16, 14), (32, 7)])
def test_counts_and_multiply_adds_in_closed_form(patch: int, side: int) -> None:
    config = ModelConfig(f"AxialViT-B/{patch}", num_classes=1000)
    width, hidden, tokens = 768, 3072, side**2
    half = 4 * width**2 + 2 * width * hidden
    counts, macs = count_params(config), count_macs(config)
    # Biases and norms: 4 D of attention, MLP + D of the MLP, and 4 D of two norms.
    assert counts["blocks"] == 12 * 2 * (half + 9 * width + hidden)
    assert counts["pos_embedding"] == tokens * width
    # 8 T D^2 + 2 T D (R + C) + 4 T D MLP.
    assert macs["blocks"] == 12 * (2 * tokens * half + 2 * tokens * width * (side + side))
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    traced = traced_products(apply_model(config), abstract_params(config), images)
    assert traced == macs["blocks"] + macs["head"]
    plain = ModelConfig(f"ViT-B/{patch}", num_classes=1000)
    # Twice the blocks, without a class token and its position.
    assert counts["blocks"] == 2 * count_params(plain)["blocks"]
    twice = 2 * count_params(plain)["blocks"] + sum(count_params(plain).values())
    assert sum(counts.values()) == twice - count_params(plain)["blocks"] - 2 * width
    assert sum(counts.values()) == {16: 171_620_584, 32: 173_277_160}[patch]
    if patch == 16:
        assert sum(macs.values()) / 1e9 == pytest.approx(33.51, abs=0.005)


def test_a_block_is_a_pair_for_rates_and_patterns() -> None:
    config = _model()
    params, table = abstract_params(config), parameter_table(config)
    freeze = ("blocks/0/rows/.*",)
    factors = rate_factors(params, table, freeze=freeze, rates=(), layer_decay=0.5)
    for half, expected in (("rows", [0, 0.5]), ("columns", [0.25, 0.5])):
        found = factors["blocks"][half]["mlp"]["dense1"]["kernel"].ravel()
        np.testing.assert_array_equal(found, expected)
    assert float(factors["pos_embedding"].ravel()[0]) == 0.125


def test_positions_before_every_pair_of_blocks() -> None:
    config = _model(positions="learned2d_shared")
    assert abstract_params(config)["shared_row_embedding"].shape == (2, 8)
    assert logits_of(config).shape == (2, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "relative"}, "positions='relative' acts within each block of a ViT"),
        ({"positions": "learned_layers"}, "use learned, learned2d"),
        ({"attention": "pallas"}, "one row or column at a time; use attention='xla'"),
        ({"attention": "cudnn", "dtype": "bfloat16"}, "use attention='xla'"),
        ({"pooling": "token"}, "pooling would be ignored: AxialViT-B/8 is an axial ViT"),
        ({"registers": 2}, "registers would be ignored"),
        ({"token_mlp_dim": 8}, "token_mlp_dim would be ignored"),
    ],
)
def test_what_does_not_fit(options: Any, message: str) -> None:
    assert message in refusal(_model, **options)


def test_attention_over_all_patches_is_no_part_of_it() -> None:
    model = create_model("AxialViT-mu/8", image_size=16, num_classes=3)
    assert "no 'attention'" in refusal(model, jnp.ones((1, 16, 16, 3)), capture=["attention"])
