import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest

from vit_jax.analysis.activations import block_bytes
from vit_jax.models import ModelConfig
from vit_jax.models.functional import abstract_params, apply_model


@pytest.mark.parametrize("name", ["ViT-B/16", "ViT-L/32", "R50+ViT-B/16"])
def test_an_encoder_block_as_published(name: str) -> None:
    # Korthikanti et al., arXiv 2205.05198, eq. 1: s h (34 + 5 a s / h) bytes in 16 bits; without
    # the masks of dropout, and what attention's keeps, s h (32 + 2 a s / h). The outputs of two
    # norms and of the GELU, 12 s h, are computed anew; so are attention's weights, 2 a s^2, from
    # two numbers a row.
    config = ModelConfig(name, dtype="bfloat16")
    tokens, (_, width, _, heads) = config.sequence_length, config.size
    expected = tokens * width * (32 - 12) + 2 * heads * tokens * 2
    assert block_bytes(config)["blocks"] == expected
    assert block_bytes(dataclasses.replace(config, dtype="float32"))["blocks"] == 2 * expected


def test_a_block_that_is_computed_anew_keeps_its_input() -> None:
    for name in ("ViT-B/16", "Mixer-B/16"):
        config = ModelConfig(name, remat="block")
        assert block_bytes(config) == {"blocks": config.sequence_length * 768 * 4}
        dots = block_bytes(dataclasses.replace(config, remat="dots"))["blocks"]
        whole = block_bytes(dataclasses.replace(config, remat="none"))["blocks"]
        assert block_bytes(config)["blocks"] < dots <= whole
    kept = block_bytes(ModelConfig("R50x1", remat="block", dtype="bfloat16"))
    assert kept["backbone/stage4"] == max(14 * 14 * 1024, 7 * 7 * 2048) * 2
    assert kept["backbone/stage1"] == 56 * 56 * 256 * 2


def _kept(config: Any, batch: Any) -> Any:
    """Bytes that JAX hands from the forward to the backward pass."""
    params = abstract_params(config)
    images = jax.ShapeDtypeStruct((batch, *config.input_size, 3), np.float32)

    def backward(params: Any, images: np.ndarray) -> Any:
        return jax.vjp(lambda p: apply_model(config)(p, images), params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(backward, params, images))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


@pytest.mark.parametrize(
    ("name", "remat", "fewer", "more"),
    [
        ("ViT-S/16", "block", {"depth": 1}, {"depth": 2}),
        ("ViT-S/16", "dots", {"depth": 1}, {"depth": 2}),
        ("Mixer-S/16", "block", {"depth": 1}, {"depth": 2}),
        ("Mixer-S/16", "dots", {"depth": 1}, {"depth": 2}),
        ("AxialViT-S/16", "block", {"depth": 1}, {"depth": 2}),
        ("AxialViT-S/16", "dots", {"depth": 1}, {"depth": 2}),
        ("R50x1", "block", {"stages": (1,)}, {"stages": (2,)}),
        ("BiT-R50x1", "block", {"stages": (1,)}, {"stages": (2,)}),
    ],
)
def test_what_jax_keeps_of_one_more_block(name: Any, remat: Any, fewer: Any, more: Any) -> None:
    configs = [
        ModelConfig(name, image_size=64, num_classes=1, remat=remat, **size)
        for size in (fewer, more)
    ]
    one, two = (_kept(config, batch=3) - _kept(config, batch=1) for config in configs)
    (expected,) = block_bytes(configs[1]).values()
    assert two - one == 2 * expected


@pytest.mark.parametrize("name", ["ViT-S/16", "Mixer-S/16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_rematerialisation_sums_and_maxima_are_kept_too(name: str, dtype: Any) -> None:
    configs = [
        ModelConfig(name, image_size=64, num_classes=1, depth=depth, dtype=dtype)
        for depth in (1, 2)
    ]
    one, two = (_kept(config, batch=3) - _kept(config, batch=1) for config in configs)
    (expected,) = block_bytes(configs[1]).values()
    # Mean and mean square of each token, in float32, for two norms, and whether the variance that
    # follows is above 0, or is 0.
    sums = 2 * (2 * 4 + 2) * configs[0].sequence_length
    if name.startswith("ViT") and dtype == "bfloat16":
        # The sum of weights is float32 too.
        sums += 6 * configs[0].sequence_length * 2
    assert two - one == 2 * (expected + sums)
