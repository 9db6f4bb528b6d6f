import functools
import gc
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Never

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.eight_devices import EightDevices
from tests.programs.sharded_checkpoints import check_moves
from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params
from vit_jax.runs import file_list, reading
from vit_jax.runs.checkpoints import CheckpointConfig, Checkpoints
from vit_jax.runs.checksums import summarize
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from vit_jax.training.step import init_state

# Orbax abandons its other reads when one fails.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _collect() -> Iterator[Any]:
    yield
    gc.collect()  # Here, where the warnings about them are filtered.


ADAM = OptimizerConfig(momentum_dtype="bfloat16", weight_decay=0.1, clip_norm=1.0)
SGD = OptimizerConfig("sgd", momentum_dtype="bfloat16")
FROZEN = OptimizerConfig(momentum_dtype="bfloat16", weight_decay=0.1, freeze=("(?!head/).*",))


def _shapes(optimizer: Any = SGD, average: bool = False) -> Any:
    """A tree of its own for each caller, who may change it."""
    return jax.tree.map(lambda x: x, _traced(optimizer, average))


@functools.cache
def _traced(optimizer: Any, average: bool) -> Any:
    model = ModelConfig("ViT-mu/16", image_size=32, num_classes=3)
    params = abstract_params(model)
    schedule = make_schedule(optimizer, 10)
    optimizer = make_optimizer(optimizer, schedule, params, parameter_table(model))
    shapes = jax.eval_shape(lambda p: init_state(p, optimizer, average=average), params)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)


def _state(seed: int, shapes: Any) -> Any:
    """A training state in which every number is drawn, step and counts included."""
    rng = np.random.default_rng(seed)

    def draw(x: Any) -> Any:
        whole = jnp.issubdtype(x.dtype, jnp.integer)
        values = rng.integers(1, 1000, x.shape) if whole else rng.normal(size=x.shape)
        return jax.device_put(np.asarray(values, x.dtype), x.sharding)

    return jax.tree.map(draw, shapes)


def _assert_same(actual: Any, expected: Any) -> None:
    structures: list[Any] = [jax.tree.structure(tree) for tree in (actual, expected)]
    assert structures[0] == structures[1]
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _open(directory: Path, keep: int = 2, identity: Any = None) -> Any:
    return Checkpoints(directory / "checkpoints", CheckpointConfig(keep=keep), identity)


def _restore(directory: Path, like: Any) -> Any:
    with _open(directory) as checkpoints:
        restored = checkpoints.restore(like)
    return restored and (restored.step, restored.state)


def _steps(directory: Path) -> Any:
    return sorted(int(p.name) for p in (directory / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def states() -> Any:
    shapes = _shapes()
    return {step: _state(step, shapes) for step in (1, 2)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, states: Any) -> Any:
    directory = tmp_path_factory.mktemp("saved")
    with _open(directory) as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, state)
    return directory


@pytest.fixture
def copy(tmp_path: Path, saved: Any) -> Any:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize(("optimizer", "average"), [(ADAM, True), (SGD, False), (FROZEN, True)])
def test_what_is_saved_is_restored_bit_for_bit(
    tmp_path: Path, optimizer: Any, average: bool
) -> None:
    shapes = _shapes(optimizer, average)
    dtypes = {str(x.dtype) for x in jax.tree.leaves(shapes)}
    assert dtypes == {"float32", "bfloat16", "int32"}
    assert (shapes.averaged is not None) == average
    state = _state(0, shapes)
    # A sign, a subnormal and the extremes survive as well.
    bias = np.array([-0.0, 1e-45, np.finfo(np.float32).max], np.float32)
    state.params["head"]["bias"] = jax.device_put(bias, jax.devices()[0])
    with _open(tmp_path) as checkpoints:
        checkpoints.save(7, state)
        checkpoints.wait()
        assert _steps(tmp_path) == [7]
    step, restored = _restore(tmp_path, shapes)
    assert step == 7
    _assert_same(restored, state)


def test_a_fresh_directory_has_none(tmp_path: Path) -> None:
    assert _restore(tmp_path, _shapes()) is None


def test_the_newest_stay(tmp_path: Path) -> None:
    state = {"w": jnp.arange(4.0)}
    for keep in (1, 3):
        directory = tmp_path / str(keep)
        directory.mkdir()
        with _open(directory, keep) as checkpoints:
            for step in (5, 10, 15, 20):
                checkpoints.save(step, state)
        assert _steps(directory) == [5, 10, 15, 20][-keep:]


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
    with _open(tmp_path) as checkpoints:
        for step, kept in expected.items():
            best = step if step in (1, 3, 7) else best
            checkpoints.save(step, state, best=best)
            checkpoints.wait()
            assert _steps(tmp_path) == kept
    like = {"w": jax.ShapeDtypeStruct((4,), jnp.float32)}
    with _open(tmp_path) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore_step(7, like)["w"], state["w"])
        assert checkpoints.restore_step(1, like) is None


def test_notes_come_back_and_damaged_ones_are_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, like = {"w": jnp.arange(4.0)}, {"w": jax.ShapeDtypeStruct((4,), jnp.float32)}
    notes = {"best": {"step": 4, "value": 0.1 + 0.2}, "evaluated": ["val"], "nan": float("nan")}
    with _open(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.save(2, state, notes)
    with _open(tmp_path) as checkpoints:
        step, _, found = checkpoints.restore(like)
        assert (step, str(found)) == (2, str(notes))
    (file,) = (tmp_path / "checkpoints/2/notes").glob("metadata")
    file.write_text(file.read_text().replace('"step": 4', '"step": 5'))
    file_list.write(tmp_path / "checkpoints/2")
    with _open(tmp_path) as checkpoints:
        step, _, found = checkpoints.restore(like)
        assert (step, found) == (1, {})
    assert "wrong checksum of the notes" in caplog.text


def test_a_save_copies_before_it_returns(tmp_path: Path) -> None:
    with _open(tmp_path) as checkpoints:
        array = jax.device_put(np.arange(1000.0, dtype=np.float32))
        checkpoints.save(1, {"w": array})
        array.delete()  # as a donated state is
        checkpoints.wait()
    _, restored = _restore(tmp_path, {"w": jax.ShapeDtypeStruct((1000,), jnp.float32)})
    np.testing.assert_array_equal(restored["w"], np.arange(1000.0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_not_finite_is_not_saved(tmp_path: Path, value: Any, dtype: Any) -> None:
    state = {"step": jnp.int32(3), "good": jnp.zeros(9), "bad": {"w": jnp.zeros((3, 4), dtype)}}
    state["bad"]["w"] = state["bad"]["w"].at[2, 3].set(value)
    told = pytest.raises(UserError, match="step 3: bad/w are not finite")
    with _open(tmp_path) as checkpoints, told:
        checkpoints.save(3, state)
    assert _steps(tmp_path) == []


# Damage.


def _check(directory: Path, states: Any, caplog: pytest.LogCaptureFixture) -> Any:
    """Restores after damage to step 2: its exact values, or step 1 and a word about it."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "vit_jax"):
        step, state = _restore(directory, _shapes())
    _assert_same(state, states[step])
    words = [r.getMessage() for r in caplog.records if r.name.startswith("vit_jax")]
    if step == 1:
        assert len(words) == 1 and "checkpoint of step 2 is broken: " in words[0]
        assert (directory / "unreadable" / "2").is_dir()
        assert _steps(directory) == [1]
    else:
        assert words == [] and not (directory / "unreadable").exists()
    return step


def _files(directory: Path) -> Any:
    files = (directory / "checkpoints" / "2").rglob("*")
    return sorted(p.relative_to(directory) for p in files if p.is_file() and p.stat().st_size)


def _damage_each(
    directory: Path, saved: Any, states: Any, caplog: pytest.LogCaptureFixture, damages: Any
) -> Any:
    """Applies each damage to a copy; the steps that were restored."""
    steps = []
    for i, (file, damage) in enumerate(damages):
        copied = directory / str(i)
        shutil.copytree(saved, copied)
        damage(copied / file)
        steps.append(_check(copied, states, caplog))
        shutil.rmtree(copied)
    return steps


def _flip(position: Any, bit: Any) -> Any:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(position * len(data))] ^= 1 << bit
        path.write_bytes(data)

    return damage


def test_a_flipped_bit_is_found_or_harmless(
    tmp_path: Path, saved: Any, states: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(0)
    files = _files(saved)
    largest = max(files, key=lambda file: (saved / file).stat().st_size)
    anywhere = [(file, _flip(rng.random(), rng.randrange(8))) for file in files]
    _damage_each(tmp_path, saved, states, caplog, anywhere)
    # Most of the largest file is arrays, where nothing may be harmless; its end may be nodes of
    # the store's tree that later ones have replaced.
    in_arrays = [(largest, _flip(0.05 + 0.85 * rng.random(), bit)) for bit in range(0, 8, 2)]
    assert _damage_each(tmp_path, saved, states, caplog, in_arrays) == [1] * 4


def test_truncated_and_deleted_files_are_found_or_harmless(
    tmp_path: Path, saved: Any, states: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def halve(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    files = sorted(_files(saved), key=lambda file: -(saved / file).stat().st_size)
    damages = [(file, damage) for damage in (halve, os.remove) for file in files[:6]]
    steps = _damage_each(tmp_path, saved, states, caplog, damages)
    assert steps[0] == steps[6] == 1


@pytest.mark.parametrize("part", ["state", "checksums"])
def test_a_missing_part_is_found(
    copy: Any, states: Any, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    shutil.rmtree(copy / "checkpoints" / "2" / part)
    assert _check(copy, states, caplog) == 1


def test_exchanged_arrays_are_found(
    copy: Any, states: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("state", "checksums"):
        shutil.rmtree(copy / "checkpoints" / "2" / name)
    shutil.copytree(copy / "checkpoints" / "1" / "state", copy / "checkpoints" / "2" / "state")
    metadata = copy / "checkpoints" / "2" / "checksums"
    with _open(copy / "other") as checkpoints:
        checkpoints.save(2, states[2])
    shutil.copytree(copy / "other" / "checkpoints" / "2" / "checksums", metadata)
    file_list.write(copy / "checkpoints" / "2")
    assert _check(copy, states, caplog) == 1
    assert "wrong checksum of step, params/" in caplog.text


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


# Each leaves something that is not the file that was saved.
DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "another's": lambda path: path.write_bytes(b"{}"),
    "a directory": lambda path: _replace(path, Path.mkdir),
    "a FIFO": lambda path: _replace(path, os.mkfifo),
    "a dangling link": lambda path: _replace(path, lambda p: p.symlink_to("/absent")),
    "an endless device": lambda path: _replace(path, lambda p: p.symlink_to("/dev/zero")),
}
# Orbax completes these after the list of files is written.
UNLISTED = {"_CHECKPOINT_METADATA", "commit_success.txt"}


@pytest.mark.parametrize("kind", DAMAGES)
def test_no_file_of_a_checkpoint_may_be_damaged(
    tmp_path: Path, copy: Any, states: Any, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    directory = copy / "checkpoints/2"
    names = [str(file.relative_to("checkpoints/2")) for file in _files(copy)]
    assert {"files.json", "state/_METADATA", "state/array_metadatas/process_0"} <= set(names)
    for name in sorted(set(names) - UNLISTED - {"files.json"}):
        shutil.copytree(directory, tmp_path / "damaged")
        DAMAGES[kind](tmp_path / "damaged" / name)
        with pytest.raises(file_list.DamagedError, match=name):
            file_list.check(tmp_path / "damaged")
        shutil.rmtree(tmp_path / "damaged")
    assert file_list.check(directory)
    DAMAGES[kind](directory / "files.json")
    assert _check(copy, states, caplog) == (2 if kind == "longer" else 1)


@pytest.mark.parametrize("kind", ["a FIFO", "an endless device", "emptied"])
def test_a_file_that_only_orbax_reads_may_be_anything(
    copy: Any, states: Any, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    DAMAGES[kind](copy / "checkpoints/2/_CHECKPOINT_METADATA")
    assert _check(copy, states, caplog) == (2 if kind == "emptied" else 1)


def test_files_of_another_checkpoint_are_found(
    copy: Any, saved: Any, states: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("notes/metadata", "files.json"):
        shutil.copy(saved / "checkpoints/1" / name, copy / "checkpoints/2" / name)
        assert _check(copy, states, caplog) == 1
        shutil.rmtree(copy)
        shutil.copytree(saved, copy)


@pytest.mark.parametrize(("made", "taken"), [("checkpoints/1", 3), ("checkpoints/2", 5)])
def test_a_renamed_checkpoint_is_not_taken_for_another_step(
    copy: Any, states: Any, caplog: pytest.LogCaptureFixture, made: str, taken: int
) -> None:
    shutil.copytree(copy / made, copy / "checkpoints" / str(taken))
    step, state = _restore(copy, _shapes())
    assert step == 2
    _assert_same(state, states[2])
    assert f"step {taken} is broken: it is that of step {made[-1]}" in caplog.text


@pytest.mark.parametrize("what", ["run", "config"])
def test_a_checkpoint_of_another_run_is_not_restored(
    tmp_path: Path, states: Any, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    own = {"run": "a", "config": "b"}
    with _open(tmp_path, identity=own) as checkpoints:
        checkpoints.save(1, states[1])
    with _open(tmp_path / "other", identity=own | {what: "c"}) as checkpoints:
        checkpoints.save(2, states[2])
    shutil.copytree(tmp_path / "other/checkpoints/2", tmp_path / "checkpoints/2")
    with _open(tmp_path, identity=own) as checkpoints:
        assert checkpoints.restore_step(2, _shapes()) is None
        assert checkpoints.restore(_shapes()).step == 1
    assert f"step 2 is broken: it is that of another {what}" in caplog.text
    shutil.rmtree(tmp_path / "checkpoints/1")
    shutil.copytree(tmp_path / "other/checkpoints/2", tmp_path / "checkpoints/2")
    with _open(tmp_path, identity=own) as checkpoints, pytest.raises(UserError) as refused:
        checkpoints.restore(_shapes())
    assert f"it is that of another {what}" in str(refused.value)


def test_a_stranger_among_the_checkpoints_is_moved_aside(copy: Any) -> None:
    (copy / "checkpoints/7").write_bytes(b"")
    os.mkfifo(copy / "checkpoints/8")
    (copy / "checkpoints/9").symlink_to("/absent")
    assert _restore(copy, _shapes())[0] == 2


def test_an_empty_directory_of_a_step_is_found(
    copy: Any, states: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(copy / "checkpoints" / "2")
    (copy / "checkpoints" / "2").mkdir()
    assert _check(copy, states, caplog) == 1


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere"), Path.touch])
def test_what_is_no_directory_under_a_steps_name_is_moved_aside(
    copy: Any, states: Any, caplog: pytest.LogCaptureFixture, make: Any
) -> None:
    shutil.rmtree(copy / "checkpoints/2")
    make(copy / "checkpoints/2")
    with _open(copy) as checkpoints:
        step, state, _ = checkpoints.restore(_shapes())
        assert step == 1
        _assert_same(state, states[1])
        checkpoints.save(2, states[2])
    assert "checkpoint of step 2 is broken: it is no directory" in caplog.text
    assert _restore(copy, _shapes())[0] == 2
    assert os.path.lexists(copy / "unreadable/2")


def test_what_is_no_directory_is_not_moved_when_it_is_all(copy: Any) -> None:
    for step in ("1", "2"):
        shutil.rmtree(copy / "checkpoints" / step)
        os.mkfifo(copy / "checkpoints" / step)
    for _ in range(2):
        with pytest.raises(UserError, match="is no directory, and there is no other checkpoint"):
            _open(copy)


def test_a_step_that_was_moved_aside_is_saved_anew(copy: Any, states: Any) -> None:
    for _ in range(2):
        shutil.rmtree(copy / "checkpoints" / "2" / "state")
        with _open(copy) as checkpoints:
            step, state, _ = checkpoints.restore(_shapes())
            assert step == 1
            checkpoints.save(2, states[2])
        _assert_same(state, states[1])
        step, state = _restore(copy, _shapes())
        assert step == 2
        _assert_same(state, states[2])
    assert len(list((copy / "unreadable").iterdir())) == 2


def test_nothing_is_moved_when_none_is_whole(copy: Any) -> None:
    for step in ("1", "2"):
        shutil.rmtree(copy / "checkpoints" / step / "state")
    for _ in range(2):
        with pytest.raises(UserError, match=r"none of the checkpoints \(steps \[1, 2\]\) is whole"):
            _restore(copy, _shapes())
    assert _steps(copy) == [1, 2]


def test_a_device_that_is_too_small_breaks_no_checkpoint(
    copy: Any, states: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(directory: Path, like: Any) -> Never:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(reading, "_read", read)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
        _restore(copy, _shapes())
    monkeypatch.undo()
    assert _restore(copy, _shapes())[0] == max(states)


def test_another_model_does_not_fit(copy: Any) -> None:
    like = _shapes()
    like.params["head"]["kernel"] = jax.ShapeDtypeStruct((32, 4), jnp.float32)
    with pytest.raises(UserError, match="none of the checkpoints"):
        _restore(copy, like)
    assert _steps(copy) == [1, 2]


def test_a_save_that_was_killed_is_as_if_it_never_began(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    command = [sys.executable, "-m", "tests.programs.killed_save", str(directory)]
    process = subprocess.run(command, check=False)
    assert process.returncode == -signal.SIGKILL
    (name,) = set(os.listdir(directory)) - {"1"}
    assert name != "2" and name.startswith("2"), "not killed half-way"
    with _open(tmp_path) as checkpoints:
        step, state, _ = checkpoints.restore({"w": jax.ShapeDtypeStruct((8, 2**20), jnp.float32)})
        assert step == 1
        expected = np.random.default_rng(0).random((8, 2**20), np.float32)
        np.testing.assert_array_equal(state["w"], expected)
        checkpoints.save(2, state)
    assert _steps(tmp_path) == [1, 2]
    assert not (tmp_path / "unreadable").exists()


# Checksums.


def _checksums(*arrays: Any) -> Any:
    return np.asarray(summarize(list(arrays))[0])


@pytest.mark.parametrize("dtype", [np.float32, np.int32, jnp.bfloat16])
def test_any_bit_of_any_word_counts(dtype: Any) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(dtype)
    bits = 8 * x.dtype.itemsize
    seen = {tuple(_checksums(x)[0])}
    words = x.view(f"uint{bits}")
    for index in np.ndindex(x.shape):
        for bit in range(bits):
            flipped = words.copy()
            flipped[index] ^= words.dtype.type(1 << bit)
            seen.add(tuple(_checksums(flipped.view(x.dtype))[0]))
    assert len(seen) == 1 + 15 * bits


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_changes_that_could_cancel_count(dtype: Any) -> None:
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(dtype)
    words = x.view(f"uint{8 * x.dtype.itemsize}")
    changed = {
        "same": x,
        "negated": -x,
        "one row negated": x * np.array([[1], [-1], [1], [1]], dtype),
        "all lowest bits": (words ^ words.dtype.type(1)).view(x.dtype),
        "reversed": x[::-1, ::-1],
        "rows rolled": np.roll(x, 1, axis=0),
        "columns rolled": np.roll(x, 1, axis=1),
        "zeros": np.zeros_like(x),
        "negative zeros": -np.zeros_like(x),
    }
    for i in range(1, x.size):
        swapped = x.copy().reshape(-1)
        swapped[[0, i]] = swapped[[i, 0]]
        changed[f"0 and {i} swapped"] = swapped.reshape(x.shape)
    checksums = _checksums(*changed.values())
    assert len({tuple(c) for c in checksums.tolist()}) == len(changed)
    # Each sum tells them apart on its own.
    assert [len(set(c)) for c in checksums.T.tolist()] == [len(changed)] * 2


def test_checkpoints_move_between_meshes(tmp_path: Path, eight_devices: EightDevices) -> None:
    eight_devices.run(check_moves, tmp_path / "checkpoints")


@pytest.mark.parametrize("values", [{"every_steps": 0}, {"keep": 0}, {"keep": -1}])
def test_config_of_nothing_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="at least 1"):
        CheckpointConfig(**values)
