"""Operations and bytes of a step, and the time that they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vit_jax.analysis.macs import training_flops
from vit_jax.analysis.peaks import memory_bandwidth, peak_flops
from vit_jax.experiments.planning.memory import Placed
from vit_jax.experiments.planning.tracing import Traced
from vit_jax.models.config import ModelConfig
from vit_jax.runs.cost import Hardware


@dataclass(frozen=True)
class Work:
    """What a step does.

    Attributes:
      model_flops: 6 for each multiply-add of a forward pass, over all images: what counts for MFU.
      flops: operations of matrix products and convolutions, with what is recomputed; over all
        devices.
      device_bytes: what one device reads from its memory and writes to it, if each of these
        products reads its operands and writes its result once, everything else is fused with them,
        and the update reads and writes the state.
    """

    model_flops: float
    flops: float
    device_bytes: float


@dataclass(frozen=True)
class Bound:
    """The least seconds of a step, by the devices' peaks (a roofline).

    Attributes:
      compute: at the peak of matrix products.
      memory: at the memory's bandwidth.
    """

    compute: float
    memory: float

    @property
    def seconds(self) -> float:
        """The longer one."""
        return max(self.compute, self.memory)


@dataclass(frozen=True)
class Duration:
    """What a training takes."""

    step_seconds: float
    days: float
    device_hours: float
    core_days: float

    @classmethod
    def of(cls, step_seconds: float, steps: int, hardware: Hardware) -> "Duration":
        """The duration of so many steps. A core is a TPU's; a GPU counts as one."""
        days = step_seconds * steps / 86_400
        return cls(step_seconds, days, days * 24 * hardware.devices, days * hardware.cores)


def work(
    model: ModelConfig,
    placed: Placed,
    traced: Traced,
    *,
    batch_size: int,
    rows: float,
    micro_batches: int,
    tensor: int,
) -> Work:
    """The work of a step.

    Args:
      rows: of a micro-batch on one device.
      tensor: devices that split heads and hidden units.
    """
    of_micro_batch = (rows * traced.image_bytes + traced.parameter_bytes) / tensor
    # The update reads and writes parameters and moments; gradients are written and read.
    of_update = 2 * (placed.parameters + placed.optimizer) + 2 * placed.parameters
    summed = 2 * placed.parameters * micro_batches if micro_batches > 1 else 0
    return Work(
        model_flops=float(training_flops(model)) * batch_size,
        flops=traced.flops * batch_size,
        device_bytes=of_micro_batch * micro_batches + of_update + summed,
    )


def bound(work: Work, devices: Sequence[Any]) -> Bound | None:
    """The least time of a step; None if the peaks of these devices are not known."""
    peak, bandwidth = peak_flops(devices[0]), memory_bandwidth(devices[0])
    if peak is None or bandwidth is None:
        return None
    return Bound(work.flops / len(devices) / peak, work.device_bytes / bandwidth)


def seconds_at(mfu: float, work: Work, devices: Sequence[Any]) -> float | None:
    """Seconds of a step at a model FLOPs utilization; None if the peak is not known."""
    peak = peak_flops(devices[0])
    return None if peak is None else work.model_flops / (len(devices) * peak * mfu)
