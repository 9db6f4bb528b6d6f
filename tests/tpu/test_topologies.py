"""Meshes of TPUs that are not there."""

import importlib.util
import math
from collections.abc import Iterable
from typing import Any

import pytest

from tests.small_models import refusal
from vit_jax.errors import UserError
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.topologies import topology_devices

pytest.importorskip("libtpu")


def box(devices: Iterable[Any]) -> int:
    """Chips of the smallest box that holds the devices."""
    axes = zip(*(device.coords for device in devices), strict=True)
    return math.prod(max(axis) - min(axis) + 1 for axis in axes)


@pytest.mark.parametrize(
    ("name", "sizes", "num_slices"),
    [
        ("v5e:4x4", {"data": 2, "fsdp": 8}, 1),
        ("v6e:4x8", {"fsdp": 16}, 1),
        ("v6e:16x16", {"fsdp": 8}, 1),
        ("v4:4x4x4", {"fsdp": 8}, 1),
        ("v5p:4x4x4", {"fsdp": 8}, 1),
        ("v5p:4x4x4", {"fsdp": 16, "tensor": 2}, 1),
        ("v5e:4x4", {"fsdp": 16}, 2),
        ("v5e:4x4", {"fsdp": 8}, 2),
        ("v5e:16x16", {"fsdp": 64}, 2),
        ("v6e:4x4", {"fsdp": 2, "tensor": 2}, 2),
    ],
)
def test_axes_of_a_mesh_share_those_of_chips(
    name: str, sizes: dict[str, int], num_slices: int
) -> None:
    devices = topology_devices(name, num_slices)
    mesh = make_mesh(MeshConfig(**sizes, num_slices=num_slices), devices)
    inner = math.prod(size for axis, size in sizes.items() if axis != "data")
    assert mesh.shape == {"data": len(devices) // inner, "fsdp": 1, "tensor": 1} | sizes
    assert set(mesh.devices.flat) == set(devices)
    for numbers in mesh.devices.reshape(num_slices, -1):
        assert len({getattr(device, "slice_index", 0) for device in numbers}) == 1
    # What splits the parameters together lies together.
    for group in mesh.devices.reshape(-1, inner):
        assert box(group) == inner


def test_slices_are_all_used() -> None:
    devices = topology_devices("v5e:4x4", num_slices=2)
    with pytest.raises(UserError, match="num_slices: 1, but the 32 devices are in 2 slices"):
        make_mesh(MeshConfig(), devices)


@pytest.mark.parametrize(
    ("name", "chips"), [("v4:8x8x8", 512), ("v5e:1x1", 1), ("v6e:1x1", 1), ("v5e:2x2", 4)]
)
def test_a_chip_is_a_device(name: str, chips: int) -> None:
    devices = topology_devices(name)
    assert make_mesh(MeshConfig(), devices).size == len(devices) == chips


def test_a_topology_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    told = refusal(topology_devices, "v9:2x2")
    assert told.startswith("no TPU topology 'v9:2x2' to compile for (")
    assert told.endswith("; write one such as v5e:4x4")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refusal(topology_devices, "v9:2x2") == (
        "no TPU topology 'v9:2x2' to compile for: there is no TPU compiler; install it with the "
        "extra 'tpu'"
    )
