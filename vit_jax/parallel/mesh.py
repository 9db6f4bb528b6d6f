"""The device mesh."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from vit_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")


@dataclass(frozen=True)
class MeshConfig:
    """Lengths of the mesh axes. Their product is the number of devices.

    One of them may be -1: it takes the remaining devices.
    """

    data: int = -1
    """Devices that split the batch alone."""
    fsdp: int = 1
    """Devices that split the batch, and the parameters and optimizer state with it."""
    tensor: int = 1
    """Devices that split attention heads, hidden units and classes."""
    num_slices: int = 1
    """Number of TPU slices, or on GPUs of processes, joined by a slower network. Only `data`
    crosses it. 1: a single slice or host."""
    sequence: bool = False
    """Whether tokens between blocks are split over `tensor` too, which needs less memory."""

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
            raise UserError(
                f"data={self.data}, fsdp={self.fsdp}, tensor={self.tensor}: each must be at "
                "least 1; one of them may be -1 to take the remaining devices"
            )
        if self.num_slices < 1:
            raise UserError(f"num_slices must be at least 1, not {self.num_slices}")
        if self.sequence and self.tensor == 1:
            raise UserError(
                "sequence=true would be ignored with tensor=1; set tensor to 2 or more, or leave "
                "sequence out"
            )


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Makes the mesh with axes `data`, `fsdp` and `tensor` over all devices of all processes.

    Args:
      devices: None takes all devices at hand.

    Raises:
      UserError: the product of the lengths is not the number of devices, or the number of slices
        is another.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    if -1 in sizes:
        fixed = math.prod(size for size in sizes if size > 0)
        sizes[sizes.index(-1)] = len(devices) // fixed
    if math.prod(sizes) != len(devices):
        raise UserError(
            f"config.mesh: data={config.data}, fsdp={config.fsdp}, tensor={config.tensor} does "
            f"not divide the {len(devices)} devices at hand"
        )
    _check_slices(config.num_slices, sizes[0], devices)
    # Two mesh axes may share an axis of chips. jax.make_mesh allows this only on v5e.
    if config.num_slices == 1:
        array = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    else:
        data, *others = sizes
        array = mesh_utils.create_hybrid_device_mesh(
            (data // config.num_slices, *others),
            (config.num_slices, 1, 1),
            devices,
            process_is_granule=_slice_numbers(devices) is None,
            allow_split_physical_axes=True,
        )
    return Mesh(array, AXES, axis_types=(AxisType.Auto,) * 3)


def _slice_numbers(devices: Sequence[Any]) -> list[int] | None:
    """The slice of each device; None for devices that have no slices."""
    if devices[0].platform != "tpu" or getattr(devices[0], "slice_index", None) is None:
        return None
    return [device.slice_index for device in devices]


def _check_slices(num_slices: int, data: int, devices: Sequence[Any]) -> None:
    numbers = _slice_numbers(devices)
    if numbers is None:
        found, unit = len({device.process_index for device in devices}), "processes"
    else:
        found, unit = len(np.unique(numbers)), "slices"
    if num_slices != found and (num_slices > 1 or unit == "slices"):
        problem = f"config.mesh.num_slices: {num_slices}, but the {len(devices)} devices are in"
        if jax.process_count() == 1 and found == 1:
            raise UserError(
                f"{problem} this one process; start it on all hosts with --distributed, or set "
                "num_slices to 1"
            )
        raise UserError(f"{problem} {found} {unit}; set it to {found}")
    if data % num_slices:
        raise UserError(
            f"config.mesh.data: {data} is not a multiple of num_slices={num_slices}; between "
            "slices only the batch is split; choose a multiple"
        )
