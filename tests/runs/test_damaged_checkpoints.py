"""Damaged, exchanged and strange checkpoints: none is taken for what was saved."""

import gc
import logging
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Never

import jax
import jax.numpy as jnp
import pytest

from tests.runs.saved_states import (
    assert_same_state,
    draw_state,
    open_checkpoints,
    restore,
    steps_in,
    training_shapes,
)
from vit_jax.errors import UserError
from vit_jax.runs import file_list, reading

# Orbax abandons its other reads when one fails.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _collect() -> Iterator[Any]:
    yield
    gc.collect()  # Here, where the warnings about them are filtered.


@pytest.fixture(scope="module")
def states() -> Any:
    shapes = training_shapes()
    return {step: draw_state(step, shapes) for step in (1, 2)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, states: Any) -> Any:
    directory = tmp_path_factory.mktemp("saved")
    with open_checkpoints(directory) as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, state)
    return directory


@pytest.fixture
def copy(tmp_path: Path, saved: Any) -> Any:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path


def _check(directory: Path, states: Any, caplog: pytest.LogCaptureFixture) -> Any:
    """Restores after damage to step 2: its exact values, or step 1 and a word about it."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "vit_jax"):
        step, state = restore(directory, training_shapes())
    assert_same_state(state, states[step])
    words = [r.getMessage() for r in caplog.records if r.name.startswith("vit_jax")]
    if step == 1:
        assert len(words) == 1 and "checkpoint of step 2 is broken: " in words[0]
        assert (directory / "unreadable" / "2").is_dir()
        assert steps_in(directory) == [1]
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
    with open_checkpoints(copy / "other") as checkpoints:
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
    step, state = restore(copy, training_shapes())
    assert step == 2
    assert_same_state(state, states[2])
    assert f"step {taken} is broken: it is that of step {made[-1]}" in caplog.text


@pytest.mark.parametrize("what", ["run", "config"])
def test_a_checkpoint_of_another_run_is_not_restored(
    tmp_path: Path, states: Any, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    own = {"run": "a", "config": "b"}
    with open_checkpoints(tmp_path, identity=own) as checkpoints:
        checkpoints.save(1, states[1])
    with open_checkpoints(tmp_path / "other", identity=own | {what: "c"}) as checkpoints:
        checkpoints.save(2, states[2])
    shutil.copytree(tmp_path / "other/checkpoints/2", tmp_path / "checkpoints/2")
    with open_checkpoints(tmp_path, identity=own) as checkpoints:
        assert checkpoints.restore_step(2, training_shapes()) is None
        assert checkpoints.restore(training_shapes()).step == 1
    assert f"step 2 is broken: it is that of another {what}" in caplog.text
    shutil.rmtree(tmp_path / "checkpoints/1")
    shutil.copytree(tmp_path / "other/checkpoints/2", tmp_path / "checkpoints/2")
    with (
        open_checkpoints(tmp_path, identity=own) as checkpoints,
        pytest.raises(UserError) as refused,
    ):
        checkpoints.restore(training_shapes())
    assert f"it is that of another {what}" in str(refused.value)


def test_a_stranger_among_the_checkpoints_is_moved_aside(copy: Any) -> None:
    (copy / "checkpoints/7").write_bytes(b"")
    os.mkfifo(copy / "checkpoints/8")
    (copy / "checkpoints/9").symlink_to("/absent")
    assert restore(copy, training_shapes())[0] == 2


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
    with open_checkpoints(copy) as checkpoints:
        step, state, _ = checkpoints.restore(training_shapes())
        assert step == 1
        assert_same_state(state, states[1])
        checkpoints.save(2, states[2])
    assert "checkpoint of step 2 is broken: it is no directory" in caplog.text
    assert restore(copy, training_shapes())[0] == 2
    assert os.path.lexists(copy / "unreadable/2")


def test_what_is_no_directory_is_not_moved_when_it_is_all(copy: Any) -> None:
    for step in ("1", "2"):
        shutil.rmtree(copy / "checkpoints" / step)
        os.mkfifo(copy / "checkpoints" / step)
    for _ in range(2):
        with pytest.raises(UserError, match="is no directory, and there is no other checkpoint"):
            open_checkpoints(copy)


def test_a_step_that_was_moved_aside_is_saved_anew(copy: Any, states: Any) -> None:
    for _ in range(2):
        shutil.rmtree(copy / "checkpoints" / "2" / "state")
        with open_checkpoints(copy) as checkpoints:
            step, state, _ = checkpoints.restore(training_shapes())
            assert step == 1
            checkpoints.save(2, states[2])
        assert_same_state(state, states[1])
        step, state = restore(copy, training_shapes())
        assert step == 2
        assert_same_state(state, states[2])
    assert len(list((copy / "unreadable").iterdir())) == 2


def test_nothing_is_moved_when_none_is_whole(copy: Any) -> None:
    for step in ("1", "2"):
        shutil.rmtree(copy / "checkpoints" / step / "state")
    for _ in range(2):
        with pytest.raises(UserError, match=r"none of the checkpoints \(steps \[1, 2\]\) is whole"):
            restore(copy, training_shapes())
    assert steps_in(copy) == [1, 2]


def test_a_device_that_is_too_small_breaks_no_checkpoint(
    copy: Any, states: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(directory: Path, like: Any) -> Never:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(reading, "_read", read)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
        restore(copy, training_shapes())
    monkeypatch.undo()
    assert restore(copy, training_shapes())[0] == max(states)


def test_another_model_does_not_fit(copy: Any) -> None:
    like = training_shapes()
    like.params["head"]["kernel"] = jax.ShapeDtypeStruct((32, 4), jnp.float32)
    with pytest.raises(UserError, match="none of the checkpoints"):
        restore(copy, like)
    assert steps_in(copy) == [1, 2]
