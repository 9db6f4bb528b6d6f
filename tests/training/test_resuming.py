"""What a person changes between two starts of a run: its data, its length, where things lie."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.small_models import refusal
from vit_jax.runs.config_file import read_extension
from vit_jax.training.final_weights import RunResult

pytestmark = pytest.mark.usefixtures("shared_programs")


def options(pictures: Path, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": {"name": "ViT-mu/8", "image_size": 16, "depth": 1},
        "data": {"dataset": str(pictures), "batch_size": 4, "workers": 0},
        "optimizer": {"lr": 0.1, "warmup_steps": 1},
        "total_steps": 2,
        "log_every": 1,
        "callbacks": (),
    }
    for name, value in more.items():
        values[name] = values.get(name, {}) | value if isinstance(value, dict) else value
    return values


def draw(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def train(pictures: Path, workdir: Path, /, *, changed: Any = None, **flags: Any) -> RunResult:
    values = options(pictures, **copy.deepcopy(changed or {}))
    return vit_jax.train(values, workdir, **flags)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for number in range(12):
        draw(root / ("cat", "dog")[number % 2] / f"{number}.png", number)
    return root


@pytest.fixture(scope="module")
def ended(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(pictures, workdir)
    return workdir


@pytest.fixture
def copies(ended: Path, pictures: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The run as if it had not written its weights, and its pictures at another place."""
    shutil.copytree(ended, tmp_path / "run")
    shutil.copytree(pictures, tmp_path / "pictures")
    for name in ("weights.npz", "weights.json"):
        (tmp_path / "run" / name).unlink()
    return tmp_path / "run", tmp_path / "pictures"


def test_a_moved_folder_and_another_pace_give_the_same_weights(
    copies: tuple[Path, Path], ended: Path
) -> None:
    workdir, moved = copies
    changed = {"data": {"on_error": "skip"}, "log_every": 2, "checkpoint": {"every_steps": 1}}
    train(moved, workdir, changed=changed)
    assert (workdir / "weights.npz").read_bytes() == (ended / "weights.npz").read_bytes()


def test_changed_data_is_refused_by_name_until_it_is_accepted(copies: tuple[Path, Path]) -> None:
    workdir, moved = copies
    # In class dog, whose test picture stays the same by the hash of its name.
    draw(moved / "cat/0.png", 99)
    (moved / "cat/0.png").write_bytes((moved / "cat/0.png").read_bytes() + b"longer")
    message = refusal(train, moved, workdir)
    assert "cat/0.png was" in message and "--accept_changed_data" in message
    assert not (workdir / "weights.npz").exists()
    train(moved, workdir, accept_changed_data=True)
    (noted,) = json.loads((workdir / "config.json").read_text())["changed_data"]
    assert noted["after_step"] == 2 and noted["files"] == 1 and "cat/0.png" in noted["first"][0]
    (workdir / "weights.json").unlink()
    train(moved, workdir)  # It is now this run's data.


def test_a_run_without_a_list_of_its_data_resumes_and_gets_one(
    copies: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    workdir, moved = copies
    listed = (workdir / "data.gz").read_bytes()
    (workdir / "data.gz").unlink()
    train(moved, workdir)
    assert "does not say which data the run was trained on" in caplog.text
    assert (workdir / "data.gz").read_bytes() == listed


def test_a_run_is_extended(
    ended: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(ended, workdir)
    first = (workdir / "weights.npz").read_bytes()
    message = refusal(train, pictures, workdir, changed={"total_steps": 4})
    assert "--extend_to=4" in message
    assert "the run has 2 steps" in refusal(train, pictures, workdir, extend_to=2)
    capsys.readouterr()
    assert train(pictures, workdir, extend_to=4).step == 4
    output = capsys.readouterr().out
    # Cosine from step 2 on, after one step of warm-up: over one step it ended at the peak's start,
    # over three steps update 2 has (1 + cos(pi / 3)) / 2 of the peak.
    assert "extended from 2 to 4 steps: from step 3 on" in output and "(0.075, after" in output
    assert (workdir / "weights-2.npz").read_bytes() == first
    assert read_extension(workdir) == 4
    # With and without the flag, it has ended now.
    for flags in ({"extend_to": 4}, {}):
        assert train(pictures, workdir, **flags).step == 4
    assert "extended to 4" in refusal(train, pictures, workdir, extend_to=3)
    assert "not the directory of a run" in refusal(train, pictures, tmp_path / "no", extend_to=4)


def test_damaged_final_weights_are_written_anew(
    ended: Path, pictures: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(ended, workdir)
    whole = (workdir / "weights.npz").read_bytes()
    for damaged in (whole[:-9], b"", whole[:99] + b"\0" + whole[100:]):
        (workdir / "weights.npz").write_bytes(damaged)
        train(pictures, workdir)
        assert (workdir / "weights.npz").read_bytes() == whole
    stated = (workdir / "weights.json").read_bytes()
    (workdir / "weights.json").write_bytes(stated.replace(b'"step": 2', b'"step": 1'))
    assert train(pictures, workdir).step == 2
    assert (workdir / "weights.json").read_bytes() == stated
