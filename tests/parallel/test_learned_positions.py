"""The positions of Table 8 take two steps on a mesh of eight simulated devices, as on one."""

import jax
import numpy as np
import pytest

from tests.eight_devices import EightDevices
from tests.programs.two_steps import one_device, two_steps
from vit_jax.models.config import ModelConfig
from vit_jax.parallel.mesh import MeshConfig

OTHERS = (
    *("none", "learned", "learned_layers", "learned_shared"),
    *("learned2d", "learned2d_layers", "learned2d_shared"),
)


@pytest.mark.parametrize(
    "positions",
    ["relative", *(pytest.param(other, marks=pytest.mark.slow) for other in OTHERS)],
)
def test_loss_and_gradients_are_the_same_on_eight_devices(
    positions: str, eight_devices: EightDevices
) -> None:
    # `two_steps` draws a class token of equal values. Without a position its norm would have a
    # variance of 0, and blow up what rounds differently.
    size = {"pooling": "gap", "depth": 2, "width": 64, "mlp_dim": 64, "num_heads": 8}
    model = ModelConfig(
        "ViT-Ti/4", image_size=16, num_classes=10, positions=positions, **size
    ).completed()
    expected = eight_devices.run(one_device, model)
    mesh = MeshConfig(data=2, fsdp=2, tensor=2, sequence=True)
    found = eight_devices.run(two_steps, model, mesh, 8)
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected.grads))
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest),
        found.grads,
        expected.grads,
    )
