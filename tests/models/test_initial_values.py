"""Parameters as a new ViT draws them: constants, deviations and bounds."""

import functools
import math
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.small_models import small_vit
from vit_jax.models import ModelConfig
from vit_jax.models.functional import init_params


@functools.cache
def _initial() -> Any:
    config = small_vit(
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
