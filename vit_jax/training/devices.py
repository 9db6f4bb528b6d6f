"""Checks that a config fits the devices that it runs on."""

import dataclasses
from typing import Any

from jax.sharding import AbstractMesh, Mesh

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig, family_of
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params
from vit_jax.parallel.mesh import AXES
from vit_jax.parallel.sharding import BATCH_AXES, share_split
from vit_jax.training.config import TrainConfig

# Share of the elements in large arrays that `fsdp` must split, or it would save too little memory.
_ENOUGH_SPLIT = 0.9

# Fused attention and the platform of each implementation.
KERNELS = {"cudnn": "gpu", "pallas": "tpu"}


def check_devices(config: TrainConfig, mesh: Mesh) -> None:
    """Checks that the mesh can split the batch and the model, and that its devices run the model.

    Raises:
      UserError: it cannot.
    """
    _check_batch(config, mesh)
    _check_attention(config.model, mesh.devices.flat[0])
    _check_tensor(config.model, mesh.shape["tensor"])
    _check_fsdp(config.model, mesh, config.mesh.num_slices)


def _check_batch(config: TrainConfig, mesh: Mesh) -> None:
    parts = [mesh.shape[axis] for axis in BATCH_AXES]
    devices, micro_batches = parts[0] * parts[1], config.optimizer.micro_batches
    batch_size, unit = config.data.batch_size, devices * micro_batches
    if batch_size % unit == 0:
        return
    rows = batch_size // micro_batches
    # The next smaller and the next larger one. The batch of a run that resumes must stay.
    numbers = [next(n for n in range(devices, 0, -1) if rows % n == 0)]
    numbers += [n for n in range(devices, rows + 1) if rows % n == 0][:1]
    sizes = [size for size in (batch_size // unit * unit, -(-batch_size // unit) * unit) if size]
    raise UserError(
        f"config.data.batch_size: {batch_size} is not a multiple of {unit}, which is {devices} "
        f"devices (of {mesh.size}) that split the batch, times {micro_batches} "
        f"micro-batches; {' or '.join(map(str, numbers))} devices can split it, and a new run may "
        f"take {' or '.join(map(str, sizes))}"
    )


def _check_attention(model: ModelConfig, device: Any) -> None:
    if "attention" not in family_of(model).keys:
        return
    platform = device.platform
    needed = KERNELS.get(model.attention, platform)
    if needed != platform:
        raise UserError(
            f"config.model.attention: {model.attention!r} is a kernel for {needed.upper()}s, but "
            f"the devices are {platform.upper()}s; use 'xla'"
        )
    if model.attention == "cudnn":
        _check_cudnn(model, device)


def _check_cudnn(model: ModelConfig, device: Any) -> None:
    """JAX checks the same when it calls the kernel, too late for an error of one line."""
    try:
        capability = tuple(map(int, device.compute_capability.split(".")))
    except (AttributeError, ValueError):  # AMD's GPUs have a name here, such as gfx90a.
        capability = (0, 0)
    if capability < (8, 0):
        raise UserError(
            "config.model.attention: 'cudnn' is a kernel for NVIDIA GPUs from the A100 on (compute "
            f"capability 8.0), and the devices are {device.device_kind}s; use 'xla'"
        )
    size = model.size.width // model.size.num_heads
    largest = 256 if capability >= (9, 0) else 128
    if size % 8 or size > largest:
        raise UserError(
            f"config.model.attention: 'cudnn' needs a head size that is a multiple of 8 and at "
            f"most {largest} on {device.device_kind}s, but {model.name} has {size}; use 'xla'"
        )


def _check_tensor(model: ModelConfig, tensor: int) -> None:
    if tensor == 1:
        return
    split = [key for key in ("num_heads", "mlp_dim", "token_mlp_dim") if key in model.shape]
    if not split:
        raise UserError(
            f"config.mesh.tensor: {tensor} would be ignored: it splits only the head of "
            f"{model.name}; use data or fsdp"
        )
    for key in split:
        number = model.shape[key]
        if number % tensor:
            what = "heads" if key == "num_heads" else f"hidden units ({key})"
            raise UserError(
                f"config.mesh.tensor: {tensor} does not divide the {number} {what} of {model.name}"
            )


def _check_fsdp(model: ModelConfig, mesh: Mesh, num_slices: int) -> None:
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]
    if fsdp == 1:
        return
    # Without a head while its number of classes is open.
    model = dataclasses.replace(model, num_classes=model.num_classes or 0)
    params, table = abstract_params(model), parameter_table(model)

    def share(fsdp: int) -> float:
        return share_split(params, table, AbstractMesh((1, fsdp, tensor), AXES), "fsdp")

    if share(fsdp) >= _ENOUGH_SPLIT:
        return
    left = mesh.shape["data"] * fsdp // num_slices
    fitting = [n for n in range(2, left + 1) if left % n == 0 and share(n) >= _ENOUGH_SPLIT]
    raise UserError(
        f"config.mesh.fsdp: {fsdp} divides no axis of arrays that hold {1 - share(fsdp):.0%} of "
        f"{model.name}'s parameters, so every device would hold them whole; use "
        f"{' or '.join(map(str, fitting or [1]))}"
    )
