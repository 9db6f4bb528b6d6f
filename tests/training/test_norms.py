"""Norms by part of the model, against NumPy's over the arrays of each part."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

import vit_jax
from tests.eight_devices import EightDevices
from tests.small_models import refusal
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import make_loader, prepare

STEPS = 4
# By the paths of names in the tree of parameters.
PARTS = {
    "embedding": "stem",
    "cls": "token",
    "pos_embedding": "position",
    "norm": "norm",
    "head": "head",
}


def values(data_dir: Path, **more: Any) -> dict[str, Any]:
    return {
        "model": {"name": "ViT-mu/8", "image_size": 16, "depth": 2},
        "data": {"dataset": "digits", "data_dir": str(data_dir), "batch_size": 8, "workers": 0},
        # The head starts at zero: until it has moved, nothing before it has a gradient.
        "optimizer": {"lr": 0.1, "name": "sgd", "schedule": "constant"},
        "total_steps": STEPS,
        "log_every": 2,
        "log_norms": True,
        "callbacks": (),
        **more,
    }


def by_part(tree: Any) -> dict[str, float]:
    squares: dict[str, float] = {}
    for path, leaf in traverse_util.flatten_dict(jax.device_get(tree), sep="/").items():
        array = np.asarray(leaf, np.float64)
        name = path.split("/")[0]
        pieces = (
            {f"block_{i:02}": block for i, block in enumerate(array)}
            if name == "blocks"
            else {PARTS[name]: array}
        )
        for part, piece in pieces.items():
            squares[part] = squares.get(part, 0.0) + float((piece**2).sum())
    return {part: square**0.5 for part, square in squares.items()}


def logged(workdir: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {
        line["step"]: {k: v for k, v in line.items() if k.startswith("norms/")}
        for line in lines
        if "train/loss" in line
    }


def train(config: dict[str, Any], workdir: Path) -> None:
    vit_jax.train(config, workdir)


def test_norms_of_each_part_and_block_are_numpys(tmp_path: Path) -> None:
    config = values(tmp_path)
    train(config, tmp_path / "run")
    setup = prepare(build(TrainConfig, config | {"log_norms": False}))
    step, state = setup.program.step(), setup.program.start()
    assert list(logged(tmp_path / "run")) == [2, 4]
    with make_loader(setup, 0) as loader:
        for number, batch in enumerate(loader, 1):
            before = jax.device_get(state.params)
            state, metrics = step(state, batch, ())
            if number % 2:
                continue
            norms = logged(tmp_path / "run")[number]
            moved = jax.tree.map(lambda a, b: np.asarray(b) - a, before, state.params)
            expected = {
                **{f"norms/param/{part}": value for part, value in by_part(before).items()},
                **{f"norms/update/{part}": value for part, value in by_part(moved).items()},
            }
            grads = {name: norms.pop(name) for name in list(norms) if "/grad/" in name}
            assert norms == pytest.approx(expected, rel=1e-3, abs=1e-6)
            assert list(norms)[:7] == [
                f"norms/param/{part}"
                for part in ("stem", "token", "position", "block_00", "block_01", "norm", "head")
            ]
            # All of them together are `train/grad_norm`.
            total = sum(value**2 for value in grads.values()) ** 0.5
            assert total == pytest.approx(float(metrics["grad_norm"]), rel=1e-4)
            assert min(grads.values()) > 0


def test_the_gradient_is_the_update_of_plain_descent(tmp_path: Path) -> None:
    plain = {"lr": 0.5, "name": "sgd", "momentum": 0.0, "schedule": "constant"}
    config = values(tmp_path, optimizer=plain, log_every=1)
    train(config, tmp_path / "run")
    for norms in logged(tmp_path / "run").values():
        for name, value in norms.items():
            if "/update/" in name:
                grad = norms[name.replace("update", "grad")]
                assert value == pytest.approx(0.5 * grad, rel=1e-4, abs=1e-8)


def test_frozen_parameters_have_no_gradient(tmp_path: Path) -> None:
    frozen = {"lr": 0.1, "name": "sgd", "freeze": ("embedding/.*", "blocks/0/.*")}
    train(values(tmp_path, optimizer=frozen), tmp_path / "run")
    norms = logged(tmp_path / "run")[STEPS]
    for part in ("stem", "block_00"):
        assert norms[f"norms/grad/{part}"] == norms[f"norms/update/{part}"] == 0
        assert norms[f"norms/param/{part}"] > 0
    assert norms["norms/grad/block_01"] > 0


@pytest.mark.parametrize(
    ("mesh", "model"),
    [
        ({"data": 8}, {}),
        ({"fsdp": 8, "data": 1}, {"width": 64, "mlp_dim": 128}),
        ({"tensor": 2, "fsdp": 2, "data": 2}, {"scan": False, "remat": "block"}),
    ],
)
def test_meshes_log_the_norms_of_one_device(
    mesh: dict[str, int], model: dict[str, Any], tmp_path: Path, eight_devices: EightDevices
) -> None:
    config = values(tmp_path)
    config["model"] = config["model"] | model
    train(config, tmp_path / "one")
    eight_devices.run(train, config | {"mesh": mesh}, tmp_path / "eight")
    expected = logged(tmp_path / "one")
    assert expected[STEPS] and len(expected[STEPS]) == 21
    for step, norms in logged(tmp_path / "eight").items():
        assert norms == pytest.approx(expected[step], rel=1e-3, abs=1e-5)


def test_nothing_is_computed_where_it_is_not_asked_for(tmp_path: Path) -> None:
    setup = prepare(build(TrainConfig, values(tmp_path, log_norms=False)))
    program = setup.program
    _, metrics = jax.eval_shape(program.step(), program.state, program.batch, program.fixed)
    assert "loss" in metrics and "norms" not in metrics
    config = values(tmp_path, evals={"norms": {"split": "test"}})
    assert "the name is taken" in refusal(build, TrainConfig, config)
