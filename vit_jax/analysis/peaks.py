"""Chips' peak rates and memory as their makers state them, and the speed that would reach them."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from vit_jax.analysis.macs import training_flops
from vit_jax.models.config import ModelConfig


class _Chip(NamedTuple):
    """Peak in 10^12 operations a second on dense bfloat16 matrices, memory, and their source.

    V100 and T4 have no bfloat16; their peak is for float16. Data sheets that assume sparsity (half
    of a matrix is zeros) show twice as much.

    Attributes:
      gigabytes: 10^9 bytes of memory. For TPUs, whose sheets round it, what libtpu 0.0.42 leaves to
        programs: it names that where a program is too large.
      bandwidth: of the memory, in 10^9 bytes a second.
    """

    teraflops: float
    gigabytes: float
    bandwidth: float
    source: str
    # JAX shows each core as a device or, if the chip joins them, the chip as one device.
    cores: int = 1


_TPU_PAPER = (
    "Jouppi et al., A Domain-Specific Supercomputer for Training Deep Neural Networks, 2020"
)
_TPU_DOCS = "docs.cloud.google.com/tpu/docs/"
_V100 = "NVIDIA V100 data sheet"
_A100 = "NVIDIA A100 data sheet"
_H100 = "NVIDIA H100 data sheet, without sparsity"
_H200 = "NVIDIA H200 data sheet, without sparsity"
_BLACKWELL = "NVIDIA Blackwell data sheet (GB200 NVL72, HGX B200), without sparsity"
_GA102 = "NVIDIA Ampere GA102 white paper, float32 accumulation"

_GIB = 2**30 / 1e9
# By `device_kind`, in both spellings that JAX has for a chip.
_TPUS = {
    "TPU v2": _Chip(46, 2 * 7.48 * _GIB, 700, _TPU_PAPER, cores=2),
    "TPU v3": _Chip(123, 2 * 15.48 * _GIB, 900, _TPU_DOCS + "v3", cores=2),
    "TPU v4": _Chip(275, 30.75 * _GIB, 1200, _TPU_DOCS + "v4", cores=2),
    "TPU v5 lite": _Chip(197, 15.75 * _GIB, 819, _TPU_DOCS + "v5e"),
    "TPU v5e": _Chip(197, 15.75 * _GIB, 819, _TPU_DOCS + "v5e"),
    "TPU v5": _Chip(459, 95.74 * _GIB, 2765, _TPU_DOCS + "v5p", cores=2),
    "TPU v5p": _Chip(459, 95.74 * _GIB, 2765, _TPU_DOCS + "v5p", cores=2),
    "TPU v6 lite": _Chip(918, 31.25 * _GIB, 1638, _TPU_DOCS + "v6e"),
    "TPU v6e": _Chip(918, 31.25 * _GIB, 1638, _TPU_DOCS + "v6e"),
    "TPU7x": _Chip(2307, 2 * 94.75 * _GIB, 7380, _TPU_DOCS + "tpu7x", cores=2),
}
_GPUS = {
    "Tesla V100-PCIE-16GB": _Chip(112, 16, 900, _V100),
    "Tesla V100-PCIE-32GB": _Chip(112, 32, 900, _V100),
    "Tesla V100-SXM2-16GB": _Chip(125, 16, 900, _V100),
    "Tesla V100-SXM2-32GB": _Chip(125, 32, 900, _V100),
    "Tesla V100S-PCIE-32GB": _Chip(130, 32, 1134, _V100),
    "Tesla T4": _Chip(65, 16, 300, "NVIDIA T4 data sheet"),
    "NVIDIA A10": _Chip(125, 24, 600, "NVIDIA A10 data sheet"),
    "NVIDIA A10G": _Chip(70, 24, 600, "NVIDIA A10G data sheet for AWS"),
    "NVIDIA A30": _Chip(165, 24, 933, "NVIDIA A30 data sheet"),
    "NVIDIA A40": _Chip(149.7, 48, 696, "NVIDIA A40 data sheet"),
    "NVIDIA A100-PCIE-40GB": _Chip(312, 40, 1555, _A100),
    "NVIDIA A100 80GB PCIe": _Chip(312, 80, 1935, _A100),
    "NVIDIA A100-SXM4-40GB": _Chip(312, 40, 1555, _A100),
    "NVIDIA A100-SXM4-80GB": _Chip(312, 80, 2039, _A100),
    "NVIDIA L4": _Chip(121, 24, 300, "NVIDIA L4 data sheet, without sparsity"),
    "NVIDIA L40": _Chip(181.05, 48, 864, "NVIDIA L40 data sheet"),
    "NVIDIA L40S": _Chip(362.05, 48, 864, "NVIDIA L40S data sheet"),
    "NVIDIA H100 PCIe": _Chip(1513 / 2, 80, 2000, _H100),
    "NVIDIA H100 NVL": _Chip(1671 / 2, 94, 3900, _H100),
    "NVIDIA H100 80GB HBM3": _Chip(1979 / 2, 80, 3350, _H100),
    "NVIDIA GH200 480GB": _Chip(1979 / 2, 96, 4000, "NVIDIA GH200 data sheet, without sparsity"),
    "NVIDIA H200 NVL": _Chip(1671 / 2, 141, 4800, _H200),
    "NVIDIA H200": _Chip(1979 / 2, 141, 4800, _H200),
    "NVIDIA B200": _Chip(4500 / 2, 180, 8000, _BLACKWELL),
    "NVIDIA GB200": _Chip(5000 / 2, 186, 8000, _BLACKWELL),
    "NVIDIA RTX A6000": _Chip(154.8, 48, 768, _GA102),
    "NVIDIA GeForce RTX 3090": _Chip(71, 24, 936, _GA102),
    "NVIDIA GeForce RTX 4090": _Chip(
        165.2, 24, 1008, "NVIDIA Ada GPU architecture white paper, float32 accumulation"
    ),
    "NVIDIA GeForce RTX 5090": _Chip(
        209.5, 32, 1792, "NVIDIA RTX Blackwell GPU architecture white paper, float32 accumulation"
    ),
}


def peak_flops(device: Any) -> float | None:
    """Peak operations a second of a JAX device on bfloat16 matrices; None if it is not known."""
    return _share(device, lambda chip: chip.teraflops * 1e12)


def memory_bytes(device: Any) -> float | None:
    """Memory of a JAX device; None if it is not known."""
    return _share(device, lambda chip: chip.gigabytes * 1e9)


def memory_bandwidth(device: Any) -> float | None:
    """Bytes a second between a JAX device and its memory at most; None if it is not known."""
    return _share(device, lambda chip: chip.bandwidth * 1e9)


def source_of_peaks(device: Any) -> str | None:
    """Where a device's numbers are published; None if it is not known."""
    chip = _TPUS.get(device.device_kind) or _GPUS.get(device.device_kind)
    return None if chip is None else chip.source


def _share(device: Any, number: Callable[[_Chip], float]) -> float | None:
    if device.device_kind in _TPUS:
        chip = _TPUS[device.device_kind]
        return number(chip) * device.num_cores / chip.cores
    gpu = _GPUS.get(device.device_kind)
    return None if gpu is None else number(gpu)


def unknown_chip(devices: Iterable[Any]) -> str | None:
    """The kind of the first device, CPUs apart, whose peak is not known."""
    kinds = (d.device_kind for d in devices if d.platform != "cpu" and peak_flops(d) is None)
    return next(kinds, None)


def images_at_peak(config: ModelConfig, devices: Iterable[Any]) -> float | None:
    """Images a second that training would take if JAX's devices did its matrix products at peak.

    A speed divided by this is the model FLOPs utilization (MFU) of Chowdhery et al., PaLM, 2022,
    appendix B: what is recomputed to save memory does not count as work.

    Returns:
      None if the peak of one of the devices is not known.
    """
    total = 0.0
    for device in devices:
        peak = peak_flops(device)
        if peak is None:
            return None
        total += peak
    return total / training_flops(config)
