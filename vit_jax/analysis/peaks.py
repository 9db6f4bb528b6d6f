"""Chips' peak rates as their makers state them, and the training speed that would reach them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from vit_jax.analysis.macs import training_flops
from vit_jax.models.config import ModelConfig


class _Chip(NamedTuple):
    """Peak in 10^12 operations a second on dense bfloat16 matrices, and its source.

    V100 and T4 have no bfloat16; their peak is for float16. Data sheets that assume sparsity (half
    of a matrix is zeros) show twice as much.
    """

    teraflops: float
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

# By `device_kind`, in both spellings that JAX has for a chip.
_TPUS = {
    "TPU v2": _Chip(46, _TPU_PAPER, cores=2),
    "TPU v3": _Chip(123, _TPU_DOCS + "v3", cores=2),
    "TPU v4": _Chip(275, _TPU_DOCS + "v4", cores=2),
    "TPU v5 lite": _Chip(197, _TPU_DOCS + "v5e"),
    "TPU v5e": _Chip(197, _TPU_DOCS + "v5e"),
    "TPU v5": _Chip(459, _TPU_DOCS + "v5p", cores=2),
    "TPU v5p": _Chip(459, _TPU_DOCS + "v5p", cores=2),
    "TPU v6 lite": _Chip(918, _TPU_DOCS + "v6e"),
    "TPU v6e": _Chip(918, _TPU_DOCS + "v6e"),
    "TPU7x": _Chip(2307, _TPU_DOCS + "tpu7x", cores=2),
}
_GPUS = {
    "Tesla V100-PCIE-16GB": _Chip(112, _V100),
    "Tesla V100-PCIE-32GB": _Chip(112, _V100),
    "Tesla V100-SXM2-16GB": _Chip(125, _V100),
    "Tesla V100-SXM2-32GB": _Chip(125, _V100),
    "Tesla V100S-PCIE-32GB": _Chip(130, _V100),
    "Tesla T4": _Chip(65, "NVIDIA T4 data sheet"),
    "NVIDIA A10": _Chip(125, "NVIDIA A10 data sheet"),
    "NVIDIA A10G": _Chip(70, "NVIDIA A10G data sheet for AWS"),
    "NVIDIA A30": _Chip(165, "NVIDIA A30 data sheet"),
    "NVIDIA A40": _Chip(149.7, "NVIDIA A40 data sheet"),
    "NVIDIA A100-PCIE-40GB": _Chip(312, _A100),
    "NVIDIA A100 80GB PCIe": _Chip(312, _A100),
    "NVIDIA A100-SXM4-40GB": _Chip(312, _A100),
    "NVIDIA A100-SXM4-80GB": _Chip(312, _A100),
    "NVIDIA L4": _Chip(121, "NVIDIA L4 data sheet, without sparsity"),
    "NVIDIA L40": _Chip(181.05, "NVIDIA L40 data sheet"),
    "NVIDIA L40S": _Chip(362.05, "NVIDIA L40S data sheet"),
    "NVIDIA H100 PCIe": _Chip(1513 / 2, _H100),
    "NVIDIA H100 NVL": _Chip(1671 / 2, _H100),
    "NVIDIA H100 80GB HBM3": _Chip(1979 / 2, _H100),
    "NVIDIA GH200 480GB": _Chip(1979 / 2, "NVIDIA GH200 data sheet, without sparsity"),
    "NVIDIA H200 NVL": _Chip(1671 / 2, _H200),
    "NVIDIA H200": _Chip(1979 / 2, _H200),
    "NVIDIA B200": _Chip(4500 / 2, _BLACKWELL),
    "NVIDIA GB200": _Chip(5000 / 2, _BLACKWELL),
    "NVIDIA RTX A6000": _Chip(154.8, _GA102),
    "NVIDIA GeForce RTX 3090": _Chip(71, _GA102),
    "NVIDIA GeForce RTX 4090": _Chip(
        165.2, "NVIDIA Ada GPU architecture white paper, float32 accumulation"
    ),
    "NVIDIA GeForce RTX 5090": _Chip(
        209.5, "NVIDIA RTX Blackwell GPU architecture white paper, float32 accumulation"
    ),
}


def peak_flops(device: Any) -> float | None:
    """Peak operations a second of a JAX device on bfloat16 matrices; None if it is not known."""
    if device.device_kind in _TPUS:
        chip = _TPUS[device.device_kind]
        return chip.teraflops * 1e12 * device.num_cores / chip.cores
    gpu = _GPUS.get(device.device_kind)
    return None if gpu is None else gpu.teraflops * 1e12


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
