"""Parts of a config that do not go together."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.small_models import refusal
from vit_jax.config import load_config
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import prepare


def test_a_crop_fits_into_the_resized_image() -> None:
    overrides = ("--config.data.crop=resize", "--config.data.crop_side=7")
    message = refusal(build, TrainConfig, load_config("configs/quickstart.py", overrides))
    assert "data.crop_side 7 is below the 8 pixels of model.image_size" in message
    overrides = ("--config.data.crop=resize", "--config.data.crop_side=8")
    assert build(TrainConfig, load_config("configs/quickstart.py", overrides)).data.crop_side == 8


def test_an_early_stop_with_one_evaluation_would_be_ignored(tmp_path: Path) -> None:
    def evaluated_every(steps: int) -> Any:
        early = (f"--config.evals.test.every_steps={steps}", "--config.early_stop.eval=test")
        directory = f"--config.data.data_dir={tmp_path}"
        overrides = ("--config.total_steps=200", directory, *early)
        return prepare(build(TrainConfig, load_config("configs/quickstart.py", overrides)))

    assert evaluated_every(199).config.early_stop is not None
    message = refusal(evaluated_every, 200)
    assert message.startswith("config.early_stop would be ignored: evals.test.every_steps=200 ")
    assert message.endswith("lower it")


@pytest.mark.parametrize(("smoothing", "is_refused"), [(0.49, False), (0.5, True), (0.9, True)])
def test_sigmoids_smoothed_targets_stay_in_their_order(smoothing: float, is_refused: bool) -> None:
    sigmoid = ("--config.loss=sigmoid", f"--config.label_smoothing={smoothing}")
    values = load_config("configs/quickstart.py", sigmoid)
    if is_refused:
        assert refusal(build, TrainConfig, values).endswith("take less than 0.5")
    else:
        assert build(TrainConfig, values).label_smoothing == smoothing
    build(TrainConfig, load_config("configs/quickstart.py", sigmoid[1:]))  # Softmax's stay so.


def test_one_class_is_refused_under_softmax(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / "cat" / f"{number}.png")
    data = (f"--config.data.dataset={tmp_path}", "--config.data.batch_size=2")
    values = load_config("configs/quickstart.py", data)
    message = refusal(prepare, build(TrainConfig, values))
    assert "has one class, 'cat'" in message and "config.loss=softmax" in message
    values = load_config("configs/quickstart.py", (*data, "--config.loss=sigmoid"))
    assert prepare(build(TrainConfig, values)).model.num_classes == 1
