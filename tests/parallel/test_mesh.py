import re
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from vit_jax.errors import UserError
from vit_jax.parallel.mesh import MeshConfig, make_mesh


class _Device(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]


def _devices(count: Any, slices: int = 1, platform: str = "cpu") -> Any:
    """Devices in slices of equal size: of TPUs, which know their slice, or a process's each."""
    devices = []
    for i in range(count):
        device = _Device(id=i, platform=platform, device_kind="", process_index=i * slices // count)
        if platform == "tpu":
            device.process_index, device.slice_index = i, device.process_index
        devices.append(device)
    return devices


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (1, {}, (1, 1, 1)),
        (8, {}, (8, 1, 1)),
        (8, {"fsdp": 2}, (4, 2, 1)),
        (8, {"fsdp": 2, "tensor": 4}, (1, 2, 4)),
        (8, {"data": 1, "fsdp": -1}, (1, 8, 1)),
        (8, {"data": 2, "fsdp": -1, "tensor": 2}, (2, 2, 2)),
        (8, {"data": 2, "fsdp": 1, "tensor": -1}, (2, 1, 4)),
        (256, {"data": 8, "fsdp": 32}, (8, 32, 1)),
        (6, {"tensor": 3}, (2, 1, 3)),
    ],
)
def test_sizes(count: int, sizes: dict[str, Any], expected: tuple[int, ...]) -> None:
    mesh = make_mesh(MeshConfig(**sizes), _devices(count))
    assert mesh.shape == dict(zip(("data", "fsdp", "tensor"), expected, strict=True))
    assert [device.id for device in mesh.devices.flat] == list(range(count))


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (8, {"data": 4}),
        (8, {"data": 16}),
        (8, {"fsdp": 3}),
        (8, {"fsdp": 16}),
        (8, {"data": 3, "fsdp": -1}),
        (1, {"tensor": 2}),
    ],
)
def test_sizes_that_do_not_fit_the_devices(count: int, sizes: dict[str, Any]) -> None:
    named = {"data": -1, "fsdp": 1, "tensor": 1} | sizes
    told = ", ".join(f"{name}={size}" for name, size in named.items())
    with pytest.raises(UserError, match=f"^config.mesh: {re.escape(told)} .*the {count} devices"):
        make_mesh(MeshConfig(**sizes), _devices(count))


@pytest.mark.parametrize("platform", ["gpu", "cpu"])
def test_only_the_batch_is_split_between_slices(platform: str) -> None:
    config = MeshConfig(data=4, fsdp=2, num_slices=2)
    mesh = make_mesh(config, _devices(8, slices=2, platform=platform))
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "tensor": 1}
    slices = np.vectorize(lambda device: device.id // 4)(mesh.devices)
    # The first half of the batch is in the first slice, and parameters are whole in each.
    assert (slices[:2] == 0).all() and (slices[2:] == 1).all()


@pytest.mark.parametrize(
    ("sizes", "slices", "platform", "told"),
    [
        ({"num_slices": 2}, 4, "tpu", "num_slices: 2, but the 8 devices are in 4 slices"),
        ({}, 4, "tpu", "num_slices: 1, but the 8 devices are in 4 slices; set it to 4"),
        (
            *({"num_slices": 2}, 1, "gpu"),
            "num_slices: 2, but the 8 devices are in this one process; start it on all hosts with "
            "--distributed, or set num_slices to 1",
        ),
        ({"num_slices": 2}, 1, "tpu", "num_slices: 2, but .* this one process; .* --distributed"),
        ({"num_slices": 2}, 4, "gpu", "num_slices: 2, .* in 4 processes; set it to 4"),
        ({"num_slices": 2, "fsdp": 8}, 2, "tpu", "data: 1 is not a multiple of num_slices=2"),
    ],
)
def test_slices_that_are_not_there(sizes: Any, slices: Any, platform: Any, told: Any) -> None:
    with pytest.raises(UserError, match=f"^config.mesh.{told}"):
        make_mesh(MeshConfig(**sizes), _devices(8, slices, platform))


def test_sequences_are_split_over_tensor_only() -> None:
    with pytest.raises(UserError, match="sequence=true would be ignored with tensor=1"):
        MeshConfig(sequence=True)


@pytest.mark.parametrize(
    "sizes", [{"data": 0}, {"fsdp": -2}, {"tensor": 0}, {"data": -1, "tensor": -1}, {"fsdp": -1}]
)
def test_sizes_that_mean_nothing(sizes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="each must be at least 1; one of them may be -1"):
        MeshConfig(**sizes)


def test_it_spans_all_devices() -> None:
    mesh = make_mesh(MeshConfig())
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert list(mesh.devices.flat) == jax.devices()
    assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1, "tensor": 1}
