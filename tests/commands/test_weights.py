"""Training and evaluation that start from weight files, on a model that trains in a second."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import traverse_util
from PIL import Image

import vit_jax
from tests.small_models import TINY_FLAGS, assert_same, random_params
from vit_jax.__main__ import main
from vit_jax.models.config import ModelConfig
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.training.reporter import Reporter
from vit_jax.weights.files import open_weights, write_weights

pytestmark = pytest.mark.usefixtures("shared_programs")

PREPROCESSING = PreprocessingConfig(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), antialias=True
)
# Unlike the defaults in all that follows the weights.
MODEL = ModelConfig(
    "ViT-Ti/2",
    image_size=8,
    num_classes=10,
    depth=1,
    width=16,
    mlp_dim=16,
    num_heads=2,
    pooling="gap",
    gelu="exact",
    norm_epsilon=1e-12,
    preprocessing=PREPROCESSING,
).completed()
DIGITS = tuple(str(digit) for digit in range(10))


def config(data_dir: Path, *overrides: str) -> list[str]:
    """The digits with the model above, as far as a file of weights leaves it open."""
    overrides = (
        "data.batch_size=16",
        "data.workers=0",
        f"data.data_dir={data_dir}",
        "optimizer.warmup_steps=1",
        "total_steps=4",
        "log_every=1",
        "checkpoint.every_steps=2",
        *overrides,
    )
    return ["--config=configs/quickstart.py", *TINY_FLAGS, *(f"--config.{o}" for o in overrides)]


def start(directory: Path, model: ModelConfig = MODEL, **options: Any) -> Path:
    """A file of weights to start from, in timm's layout."""
    path = directory / "start.safetensors"
    params = random_params(model)
    options = {"layout": "timm", "class_names": DIGITS} | options
    write_weights(path, params, model, **options)
    return path


def lines(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tuned(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 steps from the file, which is gone."""
    folder = tmp_path_factory.mktemp("tuned")
    path = start(folder)
    command = ["train", *config(data_dir, f"init_from={path}"), f"--workdir={folder / 'run'}"]
    assert main(command) == 0
    path.unlink()
    return folder / "run"


def test_what_makes_the_function_follows_the_weights(tuned: Path) -> None:
    losses = [line["train/loss"] for line in lines(tuned) if "train/loss" in line]
    assert len(losses) == 4 and np.isfinite(losses).all()
    for file in ("weights.json", "config.json"):
        model = json.loads((tuned / file).read_text())["model"]
        assert (model["gelu"], model["norm_epsilon"]) == ("exact", 1e-12)
        assert model["preprocessing"] == json.loads(json.dumps(dataclasses.asdict(PREPROCESSING)))
    opened = open_weights(tuned)
    assert opened.class_names == DIGITS and opened.model.pooling == "gap"


def test_training_starts_at_the_weights(tuned: Path) -> None:
    """4 steps of AdamW are 4 rates of 0.003 long at most, give or take the weight decay."""
    params = traverse_util.flatten_dict(open_weights(tuned).params)
    for path, before in traverse_util.flatten_dict(random_params(MODEL)).items():
        assert 0 < np.abs(np.asarray(params[path]) - before).max() < 4 * 0.004, path


def test_what_the_config_says_otherwise_is_refused(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = config(data_dir, f"init_from={start(tmp_path)}", "model.gelu=tanh")
    assert main(["train", *arguments, f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "gelu=exact, the model has tanh; use --config.model.gelu=exact" in error
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_needs_the_file_no_more(
    tuned: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = start(tmp_path)
    command = ["train", *config(data_dir, f"init_from={path}"), "--workdir=~/run"]
    log_step = Reporter.log_step

    def interrupt(self: Reporter, step: int, scalars: Any, *, waited: float) -> None:
        log_step(self, step, scalars, waited=waited)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "log_step", interrupt)
        assert main(command) == 130
    path.unlink()
    path.with_suffix(".json").unlink()
    assert main(command) == 0
    run = tmp_path / "run"
    assert (run / "weights.npz").read_bytes() == (tuned / "weights.npz").read_bytes()
    assert (run / "weights.json").read_bytes() == (tuned / "weights.json").read_bytes()


def test_a_run_without_a_state_does_need_it(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gone.safetensors"
    arguments = config(data_dir, f"init_from={path}")
    assert main(["train", *arguments, f"--workdir={tmp_path / 'run'}"]) == 2
    assert f"{path}: no such file" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["nan", "truncated"])
def test_damaged_weights_leave_no_directory(
    damage: str, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = random_params(MODEL)
    params["blocks"]["mlp"]["dense2"]["bias"][0, 3] = np.nan if damage == "nan" else 0
    path = tmp_path / "start.safetensors"
    write_weights(path, params, MODEL, layout="timm")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    command = ["train", *config(data_dir, f"init_from={path}"), f"--workdir={tmp_path / 'run'}"]
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {path}: ")
    assert damage == "truncated" or "NaN or infinite values in blocks.0.mlp.fc2.bias" in error
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_evaluated_in_any_layout(
    tuned: Path, data_dir: Path, tmp_path: Path
) -> None:
    target = tmp_path / "w.safetensors"
    assert main(["convert", f"--source={tuned}", f"--target={target}", "--layout=timm"]) == 0
    outputs = [tmp_path / "run.json", tmp_path / "file.json"]
    assert main(["evaluate", f"--weights={tuned}", f"--output={outputs[0]}"]) == 0
    command = ["evaluate", f"--weights={target}", *config(data_dir), f"--output={outputs[1]}"]
    assert main(command) == 0
    (run,), (file,) = (json.loads(output.read_text()) for output in outputs)
    assert (run.pop("weights"), file.pop("weights")) == (str(tuned), str(target))
    assert file == run
    assert (run["evaluation"], run["scores"]["examples"]) == ("test", 360)
    (last,) = [line for line in lines(tuned) if "test/loss" in line]
    assert run["scores"]["loss"] == pytest.approx(last["test/loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (5, "the model has 5 without names"),
        (0, "the model has no head"),
    ],
)
def test_weights_with_another_head_are_not_evaluated(
    classes: int,
    message: str,
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = dataclasses.replace(MODEL, num_classes=classes)
    path = tmp_path / "w.npz"
    write_weights(path, random_params(model), model)
    assert main(["evaluate", f"--weights={path}", *config(data_dir)]) == 2
    output, error = capsys.readouterr()
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1 and output == ""
    # A config may say which head the weights must have.
    changed = "--config.model.num_classes=10"
    assert main(["evaluate", f"--weights={path}", *config(data_dir), changed]) == 2
    assert f"error: {path}: the weights' head has num_classes={classes}" in capsys.readouterr().err


def test_a_finished_run_predicts(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digit = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    file = tmp_path / "digit.png"
    Image.fromarray(digit).save(file)
    command = ["predict", f"--weights={tuned}", f"--images={file}", "--top_k=1"]
    assert main([*command, f"--output={tmp_path / 'a.jsonl'}"]) == 0
    (answer,) = json.loads((tmp_path / "a.jsonl").read_text())["predictions"]
    model = vit_jax.load_model(weights=tuned)
    pixels = np.stack([digit] * 3, axis=-1)[None] / 255
    images = (pixels - PREPROCESSING.mean) / PREPROCESSING.std
    shares = scipy.special.softmax(model(jnp.asarray(images, np.float32))[0])
    assert (answer["class"], answer["name"]) == (shares.argmax(), str(shares.argmax()))
    assert answer["probability"] == pytest.approx(shares.max(), abs=1e-5)


def test_training_starts_at_a_released_file(
    storage_folder: Path, data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file of a name, as small as these tests, of other classes and without a description."""
    caplog.set_level(logging.INFO)
    released = dataclasses.replace(
        MODEL, num_classes=7, gelu="tanh", norm_epsilon=1e-6, preprocessing=PreprocessingConfig()
    )
    file = storage_folder / "vit_models/gsam/ViT-S_16.npz"
    file.parent.mkdir(parents=True)
    write_weights(file, random_params(released), released)
    file.with_suffix(".json").unlink()
    arguments = config(data_dir, "init_from=gsam/ViT-S_16", "total_steps=1")
    arguments += ["--config.optimizer.lr=1e-30", "--config.optimizer.warmup_steps=0"]
    assert main(["train", *arguments, f"--workdir={tmp_path / 'run'}"]) == 0
    assert "head 7 -> 10 classes, zero-initialised" in caplog.text
    assert "assumed: gelu=tanh, norm_epsilon=1e-06" in caplog.text
    params, started = open_weights(tmp_path / "run").params, random_params(released)
    for leaves in (params, started):
        del leaves["head"]
    assert_same(params, started)
