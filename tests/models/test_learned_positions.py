"""The positions of Table 8 against sums and loops written out."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.models.vit_parts import logits_of, module_of, random_images, redrawn
from tests.small_models import refusal, small_vit
from vit_jax.analysis.macs import count_macs, count_params
from vit_jax.models import ModelConfig
from vit_jax.models.attention import Attention
from vit_jax.models.blocks import run
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params, apply_model
from vit_jax.models.placement import OneDevice
from vit_jax.models.positions import scheme
from vit_jax.training.rates import rate_factors

# Two rows of three patches.
GRID = {"image_size": (16, 24)}
IN_LAYERS = ("learned_layers", "learned_shared", "learned2d_layers", "learned2d_shared")


@pytest.mark.parametrize("pooling", ["token", "gap"])
def test_relative_scores_are_those_of_a_loop(pooling: Any) -> None:
    config = small_vit(positions="relative", pooling=pooling, registers=1, **GRID)
    first, patches, heads, size = int(pooling == "token"), 6, 2, 8
    total = first + patches + 1
    table = np.random.default_rng(0).normal(size=(2 * patches - 1, size)).astype(np.float32)
    pairs = scheme(config).pairs({"offset_embedding": jnp.asarray(table)}, config)
    assert pairs is not None and pairs.shape == (total, total, size)
    attention = Attention(config, "xla", rngs=nnx.Rngs(0))
    tokens = np.random.default_rng(1).normal(size=(2, total, 16)).astype(np.float32)
    query, key, value = (
        np.asarray(part(tokens)) for part in (attention.query, attention.key, attention.value)
    )
    scores = np.zeros((2, heads, total, total))
    for i in range(total):
        for j in range(total):
            scores[:, :, i, j] = (query[:, i] * key[:, j]).sum(-1)
            if first <= i < first + patches and first <= j < first + patches:
                # The first row is the offset of the first patch from the last.
                scores[:, :, i, j] += query[:, i] @ table[(i - j) + patches - 1]
    weights = np.exp(scores / math.sqrt(size))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhij,bjhd->bihd", weights, value)
    expected = np.asarray(attention.out(mixed.astype(np.float32)))
    captured, found = attention.with_weights(tokens, tokens, pairs)
    np.testing.assert_allclose(found, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(captured, expected, rtol=1e-4, atol=1e-5)
    plain = attention(tokens, tokens, OneDevice(), pairs)
    np.testing.assert_allclose(plain, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(attention(tokens, tokens, OneDevice())) - expected).max() > 1e-2


def _by_hand(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """[patches, width]: half of the channels tell the row, half the column."""
    return np.stack([np.concatenate([row, column]) for row in rows for column in columns])


def test_two_tables_at_the_stem() -> None:
    config = small_vit(positions="learned2d", **GRID)
    params = redrawn(abstract_params(config))
    assert params["row_embedding"].shape == (2, 8)
    assert params["column_embedding"].shape == (3, 8)
    model = module_of(config, params)
    patches = model.patches(random_images(config))
    tokens = model.tokens(patches)
    np.testing.assert_array_equal(tokens[0, 0], params["cls"][0, 0])
    sums = patches + _by_hand(params["row_embedding"], params["column_embedding"])
    np.testing.assert_allclose(tokens[:, 1:], sums, rtol=1e-6)


@pytest.mark.parametrize("pooling", ["token", "gap"])
@pytest.mark.parametrize("positions", IN_LAYERS)
def test_tables_before_every_block(positions: str, pooling: Any) -> None:
    options = {"pooling": pooling, "registers": 1, **GRID}
    config, bare = small_vit(positions=positions, **options), small_vit(positions="none", **options)
    params, first = redrawn(abstract_params(config)), int(pooling == "token")
    model = module_of(config, params)
    images = random_images(config)
    tokens = model.tokens(model.patches(images))
    # Nothing is added at the stem.
    plain = module_of(bare, _without_positions(params))
    np.testing.assert_array_equal(tokens, plain.tokens(plain.patches(images)))
    found, _ = model.encode(tokens)
    graphdef, stacked = nnx.split(plain.blocks)
    for layer in range(2):
        tables = params if positions.endswith("shared") else params["blocks"]
        prefix = "shared_" if positions.endswith("shared") else ""
        own = {
            name: tables[f"{prefix}{name}"] if prefix else tables[name][layer]
            for name in ("pos_embedding", "row_embedding", "column_embedding")
            if f"{prefix}{name}" in tables
        }
        added = np.zeros((tokens.shape[1], 16), np.float32)
        if "2d" in positions:
            added[first : first + 6] = _by_hand(own["row_embedding"], own["column_embedding"])
        else:
            added[: first + 6] = own["pos_embedding"][0]
        block = nnx.merge(graphdef, jax.tree.map(lambda x, i=layer: x[i : i + 1], stacked))
        tokens, _ = run(block, tokens + added, bare, None, OneDevice(), ())
    np.testing.assert_allclose(found, tokens, rtol=1e-4, atol=1e-5)


def _without_positions(params: Any) -> Any:
    def kept(tree: Any) -> Any:
        return {name: leaf for name, leaf in tree.items() if not name.endswith("_embedding")}

    return kept(params) | {"blocks": kept(params["blocks"])}


@pytest.mark.parametrize("positions", [*IN_LAYERS, "learned2d", "relative"])
def test_forms_of_the_program_agree(positions: str) -> None:
    """Scanned, unrolled, rematerialised, and in bfloat16."""
    exact = logits_of(small_vit(positions=positions))
    for options in ({"scan": False}, {"remat": "block"}, {"dtype": "bfloat16"}):
        logits = logits_of(small_vit(positions=positions, **options))
        loose = 0.05 if "dtype" in options else 1e-5
        np.testing.assert_allclose(logits, exact, atol=loose * np.abs(exact).max())


TOKENS, PATCHES, WIDTH, DEPTH, HEAD = 197, 196, 192, 12, 64


@pytest.mark.parametrize(
    ("positions", "count"),
    [
        ("learned", TOKENS * WIDTH),
        ("learned_shared", TOKENS * WIDTH),
        ("learned_layers", DEPTH * TOKENS * WIDTH),
        ("learned2d", (14 + 14) * WIDTH // 2),
        ("learned2d_shared", (14 + 14) * WIDTH // 2),
        ("learned2d_layers", DEPTH * (14 + 14) * WIDTH // 2),
        ("relative", DEPTH * (2 * PATCHES - 1) * HEAD),
    ],
)
def test_counts_and_roles(positions: str, count: int) -> None:
    config = ModelConfig("ViT-Ti/16", num_classes=10, positions=positions)
    bare = ModelConfig("ViT-Ti/16", num_classes=10, positions="none")
    params, table = abstract_params(config), parameter_table(config)
    assert sum(count_params(config).values()) - sum(count_params(bare).values()) == count
    own = table.keys() - parameter_table(bare).keys()
    # Embeddings: `decay_mask=kernels` leaves them out.
    assert own and {table[path].role for path in own} == {"embedding"}
    # The query times an embedding for each pair of tokens, in all heads.
    extra = sum(count_macs(config).values()) - sum(count_macs(bare).values())
    assert extra == (DEPTH * TOKENS**2 * WIDTH if positions == "relative" else 0)
    if any(path.startswith("blocks/") for path in own):
        pattern = rf"blocks/[0-5]/({'|'.join(path.removeprefix('blocks/') for path in own)})"
        factors = rate_factors(params, table, freeze=(pattern,), rates=(), layer_decay=0.5)
        found = factors["blocks"][min(own).removeprefix("blocks/")].ravel()
        np.testing.assert_array_equal(found, [0] * 6 + [0.5**n for n in range(6, 0, -1)])


def test_multiply_adds_of_relative_positions_agree_with_xla() -> None:
    config = ModelConfig("ViT-Ti/8", image_size=64, num_classes=10, depth=2, scan=False)
    for positions in ("learned", "relative"):
        model = ModelConfig(**{**vars(config), "positions": positions})
        images = jax.ShapeDtypeStruct((256, 64, 64, 3), jnp.float32)
        lowered = jax.jit(apply_model(model)).lower(abstract_params(model), images)
        flops = 2 * 256 * sum(count_macs(model).values())
        assert lowered.cost_analysis()["flops"] == pytest.approx(flops, rel=0.04), positions


def test_hybrids_have_them() -> None:
    for positions in ("learned2d_layers", "relative"):
        config = ModelConfig(
            *("R50+ViT-mu/8",),
            **{"image_size": 16, "num_classes": 5, "stages": (1, 1), "width_factor": 0.5},
            positions=positions,
            depth=1,
        )
        assert logits_of(config).shape == (2, 5)


def test_what_does_not_fit() -> None:
    message = refusal(small_vit, positions="relative", attention="pallas")
    assert "positions='relative'" in message and "use attention='xla'" in message
    assert "must be even, not 15" in refusal(
        small_vit, positions="learned2d_layers", width=15, num_heads=1
    )
    assert "did you mean 'learned2d'" in refusal(small_vit, positions="lerned2d")
