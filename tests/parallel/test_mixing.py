"""Mixup and CutMix are the same on eight simulated devices, in eight parts, as on one in one."""

import re

import jax
import numpy as np

from tests.eight_devices import EightDevices
from tests.programs.mixed_steps import mixed_steps
from vit_jax.parallel.mesh import MeshConfig


def test_steps_are_the_same_on_eight_devices_and_in_eight_parts(
    eight_devices: EightDevices,
) -> None:
    expected = eight_devices.run(mixed_steps, MeshConfig(), devices=1, micro_batches=1)
    for mesh, parts in ((MeshConfig(), 1), (MeshConfig(data=2, fsdp=4), 8)):
        found = eight_devices.run(mixed_steps, mesh, devices=8, micro_batches=parts)
        np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found.params, expected.params
        )
        # One row of the images moves from each device to the next, and in bytes.
        sent = r"(\w+)\[(\d+),16,16,3\]\S* (?:all|collective|reduce)-"
        assert re.findall(sent, found.program) == [("u8", "1")]
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected.start, expected.params)
    assert np.median(jax.tree.leaves(moved)) > 1e-3, moved
    assert len({float(loss) for loss in expected.losses}) == 4
