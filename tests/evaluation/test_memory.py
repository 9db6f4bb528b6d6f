"""Evaluation fits where training fits, and says which key helps where it does not."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.small_models import SMALL, random_params, refusal
from vit_jax.data.config import DataConfig
from vit_jax.evaluation.classification import ClassificationConfig
from vit_jax.evaluation.context import EvalContext, config_option
from vit_jax.evaluation.opening import Evaluations, open_evaluations
from vit_jax.inference import passes
from vit_jax.inference.memory import OutOfMemory, ProgramMemory, check_memory
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.training.config import TrainConfig
from vit_jax.training.optimizer import OptimizerConfig
from vit_jax.training.setup import make_evaluations, prepare

MODEL = dataclasses.replace(SMALL, num_classes=10)


def evaluations_of_a_run(data_dir: Path, batch_size: int, micro_batches: int) -> Any:
    config = TrainConfig(
        MODEL,
        DataConfig("digits", data_dir=str(data_dir), batch_size=batch_size, workers=0),
        OptimizerConfig(warmup_steps=1, micro_batches=micro_batches),
        total_steps=4,
        evals={"val": ClassificationConfig("train")},
        mesh=MeshConfig(data=1),
    )
    setup = prepare(config)
    return setup, make_evaluations(setup)


def test_an_evaluation_takes_no_more_memory_than_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as compiled: parameters, batch, and what is computed on the way."""
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    setup, evaluations = evaluations_of_a_run(tmp_path, 4096, 16)
    step = ProgramMemory.of(setup.program.compile())
    found = evaluations.memory(setup.program.state.params)
    assert 0 < found.total <= step.total
    # The images of one micro-batch, not of a batch.
    assert found.arguments < step.arguments / 3
    # All 1,437 at once, as a batch of 4,096 would have them.
    _, whole = evaluations_of_a_run(tmp_path, 4096, 1)
    assert whole.memory(setup.program.state.params).temporaries > 4 * found.temporaries


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    def make(option: Callable[[str, str], str], **options: Any) -> Evaluations:
        context = EvalContext(
            None, dataset="digits", data_dir=str(tmp_path), option=option, batch_size=32
        )
        evals = {"val": ClassificationConfig("test", **options)}
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        return open_evaluations(evals, model=MODEL, mesh=mesh, context=context)

    return make


@pytest.mark.parametrize(
    ("option", "size", "advice"),
    [
        (config_option, {}, "--config.evals.val.batch_size below 32"),
        (config_option, {"batch_size": 8}, "--config.evals.val.batch_size below 8"),
        (lambda name, key: f"--{key}", {}, "--batch_size below 32"),
    ],
)
def test_what_does_not_fit_shows_at_the_start_and_names_the_key(
    option: Callable[[str, str], str],
    size: dict[str, Any],
    advice: str,
    opened: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check(memory: Any, params: Any, mesh: Any) -> None:
        raise OutOfMemory("9.0 GiB of 8.0 GiB")

    monkeypatch.setattr(passes, "check_memory", check)
    message = refusal(opened(option, **size).compile, random_params(MODEL))
    assert "evaluation val" in message and "9.0 GiB of 8.0 GiB" in message and advice in message


class Device:
    """A device that knows its memory, in bytes."""

    device_kind = "toaster"

    def __init__(self, limit: int, in_use: int) -> None:
        self.stats = {"bytes_limit": limit, "bytes_in_use": in_use}

    def memory_stats(self) -> Any:
        return self.stats


class Mesh:
    def __init__(self, *devices: Device) -> None:
        self.local_devices = devices


def test_a_program_must_fit_beside_what_is_in_use() -> None:
    memory = ProgramMemory(arguments=100, temporaries=50, outputs=10)
    shapes = [jax.ShapeDtypeStruct((25,), "float32")]
    check_memory(memory, shapes, Mesh(Device(160, 1000)))
    with pytest.raises(OutOfMemory, match="toaster"):
        check_memory(memory, shapes, Mesh(Device(999, 0), Device(159, 0)))
    # Arrays that are there count once: none of these lies on that device.
    arrays = [jax.numpy.zeros(25)]
    check_memory(memory, arrays, Mesh(Device(200, 40)))
    with pytest.raises(OutOfMemory, match="in use"):
        check_memory(memory, arrays, Mesh(Device(199, 40)))
