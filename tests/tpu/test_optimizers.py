"""The step of G/14 for TPUs that are not there: bytes of a device with Adam and with Adafactor."""

from typing import NamedTuple

import pytest

from vit_jax.analysis.macs import count_params
from vit_jax.experiments.synthetic import synthetic_program
from vit_jax.models.config import ModelConfig
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.parallel.topologies import topology_devices
from vit_jax.training.optimizer import OptimizerConfig

pytest.importorskip("libtpu")
GIB = 2**30
IMAGES = 64  # on each device


class Bound(NamedTuple):
    """What a device needs, as libtpu 0.0.42 tells it.

    Attributes:
      bytes_a_parameter: those of the parameter itself and of the optimizer's state.
      peak_gib: with gradients, activations and the batch.
    """

    topology: str
    devices: int
    optimizer: OptimizerConfig
    bytes_a_parameter: int
    peak_gib: float


ADAM = OptimizerConfig(lr=8e-4, warmup_steps=10, weight_decay=0.03, clip_norm=1.0)
ADAFACTOR = OptimizerConfig(
    "adafactor",
    lr=8e-4,
    warmup_steps=10,
    weight_decay=0.03,
    clip_norm=1.0,
    momentum_dtype="bfloat16",
)
BOUNDS = {
    "adam-4": Bound("v5p:2x2x1", 4, ADAM, 12, 12.4),
    "adafactor-4": Bound("v5p:2x2x1", 4, ADAFACTOR, 6, 9.7),
    "adam-64": Bound("v5p:4x4x4", 64, ADAM, 12, 4.8),
    "adafactor-64": Bound("v5p:4x4x4", 64, ADAFACTOR, 6, 4.6),
}


@pytest.mark.pods
@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS.keys())
def test_bytes_of_a_device(bound: Bound) -> None:
    program = synthetic_program(
        "ViT-G/14",
        IMAGES * bound.devices,
        MeshConfig(fsdp=bound.devices),
        topology_devices(bound.topology),
        bound.optimizer,
        dtype="bfloat16",
        remat="block",
    ).compile()
    memory = program.memory_analysis()
    assert memory is not None
    print(bound, memory.argument_size_in_bytes / GIB, memory.peak_memory_in_bytes / GIB)
    parameters = sum(count_params(ModelConfig("ViT-G/14", num_classes=1000)).values())
    state = bound.bytes_a_parameter * parameters / bound.devices
    batch = IMAGES * 224 * 224 * 3
    # More are what is whole on each device, and heads of 104 that fill tiles of 128.
    assert state <= memory.argument_size_in_bytes - batch <= 1.15 * state
    assert memory.peak_memory_in_bytes <= 1.1 * bound.peak_gib * GIB
