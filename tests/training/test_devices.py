"""What a config asks of devices that are not there."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.small_models import refusal
from vit_jax.config import load_config
from vit_jax.data.config import DataConfig
from vit_jax.models.config import ModelConfig
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.schema import build
from vit_jax.training import setup
from vit_jax.training.config import TrainConfig
from vit_jax.training.devices import check_devices
from vit_jax.training.optimizer import OptimizerConfig

H100 = {"device_kind": "NVIDIA H100 80GB HBM3", "compute_capability": "9.0"}
A100 = {"device_kind": "NVIDIA A100-SXM4-40GB", "compute_capability": "8.0"}
T4 = {"device_kind": "Tesla T4", "compute_capability": "7.5"}
MI300 = {"device_kind": "AMD Instinct MI300X", "compute_capability": "gfx942"}


def fake_mesh(platform: str = "cpu", *, device: dict[str, str] | None = None, **sizes: int) -> Any:
    shape = {"data": 1, "fsdp": 1, "tensor": 1} | sizes
    devices = np.array([SimpleNamespace(platform=platform, **(device or {}))])
    return SimpleNamespace(devices=devices, shape=shape)


def check(name: str, mesh: Any, num_slices: int = 1, **model: Any) -> None:
    config = TrainConfig(
        ModelConfig(name, **{"num_classes": 1000} | model),
        DataConfig("synthetic", batch_size=12 * 256),
        OptimizerConfig(lr=1e-3),
        total_steps=1,
        mesh=MeshConfig(num_slices=num_slices),
    )
    check_devices(config, mesh)


@pytest.mark.parametrize(
    ("platform", "attention"),
    [("cpu", "pallas"), ("gpu", "pallas"), ("cpu", "cudnn"), ("tpu", "cudnn")],
)
def test_kernels_are_for_their_devices(platform: str, attention: str) -> None:
    told = refusal(check, "S/16", fake_mesh(platform), attention=attention, dtype="bfloat16")
    assert told.startswith(f"config.model.attention: {attention!r} is a kernel for ")
    assert told.endswith(f"the devices are {platform.upper()}s; use 'xla'")


@pytest.mark.parametrize(
    ("platform", "device", "attention"),
    [
        ("tpu", {}, "pallas"),
        ("gpu", A100, "cudnn"),
        ("gpu", H100, "cudnn"),
        ("gpu", T4, "xla"),
        ("cpu", {}, "xla"),
        ("tpu", {}, "xla"),
    ],
)
def test_they_are_taken_there(platform: str, device: dict[str, str], attention: str) -> None:
    for name in ("S/16", "H/14"):  # Heads of 64 and of 80 units.
        check(name, fake_mesh(platform, device=device), attention=attention, dtype="bfloat16")


@pytest.mark.parametrize("device", [T4, MI300])
def test_cudnn_is_for_later_gpus_of_nvidia(device: dict[str, str]) -> None:
    mesh = fake_mesh("gpu", device=device)
    told = refusal(check, "S/16", mesh, attention="cudnn", dtype="bfloat16")
    assert told == (
        "config.model.attention: 'cudnn' is a kernel for NVIDIA GPUs from the A100 on (compute "
        f"capability 8.0), and the devices are {device['device_kind']}s; use 'xla'"
    )


@pytest.mark.parametrize(
    ("device", "size", "told"),
    [
        (A100, 20, "multiple of 8 and at most 128 on NVIDIA A100-SXM4-40GBs"),
        (A100, 160, "has 160; use 'xla'"),
        (H100, 264, "at most 256 on NVIDIA H100"),
        (H100, 160, None),
    ],
)
def test_cudnn_has_heads_of_some_sizes(device: dict[str, str], size: int, told: str | None) -> None:
    mesh = fake_mesh("gpu", device=device)
    options = {"width": 2 * size, "num_heads": 2, "attention": "cudnn", "dtype": "bfloat16"}
    if told is None:
        check("ViT-S/16", mesh, **options)
    else:
        assert told in refusal(check, "ViT-S/16", mesh, **options)


@pytest.mark.parametrize(
    ("name", "tensor", "told"),
    [
        ("ViT-S/16", 4, "4 does not divide the 6 heads of ViT-S/16"),
        ("R50+ViT-B/16", 8, "8 does not divide the 12 heads of R50+ViT-B/16"),
        ("Mixer-B/16", 7, "7 does not divide the 3072 hidden units (mlp_dim) of Mixer-B/16"),
        ("Mixer-S/16", 512, "512 does not divide the 256 hidden units (token_mlp_dim) of "),
        ("R50x1", 2, "2 would be ignored: it splits only the head of R50x1; use "),
        ("BiT-R50x1", 2, "2 would be ignored: "),
        ("ViT-S/16", 6, None),
        ("R50+ViT-B/16", 4, None),
        ("Mixer-B/16", 8, None),
        ("R50x1", 1, None),
    ],
)
def test_tensor_splits_something(name: str, tensor: int, told: str | None) -> None:
    mesh = fake_mesh(tensor=tensor)
    if told is None:
        check(name, mesh)
    else:
        assert refusal(check, name, mesh).startswith(f"config.mesh.tensor: {told}")


@pytest.mark.parametrize(
    ("name", "sizes", "num_slices", "told"),
    [
        # 24 divides neither 1024 nor 4096, which are all axes of the blocks but those of heads.
        ("ViT-L/16", {"fsdp": 24}, 1, "100% of ViT-L/16's parameters, {} use 2 or 4 or 8"),
        ("ViT-L/16", {"data": 2, "fsdp": 24}, 2, "{} use 2 or 4 or 8"),
        ("ViT-L/16", {"data": 2, "fsdp": 24}, 1, "{} use 2 or 4 or 8 or 16"),
        # The width of 384 in all but the MLP, which has an axis of 1,536: 7.8 of 22 million.
        ("ViT-S/16", {"fsdp": 256}, 1, "36% of ViT-S/16's parameters, {} use 2 or 4 or 8 or 16"),
        ("R50x1", {"fsdp": 3}, 1, "{} use 1"),
        ("ViT-L/16", {"fsdp": 16}, 1, None),
        ("ViT-B/16", {"fsdp": 24}, 1, None),
        ("R50x1", {"fsdp": 8}, 1, None),
        ("Mixer-B/16", {"fsdp": 8, "tensor": 2}, 1, None),
    ],
)
def test_fsdp_splits_parameters(
    name: str, sizes: dict[str, int], num_slices: int, told: str | None
) -> None:
    mesh = fake_mesh(**sizes)
    if told is None:
        check(name, mesh)
    else:
        message = refusal(check, name, mesh, num_slices)
        assert message.startswith(f"config.mesh.fsdp: {sizes['fsdp']} divides no axis of ")
        assert told.format("so every device would hold them whole;") in message


def test_the_data_may_say_of_how_many_classes() -> None:
    check("ViT-L/16", fake_mesh(fsdp=8), num_classes=None)
    assert "fsdp: 24 divides" in refusal(check, "ViT-L/16", fake_mesh(fsdp=24), num_classes=None)


def test_small_arrays_may_stay_whole() -> None:
    small: dict[str, Any] = {"image_size": 32, "depth": 2}
    check("ViT-mu/8", fake_mesh(fsdp=3), num_classes=10, **small)
    # It has 32,000 elements, unlike all others.
    told = refusal(check, "ViT-mu/8", fake_mesh(fsdp=3), num_classes=1000, **small)
    assert "100% of ViT-mu/8's parameters" in told


def test_a_run_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "make_mesh", lambda config: fake_mesh(tensor=3))
    values = load_config("configs/quickstart.py")
    values["data"] |= {"data_dir": str(tmp_path)}
    told = refusal(setup.prepare, build(TrainConfig, values))
    assert told.startswith("config.mesh.tensor: 3 does not divide the 4 heads of ")
