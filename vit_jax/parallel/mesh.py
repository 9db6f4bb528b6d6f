"""The device mesh."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.sharding import AxisType, Mesh

from vit_jax.errors import UserError


@dataclass(frozen=True)
class MeshConfig:
    """How many ways each axis splits; their product is the number of devices.

    `data` splits the batch. `fsdp` splits the batch, and the parameters with it. `tensor` splits
    heads and hidden units. One of them may be -1, which takes the devices that are left.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
            raise UserError(
                f"data={self.data}, fsdp={self.fsdp}, tensor={self.tensor}: each must be at "
                "least 1, or -1 for one of them to take the devices that are left"
            )


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of axes `data`, `fsdp`, `tensor` over all devices of all processes.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
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
    return jax.make_mesh(
        tuple(sizes), ("data", "fsdp", "tensor"), (AxisType.Auto,) * 3, devices=devices
    )
