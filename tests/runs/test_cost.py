"""The cost of a run, against closed forms."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vit_jax.__main__ import main
from vit_jax.runs.cost import Cost, CostFile, Hardware, read_cost

pytestmark = pytest.mark.usefixtures("shared_programs")

TPU_V3 = SimpleNamespace(platform="tpu", device_kind="TPU v3", num_cores=1)
TPU_V4 = SimpleNamespace(platform="tpu", device_kind="TPU v4", num_cores=2)
GPU = SimpleNamespace(platform="gpu", device_kind="NVIDIA A100-PCIE-40GB")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until a test moves it."""
    moved = SimpleNamespace(now=0.0)
    monkeypatch.setattr("vit_jax.runs.cost.time.monotonic", lambda: moved.now)
    return moved


def start(directory: Path, devices: list[Any], **changed: Any) -> CostFile:
    options = {"step": 0, "passed": 0, "batch_size": 10, "flops_per_image": 6, "began": 0.0}
    return CostFile(directory, Hardware.of(devices), **{**options, **changed})


def test_a_month_on_eight_cores_of_tpuv3_is_as_many_core_days_as_in_the_paper(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    # Table 2's ViT-L/16 on ImageNet-21k: 30 days on a TPUv3 of 8 cores are 0.23k core-days.
    file = start(tmp_path, [TPU_V3] * 8)
    clock.now = 30 * 86400.0
    assert file.write().core_days == 240
    assert read_cost(tmp_path) == Cost(8 * 30 * 24, 240, 0, 0)


def test_a_device_of_two_cores_counts_twice(tmp_path: Path, clock: SimpleNamespace) -> None:
    file = start(tmp_path, [TPU_V4] * 4)
    clock.now = 86400.0
    assert (file.write().device_hours, file.write().core_days) == (96, 8)


def test_starts_add_up_and_steps_count_once(tmp_path: Path, clock: SimpleNamespace) -> None:
    first = start(tmp_path, [GPU] * 2)
    clock.now = 3600.0
    first.note(50, 0)
    # A kill loses steps 41 to 50; the next start has another number of devices.
    second = start(tmp_path, [GPU], step=40, began=3600.0)
    clock.now = 3 * 3600.0
    second.note(100, 5)
    expected = Cost(2 + 2, 4 / 24, 95 * 10, 6 * 950 / 1e18)
    assert read_cost(tmp_path) == expected
    starts = json.loads((tmp_path / "cost.json").read_text())["starts"]
    assert [(each["first_step"], each["last_step"]) for each in starts] == [(0, 50), (40, 100)]
    assert Cost.total([expected] * 3) == Cost(12, pytest.approx(0.5), 2850, 6 * 2850 / 1e18)


def test_the_file_is_written_once_a_minute(tmp_path: Path, clock: SimpleNamespace) -> None:
    file = start(tmp_path, [GPU])
    for step, (now, written) in enumerate([(1, 1), (60, 1), (61, 3), (100, 3)], 1):
        clock.now = now
        file.note(step, 0)
        assert read_cost(tmp_path) == Cost(*[pytest.approx(x) for x in _at(written)])


def _at(step: int) -> tuple[float, ...]:
    seconds = {1: 1, 3: 61}[step]
    return seconds / 3600, seconds / 86400, 10 * step, 60 * step / 1e18


@pytest.mark.parametrize("left", [b"", b"[1]", b'{"starts": [{"devices": "two"}]}', b"\xff{"])
def test_a_damaged_file_is_said_and_written_anew(
    left: bytes, tmp_path: Path, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cost.json").write_bytes(left)
    assert read_cost(tmp_path) is None
    file = start(tmp_path, [GPU], step=10)
    assert "lacks the earlier starts" in caplog.text
    clock.now = 36.0
    assert file.write().device_hours == pytest.approx(0.01)


def test_a_run_writes_and_prints_its_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        *("--config=configs/quickstart.py", "--config.model.depth=1", "--config.model.width=16"),
        *("--config.model.mlp_dim=16", "--config.model.num_heads=2", "--config.log_every=2"),
        *("--config.data.batch_size=16", "--config.optimizer.warmup_steps=2"),
        *(f"--config.data.data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}"),
    ]
    assert main(["train", *flags, "--config.total_steps=4"]) == 0
    # Patches of 2x2 pixels in three colours, 16 of them, to width 16; a block of four products with
    # 16x16 kernels, two with 16x16 tokens, an MLP of 16; a head of ten classes.
    macs = 16 * 12 * 16 + (4 * 16 * 16 * 16 + 2 * 16 * 16 * 16 + 2 * 16 * 16 * 16) + 16 * 10
    first = read_cost(tmp_path / "run")
    assert first is not None
    assert (first.images, first.exaflops) == (64, 6 * macs * 64 / 1e18)
    assert first.core_days == pytest.approx(first.device_hours / 24)
    assert "cost of the run: " in capsys.readouterr().out
    assert main(["train", *flags, "--config.total_steps=4", "--extend_to=6"]) == 0
    second = read_cost(tmp_path / "run")
    assert second is not None
    assert (second.images, second.device_hours > first.device_hours) == (96, True)
    starts = json.loads((tmp_path / "run/cost.json").read_text())["starts"]
    assert [(each["first_step"], each["last_step"]) for each in starts] == [(0, 4), (4, 6)]
    assert {each["kind"] for each in starts} == {"cpu"}


def test_what_is_frozen_has_no_known_flops(tmp_path: Path) -> None:
    file = start(tmp_path, [GPU], flops_per_image=None)
    assert file.write().exaflops is None
    assert "exaFLOPs unknown" in str(read_cost(tmp_path))
    known = Cost(1, 1, 1, 1.0)
    assert Cost.total([known, file.write()]).exaflops is None
