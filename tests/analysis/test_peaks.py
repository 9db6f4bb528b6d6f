from types import SimpleNamespace

import pytest

from vit_jax.analysis import peaks
from vit_jax.analysis.peaks import (
    images_at_peak,
    memory_bandwidth,
    memory_bytes,
    peak_flops,
    unknown_chip,
)
from vit_jax.models import ModelConfig


def device(kind: str, cores: int = 1, platform: str = "gpu") -> SimpleNamespace:
    return SimpleNamespace(device_kind=kind, num_cores=cores, platform=platform)


# Units, of which each does so many operations a clock cycle, at so many GHz: multiprocessors by
# NVIDIA's white papers, at boost; matrix units of a TPU core by Google's papers and documentation.
@pytest.mark.parametrize(
    ("kind", "units", "operations", "gigahertz"),
    [
        ("Tesla V100-SXM2-16GB", 80, 1024, 1.53),
        ("Tesla T4", 40, 1024, 1.59),
        ("NVIDIA A10", 72, 1024, 1.695),
        ("NVIDIA A10G", 80, 512, 1.71),
        ("NVIDIA A100-SXM4-80GB", 108, 2048, 1.41),
        ("NVIDIA L4", 58, 1024, 2.04),
        ("NVIDIA L40S", 142, 1024, 2.52),
        ("NVIDIA H100 80GB HBM3", 132, 4096, 1.83),
        ("NVIDIA H100 PCIe", 114, 4096, 1.62),
        ("NVIDIA H200", 132, 4096, 1.83),
        ("NVIDIA GeForce RTX 3090", 82, 512, 1.695),
        ("NVIDIA GeForce RTX 4090", 128, 512, 2.52),
        ("NVIDIA GeForce RTX 5090", 170, 512, 2.407),
        ("TPU v2", 1, 2 * 128**2, 0.7),
        ("TPU v3", 2, 2 * 128**2, 0.94),
        ("TPU v4", 4, 2 * 128**2, 1.05),
        ("TPU v5 lite", 4, 2 * 128**2, 1.5),
        ("TPU v5", 4, 2 * 128**2, 1.75),
    ],
)
def test_peaks_follow_from_units_and_clock(
    kind: str, units: int, operations: int, gigahertz: float
) -> None:
    closed_form = units * operations * gigahertz * 1e9
    assert peak_flops(device(kind)) == pytest.approx(closed_form, rel=0.015)


def test_a_tpu_is_counted_by_the_cores_that_a_device_joins() -> None:
    assert peak_flops(device("TPU v4", cores=2)) == 275e12
    assert peak_flops(device("TPU v4", cores=1)) == 275e12 / 2
    assert peak_flops(device("TPU v5 lite")) == peak_flops(device("TPU v5e"))
    assert peak_flops(device("TPU7x")) == 2307e12 / 2


def test_every_peak_names_its_source() -> None:
    assert all(chip.source for chip in (peaks._TPUS | peaks._GPUS).values())


# Half of the peak, and so the speed at an MFU of 50 %: 6 operations a multiply-add, of which an
# image of 224 pixels takes 17.6, 61.6 and 167.3 thousand million (with 1,000 classes).
@pytest.mark.parametrize(
    ("kind", "name", "speed"),
    [
        ("NVIDIA H200", "ViT-B/16", 4688),
        ("NVIDIA H200", "ViT-L/16", 1338),
        ("NVIDIA H200", "ViT-H/14", 492),
        ("TPU v5 lite", "ViT-B/16", 934),
        ("TPU v6 lite", "ViT-L/16", 1242),
    ],
)
def test_speeds_at_half_of_the_peak(kind: str, name: str, speed: int) -> None:
    eight = images_at_peak(ModelConfig(name, num_classes=1000), [device(kind)] * 8)
    assert eight is not None
    assert eight / 8 / 2 == pytest.approx(speed, rel=2e-3)


def test_what_is_not_known_is_not_guessed() -> None:
    for kind in ("cpu", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "TPU v99", "NVIDIA H100"):
        assert peak_flops(device(kind)) is None
        known = device("NVIDIA H200")
        assert images_at_peak(ModelConfig("ViT-B/16"), [known, device(kind)]) is None
        assert unknown_chip([known, device(kind)]) == kind
    # Nobody asks for a CPU's.
    assert unknown_chip([known, device("cpu", platform="cpu")]) is None


# Wires of the memory's bus, and 10^9 bits a second on each, by the same white papers.
@pytest.mark.parametrize(
    ("kind", "wires", "gigabits"),
    [
        ("Tesla V100-SXM2-32GB", 4096, 1.752),
        ("NVIDIA A100-SXM4-80GB", 5120, 3.186),
        ("NVIDIA H100 80GB HBM3", 5120, 5.235),
        ("NVIDIA RTX A6000", 384, 16),
        ("NVIDIA GeForce RTX 3090", 384, 19.5),
        ("NVIDIA GeForce RTX 4090", 384, 21),
        ("NVIDIA GeForce RTX 5090", 512, 28),
    ],
)
def test_bandwidths_follow_from_the_bus(kind: str, wires: int, gigabits: float) -> None:
    assert memory_bandwidth(device(kind)) == pytest.approx(wires * gigabits / 8 * 1e9, rel=0.01)


def test_memory_is_counted_by_the_cores_that_a_device_joins() -> None:
    assert memory_bytes(device("TPU v3")) == pytest.approx(15.48 * 2**30)
    assert memory_bytes(device("TPU v5", cores=2)) == pytest.approx(95.74 * 2**30)
    assert memory_bandwidth(device("TPU7x")) == 3690e9
    assert memory_bytes(device("cpu")) is memory_bandwidth(device("cpu")) is None
