import copy
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Never

import jax
import pytest

import vit_jax
from vit_jax import atomic
from vit_jax.errors import UserError
from vit_jax.runs.config_file import read_config
from vit_jax.runs.directory import RunDirectory

CONFIG: dict[str, Any] = {
    "model": {"name": "ViT-B/16", "image_size": (224, 224), "num_classes": None},
    "data": {"dataset": "digits", "batch_size": 64, "workers": 0, "data_dir": None},
    "optimizer": {"lr": 0.01, "clip_norm": 1.0},
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    "seed": 0,
}


def _claim(path: Path, config: Any = CONFIG) -> None:
    with RunDirectory(path, config, writer=True):
        pass


def _refused(path: Path, config: Any = CONFIG) -> Any:
    with pytest.raises(UserError) as error:
        RunDirectory(path, config, writer=True)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def _changed(**sections: Any) -> Any:
    config = copy.deepcopy(CONFIG)
    for name, values in sections.items():
        if isinstance(values, dict):
            config[name].update(values)
        else:
            config[name] = values
    return config


def _content(directory: Path) -> Any:
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_the_first_start_writes_config_and_versions(tmp_path: Path) -> None:
    _claim(tmp_path / "a" / "run")  # with its parents
    config = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
    assert len(config.pop("run_id")) == 32
    assert config == json.loads(json.dumps(CONFIG))
    assert config == read_config(tmp_path / "a" / "run")
    versions = json.loads((tmp_path / "a" / "run" / "versions.json").read_text())
    assert versions["vit_jax"] == vit_jax.__version__
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy"):
        assert versions["packages"][name] == version(name)
    assert versions["devices"] == [device.device_kind for device in jax.devices()]
    assert versions["processes"] == 1
    assert versions["images"] == {
        "JPEG decoding": "simplejpeg" if find_spec("simplejpeg") else "pillow",
        "resizing": "opencv" if find_spec("cv2") else "numpy",
    }


def test_a_resume_with_another_decoder_or_resizer_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _claim(tmp_path)
    _claim(tmp_path)
    assert not caplog.messages
    file = tmp_path / "versions.json"
    versions = json.loads(file.read_text())
    others = {"JPEG decoding": "a camera", "resizing": "a lens"}
    file.write_text(json.dumps(versions | {"images": others}))
    _claim(tmp_path)
    assert caplog.messages == [
        f"{tmp_path} was trained on images whose {what} {other} did, and here "
        f"{versions['images'][what]} does it: pixels may differ by one level"
        for what, other in others.items()
    ]
    caplog.clear()
    _claim(tmp_path)
    assert not caplog.messages


def test_where_things_are(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, CONFIG, writer=True) as run:
        assert run.path == tmp_path
        assert run.checkpoints == tmp_path / "checkpoints"
        assert run.weights == tmp_path / "weights.npz"


def test_home_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/one", "two", Path("three")):
        with RunDirectory(path, CONFIG, writer=True) as run:
            assert run.path == tmp_path / Path(path).name


def test_the_same_config_goes_on_and_only_versions_are_written_anew(tmp_path: Path) -> None:
    _claim(tmp_path)
    before = (tmp_path / "config.json").stat().st_ino
    (tmp_path / "versions.json").write_text("{}")
    _claim(tmp_path)
    assert (tmp_path / "config.json").stat().st_ino == before
    assert json.loads((tmp_path / "versions.json").read_text())["packages"]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"optimizer": {"lr": 0.03}}, "optimizer.lr: 0.01 -> 0.03"),
        ({"optimizer": {"clip_norm": None}}, "optimizer.clip_norm: 1.0 -> None"),
        ({"model": {"image_size": (224, 256)}}, "model.image_size: 224x224 -> 224x256"),
        ({"data": {"batch_size": 32}}, "data.batch_size: 64 -> 32"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"optimizer": {"average": 0.9}}, "optimizer.average: (absent) -> 0.9"),
    ],
)
def test_another_config_is_refused_with_the_difference(
    tmp_path: Path, change: dict[str, Any], difference: str
) -> None:
    _claim(tmp_path)
    before = _content(tmp_path)
    assert f"({difference})" in _refused(tmp_path, _changed(**change))
    assert _content(tmp_path) == before
    _claim(tmp_path)  # the refused start has let go


def test_all_differences_are_shown(tmp_path: Path) -> None:
    _claim(tmp_path)
    message = _refused(tmp_path, _changed(optimizer={"lr": 0.03}, seed=7, mesh={"fsdp": 2}))
    assert "(optimizer.lr: 0.01 -> 0.03; seed: 0 -> 7)" in message


def test_where_and_how_fast_a_run_goes_may_change(tmp_path: Path) -> None:
    _claim(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    _claim(tmp_path, _changed(mesh={"data": 2, "fsdp": 4}))
    _claim(tmp_path, _changed(data={"workers": 16, "data_dir": "/elsewhere", "max_labels": 9}))
    _claim(tmp_path, {name: values for name, values in CONFIG.items() if name != "mesh"})
    assert (tmp_path / "config.json").read_bytes() == before


def test_one_run_at_a_time_even_after_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.programs.hold_directory"]
    holder = subprocess.Popen(
        [*command, str(tmp_path), json.dumps(CONFIG)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "claimed\n"
        assert "in use" in _refused(tmp_path)
        assert "in use" in _refused(tmp_path, _changed(seed=1))
        RunDirectory(tmp_path, CONFIG, writer=False).close()  # another process of the same run
        holder.send_signal(signal.SIGKILL)
        assert holder.wait(timeout=10) == -signal.SIGKILL
    _claim(tmp_path)


def test_one_run_at_a_time_within_a_process(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, CONFIG, writer=True):
        assert "in use" in _refused(tmp_path)
    _claim(tmp_path)


@pytest.mark.parametrize("variable", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_processes_launched_together_learn_that_each_is_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with RunDirectory(tmp_path, CONFIG, writer=True):
        monkeypatch.setenv(variable, "1")
        assert "wait for it, end it" in _refused(tmp_path)
        monkeypatch.setenv(variable, "4")
        message = _refused(tmp_path)
    assert "started 4 processes" in message and "alone" in message
    assert message.endswith("for one run of all of them, add --distributed")


def test_only_the_writer_writes(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run", CONFIG, writer=False) as run:
        assert run.path == tmp_path / "run"
    assert not run.path.exists()


@pytest.mark.parametrize("parent", ["file", "/proc"])
def test_where_nothing_can_be_written(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("mine")
    path = tmp_path / parent / "run"
    assert "cannot write" in _refused(path)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert "cannot write" in _refused(file)
    assert file.read_text() == "mine"


def test_a_remote_path_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for writer in (True, False):
        with pytest.raises(UserError, match="ftp://host/run"):
            RunDirectory("ftp://host/run", CONFIG, writer=writer)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["checkpoints/7/state", "weights.npz", "metrics.jsonl"])
def test_files_of_another_program_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("theirs")
    before = _content(tmp_path)
    assert Path(name).parts[0] in _refused(tmp_path)
    assert _content(tmp_path) == before


def test_other_files_may_lie_in_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    _claim(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b'{"seed": 0', b"[]", b"\xff\xfe{"])
def test_a_damaged_config_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert "config.json" in _refused(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == content


def test_what_is_no_run_has_no_config(tmp_path: Path) -> None:
    file = tmp_path / "weights.npz"
    file.write_bytes(b"")
    for path in (tmp_path, tmp_path / "absent", file):
        with pytest.raises(UserError, match="not the directory of a run"):
            read_config(path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        read_config(tmp_path)


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    atomic.write_bytes(one, b"old")

    def fail(file: Any) -> Never:
        file.write(b"half")
        raise RuntimeError("no more ideas")

    with pytest.raises(RuntimeError):
        atomic.write_all({one: lambda file: file.write(b"new"), two: fail})
    assert _content(tmp_path) == {one: b"old"}
    atomic.write_all({one: lambda file: file.write(b"new"), two: lambda f: f.write(b"2")})
    assert _content(tmp_path) == {one: b"new", two: b"2"}


def test_a_directory_that_cannot_be_written_any_more_is_refused(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, CONFIG, writer=True):
        pass
    (tmp_path / "versions.json").unlink()
    (tmp_path / "versions.json").mkdir()  # Not even root replaces a directory by a file.
    with pytest.raises(UserError, match="cannot write to the work directory"):
        RunDirectory(tmp_path, CONFIG, writer=True)


def test_a_key_that_is_new_since_the_run_began_is_no_difference(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, CONFIG, writer=True):
        pass

    def upgrade(config: Any) -> Any:
        return config | {"new": 1}

    RunDirectory(tmp_path, CONFIG | {"new": 1}, writer=True, upgrade=upgrade).close()
    with pytest.raises(UserError, match="new: 1 -> 2"):
        RunDirectory(tmp_path, CONFIG | {"new": 2}, writer=True, upgrade=upgrade)

    # A key that is gone cannot be read by this version, and is told as the difference.
    def refuse(config: Any) -> Never:
        raise UserError("no such key")

    changed = {key: value for key, value in CONFIG.items() if key != next(iter(CONFIG))}
    with pytest.raises(UserError, match="(absent)"):
        RunDirectory(tmp_path, changed, writer=True, upgrade=refuse)


def test_what_a_killed_start_left_is_removed(tmp_path: Path) -> None:
    _claim(tmp_path)
    for name in (".metrics.jsonl.4711.tmp", ".weights.npz.1.tmp", ".mine.tmp"):
        (tmp_path / name).write_bytes(b"half")
    _claim(tmp_path)
    assert [path.name for path in tmp_path.glob(".*")] == [".mine.tmp"]


def test_no_directory_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="--workdir is empty"):
        RunDirectory("", CONFIG, writer=True)


def test_files_that_would_keep_a_reader_waiting_are_refused(tmp_path: Path) -> None:
    _claim(tmp_path)
    for name in ("config.json", "versions.json"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    assert "config.json cannot be read" in _refused(tmp_path)
    (tmp_path / "config.json").unlink()
    _claim(tmp_path)
    assert (tmp_path / "versions.json").is_file()
