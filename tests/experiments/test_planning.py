"""What a step needs, without compiling it: against XLA's counts, closed forms and simulations."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from tests.eight_devices import EightDevices
from tests.small_models import refusal
from vit_jax.__main__ import main
from vit_jax.analysis.activations import block_bytes
from vit_jax.experiments.planning import compiling, settings
from vit_jax.experiments.planning.compiling import Compiled, TooLarge, compile_step
from vit_jax.experiments.planning.costs import Duration
from vit_jax.experiments.planning.memory import Placed
from vit_jax.experiments.planning.plan import make_plan
from vit_jax.experiments.planning.tracing import _padding, trace
from vit_jax.experiments.sized import open_sized
from vit_jax.experiments.synthetic import synthetic_program
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.parallel.topologies import topology_devices
from vit_jax.runs.cost import Hardware
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig, as_values
from vit_jax.training.program import Program

SMALL = {"depth": 2, "width": 64, "mlp_dim": 128, "num_heads": 4, "image_size": 32}
FLAGS = [f"--config.model.{key}={value}" for key, value in SMALL.items()]
CONFIG = "configs/pretrain.py:b16,imagenet"


def step(name: str = "ViT-S/16", batch_size: int = 8, **options: Any) -> Program:
    return synthetic_program(
        name, batch_size, MeshConfig(), jax.devices()[:1], dtype="bfloat16", **options
    )


@pytest.mark.parametrize("remat", ["none", "dots", "block"])
def test_operations_are_those_of_the_unrolled_program(remat: str) -> None:
    """XLA's count holds norms and softmax too, which are 1 % where blocks are few and narrow."""
    program = step("ViT-B/16", depth=2, remat=remat, scan=False)
    counted = program.step().lower(program.state, program.batch, program.fixed).cost_analysis()
    flops = trace(program.config, None, jax.devices()[0]).flops * 8
    assert flops == pytest.approx(counted["flops"], rel=0.01)


@pytest.mark.parametrize("remat", ["dots", "block"])
def test_what_is_kept_is_what_the_policy_says(remat: str) -> None:
    config = step(depth=2, remat=remat).config
    traced = trace(config, None, jax.devices()[0])
    block = block_bytes(config.model)["blocks"]
    # "dots" keeps some more: the mixture of values before it is put in order.
    assert 1 <= traced.kept_blocks / 2 / block <= (1.15 if remat == "dots" else 1)
    # Hidden units; the attention's scores are smaller, in the type of the activations.
    assert traced.largest == traced.widest == 197 * 1536 * 2


def test_dropout_keeps_more() -> None:
    without, dropped = (
        trace(step(depth=2, dropout=rate).config, None, jax.devices()[0]) for rate in (0.0, 0.1)
    )
    # A byte for each number of the masks: two of the tokens, one of the hidden units.
    assert dropped.kept_blocks - without.kept_blocks >= 2 * 197 * (2 * 384 + 1536)


def test_tiles_of_a_tpu_pad_what_fills_them_least() -> None:
    assert _padding([12, 197, 1536]) == 200 / 197
    assert _padding([12, 6, 197, 197]) == pytest.approx(256 / 197 * 200 / 197)
    assert _padding([12, 197, 6, 64]) == pytest.approx(256 / 197)
    assert _padding([1]) == 1.0


def placed_on_eight() -> list[int]:
    """Bytes of a device with parameters whole and split."""
    sizes = []
    for mesh in (MeshConfig(), MeshConfig(data=1, fsdp=8)):
        program = synthetic_program("ViT-S/16", 8, mesh, depth=2)
        placed = Placed.of(program)
        sizes += [placed.parameters, placed.optimizer, placed.batch]
    return sizes


def test_parameters_and_moments_of_a_device(eight_devices: EightDevices) -> None:
    whole, moments, batch, split, split_moments, _ = eight_devices.run(placed_on_eight)
    # 4 bytes a parameter, 2 for its first moment and 4 for its second one.
    assert moments == pytest.approx(1.5 * whole, rel=1e-4)
    # Small arrays stay whole.
    assert 1 / 8 <= split / whole <= 1.1 / 8 and 1 / 8 <= split_moments / moments <= 1.1 / 8
    assert batch == 224 * 224 * 3 + 8


def planned_on_eight(available: float, *, search: bool) -> dict[str, Any]:
    """A plan for devices that would have so much memory."""
    values = as_values(CONFIG)
    values["model"] |= SMALL | {"image_size": 64}
    values["data"]["batch_size"] = 4096
    config, source, _, _ = open_sized(build(TrainConfig, values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "memory_bytes", lambda device: available)
        plan = make_plan(config, source, jax.devices(), mfu=0.4, search=search)
    fitting = plan.fitting
    return {
        "own": plan.own.memory.peak,
        "tried": len(plan.tried),
        "flags": None if fitting is None else fitting.candidate.setting.flags(plan.own.setting),
        "fits": [tried.fits for tried in plan.tried],
        "remedies": [each.setting.flags(plan.own.setting) for each in plan.remedies],
        "ranked": plan.ranked,
        "skipped": plan.skipped,
    }


def test_what_would_make_it_fit(eight_devices: EightDevices) -> None:
    roomy = eight_devices.run(planned_on_eight, 2.0**40, search=False)
    assert (roomy["tried"], roomy["flags"], roomy["remedies"]) == (1, "", [])
    tight = eight_devices.run(planned_on_eight, 0.9 * roomy["own"], search=False)
    assert tight["fits"][0] is False
    assert "--config.model.remat=block" in tight["remedies"][0]
    assert "--config.optimizer.micro_batches=" in tight["remedies"][-1]
    assert tight["ranked"] > tight["skipped"] >= tight["ranked"] - 2


def test_a_search_compiles_five_at_most(eight_devices: EightDevices) -> None:
    found = eight_devices.run(planned_on_eight, 1.0, search=True)
    assert (found["tried"], found["flags"], found["ranked"]) == (0, None, 0)
    found = eight_devices.run(planned_on_eight, 2.0**40, search=True)
    assert (found["tried"], found["flags"]) == (1, "")
    # remat of three kinds, fsdp of 1, 2, 4 and 8, micro-batches of 1 to 512.
    assert found["ranked"] == 3 * 4 * 10 and found["skipped"] == found["ranked"] - 1


def test_the_compiler_s_refusal_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    told = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (28.28G) exceeds available HBM (15.75G)."
    )

    def refuse(message: str) -> Any:
        def compile(*_: Any) -> Any:
            raise jax.errors.JaxRuntimeError(message)

        lowered = SimpleNamespace(compile=compile)
        wrapped = SimpleNamespace(lower=lambda *_: lowered)
        monkeypatch.setattr(Program, "step", lambda self: wrapped)
        return compile_step(program)

    program = step(**SMALL)
    result = refuse(told)
    assert isinstance(result, TooLarge)
    assert (result.needed, result.available) == (round(28.28 * 2**30), 15.75 * 2**30)
    used = compiling._too_large("RESOURCE_EXHAUSTED: Used 17.5G of 15.75G hbm. Exceeded by", 1)
    assert used == TooLarge(round(17.5 * 2**30), round(15.75 * 2**30), 1)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        refuse("INTERNAL: a fault of the compiler")


def test_durations_count_devices_and_cores() -> None:
    # 86,400 steps of half a second on 8 devices of 2 cores each.
    found = Duration.of(0.5, 86_400, Hardware("TPU v4", 8, 16))
    assert found == Duration(0.5, days=0.5, device_hours=96, core_days=8)


def test_the_command_needs_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    flags = [f"--config={CONFIG}", *FLAGS, "--config.data.batch_size=8"]
    assert main(["plan", *flags, f"--output={file}"]) == 0
    printed = capsys.readouterr().out
    assert "it fits 1 x cpu as it is" in printed
    assert "no published peak of cpu" in printed
    stored = json.loads(file.read_text())
    # 300 epochs of 1,268,355 images in batches of 8 (99 % of ImageNet).
    assert stored["total_steps"] == pytest.approx(300 * 0.99 * 1_281_167 / 8, rel=1e-5)
    parameters = stored["own"]["memory"]["parameters"]
    # Two blocks; patches, positions and class token; the norm and the representation; the head.
    blocks = 2 * (4 * 64 * 65 + 64 * 128 * 2 + 128 + 64 + 4 * 64)
    rest = 769 * 64 + 5 * 64 + 64 + 2 * 64 + 65 * 768 + 769 * 1000
    assert parameters == 4 * (blocks + rest)
    tried = stored["tried"][0]
    assert tried["fits"] and tried["result"]["peak"] > tried["result"]["arguments"] > parameters


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--mfu=1.5",), "'1.5' must be above 0 and at most 1, such as 0.4"),
        (("--topology=h100:8x",), "no GPU topology 'h100:8x'; write the GPUs of a host"),
        (("--config.mesh.fsdp=3",), "does not divide the 1 devices"),
    ],
)
def test_refusals(flags: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", f"--config={CONFIG}", *FLAGS, *flags]) == 2
    printed = capsys.readouterr().err
    assert told in printed and len(printed.splitlines()[-1:]) == 1


def test_an_absent_compiler_is_named() -> None:
    told = refusal(topology_devices, "v5e:2x2")
    assert told.startswith("no TPU topology 'v5e:2x2' to compile for")
    assert "install it with the extra 'tpu'" in told


@pytest.mark.skipif(importlib.util.find_spec("jax_plugins") is None, reason="needs the extra cuda")
def test_a_step_for_gpus_that_are_absent() -> None:
    devices = topology_devices("h100:2x4")
    assert len(devices) == 8 and {d.device_kind for d in devices} == {"NVIDIA H100 80GB HBM3"}
    options: Any = SMALL | {"dtype": "bfloat16"}
    program = synthetic_program("ViT-S/16", 64, MeshConfig(), devices, **options)
    compiled = compile_step(program)
    assert isinstance(compiled, Compiled)
    # The gradients of all parameters, in float32 or bfloat16, go through all-reduces.
    parameters = Placed.of(program).parameters
    assert parameters / 2 <= compiled.sent["all-reduce"].bytes <= 1.1 * parameters
    assert compiled.peak > compiled.arguments > 2.5 * parameters
