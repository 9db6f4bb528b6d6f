"""Checkpoints: what is saved comes back, the newest and the best stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.eight_devices import EightDevices
from tests.programs.sharded_checkpoints import check_moves
from tests.runs.saved_states import (
    SGD,
    assert_same_state,
    draw_state,
    open_checkpoints,
    restore,
    steps_in,
    training_shapes,
)
from vit_jax.errors import UserError
from vit_jax.runs import file_list
from vit_jax.runs.checkpoints import CheckpointConfig
from vit_jax.training.optimizer import OptimizerConfig

ADAM = OptimizerConfig(momentum_dtype="bfloat16", weight_decay=0.1, clip_norm=1.0)
FROZEN = OptimizerConfig(momentum_dtype="bfloat16", weight_decay=0.1, freeze=("(?!head/).*",))


@pytest.mark.parametrize(("optimizer", "average"), [(ADAM, True), (SGD, False), (FROZEN, True)])
def test_what_is_saved_is_restored_bit_for_bit(
    tmp_path: Path, optimizer: Any, average: bool
) -> None:
    shapes = training_shapes(optimizer, average)
    dtypes = {str(x.dtype) for x in jax.tree.leaves(shapes)}
    assert dtypes == {"float32", "bfloat16", "int32"}
    assert (shapes.averaged is not None) == average
    state = draw_state(0, shapes)
    # A sign, a subnormal and the extremes survive as well.
    bias = np.array([-0.0, 0, 1e-45, -1, np.finfo(np.float32).max], np.float32)
    state.params["head"]["bias"] = jax.device_put(bias, jax.devices()[0])
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state)
        checkpoints.wait()
        assert steps_in(tmp_path) == [7]
    step, restored = restore(tmp_path, shapes)
    assert step == 7
    assert_same_state(restored, state)


def test_a_fresh_directory_has_none(tmp_path: Path) -> None:
    assert restore(tmp_path, training_shapes()) is None


def test_the_newest_stay(tmp_path: Path) -> None:
    state = {"w": jnp.arange(4.0)}
    for keep in (1, 3):
        directory = tmp_path / str(keep)
        directory.mkdir()
        with open_checkpoints(directory, keep) as checkpoints:
            for step in (5, 10, 15, 20):
                checkpoints.save(step, state)
        assert steps_in(directory) == [5, 10, 15, 20][-keep:]


def test_the_best_stays_with_the_newest(tmp_path: Path) -> None:
    state, best = {"w": jnp.arange(4.0)}, None
    expected = {
        1: [1],
        2: [1, 2],
        3: [2, 3],
        4: [3, 4],
        5: [3, 4, 5],
        6: [3, 5, 6],
        7: [6, 7],
        8: [7, 8],
        9: [7, 8, 9],
    }
    with open_checkpoints(tmp_path) as checkpoints:
        for step, kept in expected.items():
            best = step if step in (1, 3, 7) else best
            checkpoints.save(step, state, best=best)
            checkpoints.wait()
            assert steps_in(tmp_path) == kept
    like = {"w": jax.ShapeDtypeStruct((4,), jnp.float32)}
    with open_checkpoints(tmp_path) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore_step(7, like)["w"], state["w"])
        assert checkpoints.restore_step(1, like) is None


def test_notes_come_back_and_damaged_ones_are_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, like = {"w": jnp.arange(4.0)}, {"w": jax.ShapeDtypeStruct((4,), jnp.float32)}
    notes = {"best": {"step": 4, "value": 0.1 + 0.2}, "evaluated": ["val"], "nan": float("nan")}
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.save(2, state, notes)
    with open_checkpoints(tmp_path) as checkpoints:
        step, _, found = checkpoints.restore(like)
        assert (step, str(found)) == (2, str(notes))
    (file,) = (tmp_path / "checkpoints/2/notes").glob("metadata")
    file.write_text(file.read_text().replace('"step": 4', '"step": 5'))
    file_list.write(tmp_path / "checkpoints/2")
    with open_checkpoints(tmp_path) as checkpoints:
        step, _, found = checkpoints.restore(like)
        assert (step, found) == (1, {})
    assert "wrong checksum of the notes" in caplog.text


def test_a_save_copies_before_it_returns(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path) as checkpoints:
        array = jax.device_put(np.arange(1000.0, dtype=np.float32))
        checkpoints.save(1, {"w": array})
        array.delete()  # as a donated state is
        checkpoints.wait()
    _, restored = restore(tmp_path, {"w": jax.ShapeDtypeStruct((1000,), jnp.float32)})
    np.testing.assert_array_equal(restored["w"], np.arange(1000.0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_not_finite_is_not_saved(tmp_path: Path, value: Any, dtype: Any) -> None:
    state = {"step": jnp.int32(3), "good": jnp.zeros(9), "bad": {"w": jnp.zeros((3, 4), dtype)}}
    state["bad"]["w"] = state["bad"]["w"].at[2, 3].set(value)
    told = pytest.raises(UserError, match="step 3: bad/w are not finite")
    with open_checkpoints(tmp_path) as checkpoints, told:
        checkpoints.save(3, state)
    assert steps_in(tmp_path) == []


def test_a_save_that_was_killed_is_as_if_it_never_began(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    command = [sys.executable, "-m", "tests.programs.killed_save", str(directory)]
    process = subprocess.run(command, check=False)
    assert process.returncode == -signal.SIGKILL
    (name,) = set(os.listdir(directory)) - {"1"}
    assert name != "2" and name.startswith("2"), "not killed half-way"
    with open_checkpoints(tmp_path) as checkpoints:
        step, state, _ = checkpoints.restore({"w": jax.ShapeDtypeStruct((8, 2**20), jnp.float32)})
        assert step == 1
        expected = np.random.default_rng(0).random((8, 2**20), np.float32)
        np.testing.assert_array_equal(state["w"], expected)
        checkpoints.save(2, state)
    assert steps_in(tmp_path) == [1, 2]
    assert not (tmp_path / "unreadable").exists()


def test_checkpoints_move_between_meshes(tmp_path: Path, eight_devices: EightDevices) -> None:
    eight_devices.run(check_moves, tmp_path / "checkpoints")


@pytest.mark.parametrize("values", [{"every_steps": 0}, {"keep": 0}, {"keep": -1}])
def test_config_of_nothing_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="at least 1"):
        CheckpointConfig(**values)
