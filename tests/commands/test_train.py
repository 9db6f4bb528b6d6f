"""`train` as a user types it, on a model that trains in a second."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.commands.quickstart import QUICKLY, metrics, quickstart
from vit_jax.__main__ import main
from vit_jax.experiments.paper.tables import table
from vit_jax.parallel.processes import Preemption
from vit_jax.training.reporter import Reporter

pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps on the digits."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", *quickstart(data_dir, steps=8), f"--workdir={workdir}"]) == 0
    return workdir


def test_train_leaves_what_a_run_should(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        *("config.json", "versions.json", "metrics.jsonl", "tensorboard", "checkpoints"),
        *("weights.npz", "weights.json"),
    }
    lines = metrics(finished)
    assert [line["step"] for line in lines if "train/loss" in line] == [2, 4, 6, 8]
    assert [line["step"] for line in lines if "test/top1" in line] == [4, 8]
    assert all(line["test/examples"] == 360 for line in lines if "test/examples" in line)
    # Warm-up over 2 steps to 3e-3, then cosine over the 6 that are left; rates of updates 2, 8.
    rates = {line["step"]: line["train/lr"] for line in lines if "train/lr" in line}
    assert rates[2] == pytest.approx(3e-3)
    assert rates[8] == pytest.approx(3e-3 * 0.5 * (1 + np.cos(np.pi * 5 / 6)), rel=1e-4)
    description = json.loads((finished / "weights.json").read_text())
    assert (description["averaged"], description["loss"]) == (False, "softmax")
    assert description["class_names"] == [str(digit) for digit in range(10)]
    assert description["model"]["preprocessing"]["mean"] == [0.5, 0.5, 0.5]


def test_a_stopped_run_resumes_as_if_it_had_not_stopped(
    finished: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", *quickstart(data_dir, steps=8), f"--workdir={tmp_path / 'run'}"]
    log_step = Reporter.log_step

    def interrupt(self: Reporter, step: int, scalars: Any, *, waited: float) -> None:
        log_step(self, step, scalars, waited=waited)
        if step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "log_step", interrupt)
    assert main(command) == 130
    monkeypatch.undo()
    assert main(command) == 0
    assert metrics(tmp_path / "run") == metrics(finished)
    assert (tmp_path / "run/weights.npz").read_bytes() == (finished / "weights.npz").read_bytes()


def test_a_run_stopped_in_its_evaluations_still_owes_them(
    finished: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, stop_at = 0, 0

    def reached(self: Preemption) -> bool:
        nonlocal calls
        calls += 1
        return calls >= stop_at

    monkeypatch.setattr(Preemption, "reached", reached)
    command = ["train", *quickstart(data_dir, steps=8), f"--workdir={tmp_path / 'run'}"]
    # Four steps and one batch of the evaluation that follows; then one batch of the owed one; then
    # all of it and two steps, between checkpoints; then nothing stops it any more.
    for moment, code in ((6, 143), (2, 143), (23 + 2, 143), (10**9, 0)):
        calls, stop_at = 0, moment
        assert main(command) == code
    assert metrics(tmp_path / "run") == metrics(finished)
    assert (tmp_path / "run/weights.npz").read_bytes() == (finished / "weights.npz").read_bytes()


def test_workers_may_change_on_resume(finished: Path, data_dir: Path, tmp_path: Path) -> None:
    command = ["train", *quickstart(data_dir, steps=8), f"--workdir={tmp_path / 'run'}"]
    # Evaluations, which have workers of their own, change no weights.
    assert main([*command, "--config.data.workers=2", "--config.evals=none"]) == 0
    assert (tmp_path / "run/weights.npz").read_bytes() == (finished / "weights.npz").read_bytes()


def test_evaluate_repeats_the_last_evaluation(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.json"
    assert main(["evaluate", f"--weights={finished}", f"--output={output}"]) == 0
    found = json.loads(output.read_text())[-1]
    assert found["image_size"] == [8, 8]
    scores = found["scores"]
    last = [line for line in metrics(finished) if "test/top1" in line][-1]
    assert scores["top1"] == last["test/top1"]
    assert scores["loss"] == pytest.approx(last["test/loss"], rel=1e-6)
    # Neither is in a published table, for one reason.
    first, second = table("5", [str(finished), str(output)]).notes
    why = "has no row: it was trained on digits; the table's are pre-trained, then fine-tuned once"
    assert first == f"{finished} {why}"
    assert second == f"{output}: {finished} {why}"


def test_fine_tunes_at_twice_the_resolution(
    finished: Path, data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = quickstart(data_dir, steps=4, argument=f":{finished}")
    assert main(["train", *arguments, f"--workdir={tmp_path}"]) == 0
    assert "positions 4x4 -> 8x8" in caplog.text
    description = json.loads((tmp_path / "weights.json").read_text())
    assert description["model"]["image_size"] == 16


def test_describe_and_train_on_label_sets(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *quickstart(data_dir, steps=4),
        "--config.data.dataset=long_tail/classes=20,images=200",
        *("--config.data.max_labels=8", "--config.data.subset=100"),
    ]
    assert main(["describe", *arguments]) == 0
    output = capsys.readouterr().out
    assert "100 of long_tail/classes=20,images=200/train, 100 examples" in output
    assert "int32[16, 8], -1 to" in output
    assert "classes seen" in output and "labels an image" in output
    for loss in ("softmax", "sigmoid"):
        workdir = tmp_path / loss
        assert main(["train", *arguments, f"--config.loss={loss}", f"--workdir={workdir}"]) == 0
        assert metrics(workdir)[-1]["test/examples"] == 20
    assert "test top-1" in capsys.readouterr().out
    names = json.loads((workdir / "weights.json").read_text())["class_names"]
    assert names == [f"class_{number}" for number in range(20)]


def test_trains_on_a_folder_whose_test_split_lacks_a_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Red, green and blue squares, without green ones to test on; colour is easy to learn."""
    rng = np.random.default_rng(0)
    for split, colors in {"train": (0, 1, 2), "test": (0, 2)}.items():
        for channel in colors:
            folder = tmp_path / "photos" / split / "rgb"[channel]
            folder.mkdir(parents=True)
            for number in range(12):
                pixels = rng.integers(0, 60, (20, 24, 3), dtype=np.uint8)
                pixels[..., channel] += 190
                Image.fromarray(pixels).save(folder / f"{number}.png")
    command = [
        "train",
        f"--config=configs/pretrain.py:ti16,{tmp_path / 'photos'}",
        *QUICKLY,
        "--config.model.image_size=16",
        "--config.total_steps=40",
        "--config.optimizer.lr=0.01",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert main(command) == 0
    description = json.loads((tmp_path / "run/weights.json").read_text())
    assert description["class_names"] == ["b", "g", "r"]
    last = metrics(tmp_path / "run")[-1]
    assert last["test/examples"] == 24
    # With the test split's own numbering, red would be class 1 and could never be right.
    assert last["test/top1"] == 1.0
    capsys.readouterr()


def assert_began_and_no_more(workdir: Path) -> None:
    """A run that a mistake ends at its first batch leaves nothing that is not whole."""
    assert json.loads((workdir / "config.json").read_text())["total_steps"] == 8
    assert (workdir / "metrics.jsonl").read_bytes() == b""
    assert list((workdir / "checkpoints").iterdir()) == []
    names = {"config.json", "versions.json", "metrics.jsonl", "tensorboard", "checkpoints", "lock"}
    names |= {"data.gz", "cost.json"}
    assert {path.name for path in workdir.iterdir()} == names


def test_labels_out_of_range_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The digits, but with a list of classes that ends with 8.
    assert main(["prepare", "--dataset=digits", f"--data_dir={tmp_path / 'data'}"]) == 0
    (classes,) = (tmp_path / "data").rglob("label.labels.txt")
    classes.write_text("\n".join("012345678"))
    arguments = [*quickstart(tmp_path / "data", steps=8), "--config.data.batch_size=64"]
    assert main(["train", *arguments, f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: digits/train[")
    assert "label 9 is not one of the 9 classes" in error
    assert_began_and_no_more(tmp_path / "run")
