"""What a benchmark computes from what it measures: against closed forms and simulated devices."""

import math
import time
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import psutil
import pytest

from vit_jax.data.config import DataConfig
from vit_jax.experiments.benchmark import running
from vit_jax.experiments.benchmark.cells import Cell, Result, measure, share_of_memory
from vit_jax.experiments.benchmark.curves import by_batch, peaks
from vit_jax.experiments.benchmark.input import worker_counts
from vit_jax.experiments.benchmark.largest import Limit, find_largest, memory_limit
from vit_jax.experiments.benchmark.loading import cores_needed
from vit_jax.experiments.benchmark.page import as_values
from vit_jax.experiments.benchmark.passes import ForwardPass
from vit_jax.experiments.benchmark.running import Grid, Report
from vit_jax.experiments.benchmark.stages import STAGES, Passed, Times, split
from vit_jax.experiments.benchmark.timing import Rounds, Spread, time_calls
from vit_jax.experiments.benchmark.workloads import Workload, values_of, varied
from vit_jax.experiments.synthetic import random_batch
from vit_jax.inference.memory import ProgramMemory
from vit_jax.models.config import ModelConfig
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.training.config import TrainConfig
from vit_jax.training.optimizer import OptimizerConfig
from vit_jax.training.program import make_program

CELL = Cell("ViT-B/16", "", (224, 224), 64)


def result(rounds: Rounds | None, peak_rate: float | None = None) -> Result:
    return Result(CELL, 4, rounds, ProgramMemory(1, 2, 3), None, 0.5, 1.5, peak_rate)


def test_rates_and_mfu_follow_from_the_seconds_of_a_call() -> None:
    # 64 images in 0.1, 0.2 and 0.4 s; at peak 1,600 img/s.
    found = result(Rounds(10, (0.2, 0.1, 0.4), (0.8, 0.8, 0.8)), 1600.0)
    assert found.rate == Spread(240.0, 320.0, 480.0)
    assert found.device_rate == 80.0
    assert found.cpu_rate == 80.0
    assert found.mfu == pytest.approx(0.2)
    assert result(None).rate is None and result(None).mfu is None


def test_the_peak_of_inference_is_three_times_that_of_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """6 operations for each multiply-add of a forward pass in training, and 2 in inference."""
    monkeypatch.setattr(running, "images_at_peak", lambda model, devices: 1000.0)
    asked: list[float] = []
    monkeypatch.setattr(running, "measure", lambda *_, peak_rate, **__: asked.append(peak_rate))
    program = tiny_workload().program(16, 2)
    for kind in ("train", "inference"):
        running._measure(Report(kind, 1.0, 1), CELL, program)
    assert asked == pytest.approx([1000.0, 3000.0])


@pytest.mark.parametrize("limit", [3, 17, 100, 1000, 12_345])
def test_the_largest_batch_in_proportion_to_memory(limit: int) -> None:
    asked: list[int] = []

    def share(size: int) -> float:
        asked.append(size)
        return (50 + size) / (50 + limit)

    found = find_largest(share, unit=1, start=8)
    assert not found.is_capped and found.batch_size == pytest.approx(limit, rel=1e-3)
    # Just above it one was seen that does not fit.
    assert any(limit < size <= found.batch_size + max(1, limit // 16) for size in asked)
    assert len(asked) <= 5


@pytest.mark.parametrize("limit", [0, 1, 7, 8, 100, 5000])
@pytest.mark.parametrize("unit", [1, 8])
def test_the_largest_batch_on_a_device_that_only_says_no(limit: int, unit: int) -> None:
    found = find_largest(lambda size: 0.0 if size <= limit else math.inf, unit=unit, start=16)
    assert found.batch_size % unit == 0 and not found.is_capped
    within = max(unit, found.batch_size // 16 + unit)
    assert found.batch_size <= limit < found.batch_size + within


def test_the_largest_batch_has_an_end() -> None:
    found = find_largest(lambda size: size / 1e9, unit=4, start=8, most=4096)
    assert found == (4096, True)


def test_a_device_that_states_its_memory_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit_of(**device: Any) -> Limit | None:
        fake = SimpleNamespace(**{"memory_stats": lambda: None, **device})
        return memory_limit(SimpleNamespace(local_devices=[fake, fake]))

    stated = limit_of(
        platform="gpu", device_kind="X", memory_stats=lambda: {"bytes_limit": 5 * 2**30}
    )
    assert stated is not None and stated.bytes == 5 * 2**30
    # 15.75 GiB a v5e, as libtpu names it.
    published = limit_of(platform="tpu", device_kind="TPU v5 lite", num_cores=1)
    assert published is not None and published.bytes == pytest.approx(15.75 * 2**30)
    assert limit_of(platform="gpu", device_kind="unknown") is None
    free = SimpleNamespace(available=8 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    host = limit_of(platform="cpu", device_kind="cpu")
    assert host is not None and host.bytes == 4 * 2**30 and "host" in host.source


def tiny_workload(**data: Any) -> Workload:
    values = values_of("ViT-mu/8", 2)
    values["model"] |= {"depth": 1, "num_classes": 3}
    values["data"] |= data
    (variant,) = varied(values, {})
    return Workload(variant)


def test_a_grid_on_a_device_of_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake limit between the memory of two batches: a cell that does not fit, and the largest."""
    workload = tiny_workload()
    devices = list(workload.mesh.devices.flat)

    def memory(batch_size: int) -> ProgramMemory:
        job = ForwardPass(workload.program(16, batch_size))
        free = Limit(1e15, "")
        found = measure(CELL, job, devices, limit=free, peak_rate=None, seconds=0, rounds=1).memory
        assert found is not None
        return found

    small, large = memory(2).total, memory(64).total
    limit = Limit((small + large) / 2, "a test")
    assert share_of_memory(ForwardPass(workload.program(16, 64)), limit, runs=False) > 1
    monkeypatch.setattr(running, "memory_limit", lambda mesh: limit)
    report = Report("inference", 0.0, 2)
    said: list[str] = []
    running.run(Grid([workload], [16], [128, 2, 64], finds_largest=True), report, said.append)
    assert [each.cell.batch_size for each in report.results] == [2, 64, 128]
    two, sixty_four, more = report.results
    assert two.rounds is not None and len(two.rounds.seconds) == 2 and two.lack is None
    assert sixty_four.rounds is None and "GiB a device, and a test is" in str(sixty_four.lack)
    # A batch twice as large as one that does not fit is not compiled.
    assert more.lack == "a smaller batch does not fit" and more.memory is None
    (found,) = report.largest
    # Memory is a line through both batches, so that half of the way fits.
    assert 2 < found.cell.batch_size < 64 and not found.is_capped
    assert memory(found.cell.batch_size).total <= limit.bytes
    assert memory(found.cell.batch_size + max(1, found.cell.batch_size // 16)).total > limit.bytes
    assert report.is_complete and "do " in said[-1]
    values = as_values(report)
    assert [row["fits"] for row in values["results"]] == [True, False, False]
    assert values["results"][0]["memory_bytes"]["total"] == small
    assert values["largest"][0]["batch_size"] == found.cell.batch_size


def test_labels_are_classes_of_the_model() -> None:
    program = tiny_workload().program(16, 64)
    labels = np.asarray(random_batch(program)["labels"])
    assert set(labels.tolist()) == {0, 1, 2}
    several = make_program(
        TrainConfig(
            ModelConfig("ViT-mu/8", image_size=16, num_classes=3).completed(),
            DataConfig("x", batch_size=4),
            OptimizerConfig(),
            total_steps=1,
        ),
        1,
        make_mesh(MeshConfig(), jax.devices()[:1]),
        max_labels=5,
    )
    labels = np.asarray(random_batch(several)["labels"])
    assert labels.shape == (4, 5)
    assert (labels[:, 0] >= 0).all() and (labels[:, 1:] == -1).all()


def test_what_varies_is_every_combination() -> None:
    keys = {"model.remat": ["none", "block"], "model.scan": ["true", "false"]}
    found = list(varied(values_of("ViT-mu/8", 2), keys))
    assert [each.settings for each in found] == [
        "model.remat=none model.scan=true",
        "model.remat=none model.scan=false",
        "model.remat=block model.scan=true",
        "model.remat=block model.scan=false",
    ]
    assert [(each.config.model.remat, each.config.model.scan) for each in found] == [
        ("none", True),
        ("none", False),
        ("block", True),
        ("block", False),
    ]


def test_a_round_holds_as_many_calls_as_its_seconds() -> None:
    calls: list[int] = []

    def run(count: int) -> None:
        calls.append(count)
        time.sleep(0.02 * count)

    found = time_calls(run, seconds=0.1, rounds=3)
    assert calls[:2] == [1, 1] and calls[2:] == [found.calls] * 3
    assert 2 <= found.calls <= 5
    assert min(found.seconds) >= 0.02 and max(found.cpu_seconds) < 0.02


def test_stages_add_up_to_the_whole() -> None:
    times = [Times(cpu, 2 * cpu) for cpu in (1.0, 3.0, 7.0, 8.0, 0.5, 2.0, 0.25)]
    found = split(Passed(*times))
    assert tuple(found) == STAGES
    assert {stage: each.cpu for stage, each in found.items()} == {
        "read": 1.0,
        "decode": 3.0,
        "crop and resize": 4.0,
        "augment": 1.0,
        # What is left of 2 after reading again (0.5).
        "batch": 1.5,
        "transfer": 0.25,
    }
    assert found["batch"].wall == 3.0
    # Reading, the whole transform, filling, and the transfer.
    assert sum(each.cpu for each in found.values()) == 1.0 + 8.0 + (2.0 - 0.5) + 0.25


def test_cores_of_a_device_and_counts_of_workers() -> None:
    assert cores_needed(1200.0, 400.0) == 3.0
    assert [worker_counts(cores) for cores in (1, 2, 6, 16)] == [
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 4, 6],
        [0, 1, 2, 4, 8, 16],
    ]


def test_peaks_are_the_fastest_batches_a_device() -> None:
    def row(size: int, batch: int, rate: float) -> dict[str, Any]:
        return {
            "model": "ViT-B/16",
            "settings": "",
            "image_height": size,
            "image_width": size,
            "batch_size": 2 * batch,
            "batch_size_a_device": batch,
            "fits": True,
            "images_per_second": {"low": rate - 2, "median": rate, "high": rate + 2},
        }

    rows = [row(64, 8, 100.0), row(64, 16, 160.0), row(64, 32, 150.0), row(128, 8, 50.0)]
    values = {"results": [*rows, {**row(128, 64, 0.0), "fits": False}], "largest": []}
    assert peaks(values) == {"ViT-B/16": [(64, 80, 79, 81, 16), (128, 25, 24, 26, 8)]}
    assert list(by_batch(values)) == ["ViT-B/16, 64", "ViT-B/16, 128"]
    assert [point.y for point in by_batch(values)["ViT-B/16, 64"]] == [50, 80, 75]
