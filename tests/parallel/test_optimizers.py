"""Optimizers whose arrays have other axes than their parameters, on eight simulated devices."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.eight_devices import EightDevices
from tests.programs.optimizer_steps import LARGE, check_resume, take_steps
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.training.optimizer import OptimizerConfig

RATE: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.1, "clip_norm": 1.0}
ADAFACTOR = OptimizerConfig("adafactor", momentum_dtype="bfloat16", **RATE)
# Means over each axis of each array, kept in a list; moments as large as their parameters.
SM3 = OptimizerConfig("optax:sm3", **RATE)
LAMB = OptimizerConfig("optax:lamb", lr=1e-3)
BOTH = MeshConfig(1, fsdp=4, tensor=2)


@pytest.mark.parametrize(
    ("config", "mesh"),
    [
        pytest.param(ADAFACTOR, BOTH, id="adafactor-both"),
        pytest.param(ADAFACTOR, MeshConfig(1, 8), id="adafactor-fsdp", marks=pytest.mark.slow),
        pytest.param(ADAFACTOR, MeshConfig(4, 1, 2), id="adafactor-tensor", marks=pytest.mark.slow),
        pytest.param(SM3, BOTH, id="sm3", marks=pytest.mark.slow),
        pytest.param(LAMB, BOTH, id="lamb", marks=pytest.mark.slow),
    ],
)
def test_moments_are_split_and_steps_are_those_of_one_device(
    config: OptimizerConfig, mesh: MeshConfig, eight_devices: EightDevices
) -> None:
    alone = eight_devices.run(take_steps, config, MeshConfig(), 1)
    split = eight_devices.run(take_steps, config, mesh, 8)
    assert alone.losses[0] != alone.losses[1]
    np.testing.assert_allclose(split.losses, alone.losses, rtol=1e-5)
    for path, moment in alone.moments.items():
        if "key/bias" not in path:  # Its gradient is rounding noise.
            near = 1e-2 * np.abs(moment).max()
            np.testing.assert_allclose(split.moments[path], moment, atol=near, err_msg=path)
        if moment.size >= LARGE and mesh.fsdp > 1:
            assert split.parts[path] > 1, path


def test_rows_and_columns_lie_as_the_axes_that_they_keep(eight_devices: EightDevices) -> None:
    """Two blocks of width 64, with two heads of 32 and 256 hidden units."""
    steps = eight_devices.run(take_steps, ADAFACTOR, BOTH, 8)
    stacked = "inner_states/stacked_2/inner_state/0"
    found = {
        path.partition(f"{stacked}/")[2]: (steps.moments[path].shape, parts)
        for path, parts in steps.parts.items()
        if stacked in path and path.endswith("/kernel") and "/v_" in path
    }
    heads, width, size, hidden = 2, 64, 32, 256
    # Heads and hidden units by tensor, the longest other axis of what is large by fsdp.
    assert {k: v for k, v in found.items() if "query" in k or "out" in k or "mlp" in k} == {
        "v_row/blocks/attention/query/kernel": ((2, heads, size), 2),
        "v_col/blocks/attention/query/kernel": ((2, width, heads), 8),
        "v_row/blocks/attention/out/kernel": ((2, heads, size), 2),
        "v_col/blocks/attention/out/kernel": ((2, heads, width), 8),
        "v_row/blocks/mlp/dense1/kernel": ((2, width), 1),
        "v_col/blocks/mlp/dense1/kernel": ((2, hidden), 2),
        "v_row/blocks/mlp/dense2/kernel": ((2, width), 1),
        "v_col/blocks/mlp/dense2/kernel": ((2, hidden), 2),
    }


@pytest.mark.parametrize(
    "config",
    [pytest.param(ADAFACTOR, id="adafactor"), pytest.param(SM3, id="sm3", marks=pytest.mark.slow)],
)
def test_a_checkpoint_moves_between_meshes_and_goes_on_bit_for_bit(
    config: OptimizerConfig, tmp_path: Path, eight_devices: EightDevices
) -> None:
    eight_devices.run(check_resume, tmp_path, config)
