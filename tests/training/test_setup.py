"""What a config asks of devices that are not there."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.small_models import refusal
from vit_jax.config import load_config
from vit_jax.schema import build
from vit_jax.training import setup
from vit_jax.training.config import TrainConfig


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Prepares the quickstart's run with other options, those of the model by name."""

    def call(platform, tensor=1, overrides=(), **options):
        devices = np.array([SimpleNamespace(platform=platform)])
        mesh = SimpleNamespace(devices=devices, shape={"data": 1, "fsdp": 1, "tensor": tensor})
        monkeypatch.setattr(setup, "make_mesh", lambda config: mesh)
        values = load_config("configs/quickstart.py", overrides)
        values["data"]["data_dir"] = str(tmp_path)
        values["model"] |= options
        return setup.prepare(build(TrainConfig, values))

    return call


@pytest.mark.parametrize(
    ("platform", "attention"),
    [("cpu", "pallas"), ("gpu", "pallas"), ("cpu", "cudnn"), ("tpu", "cudnn")],
)
def test_kernels_are_for_their_devices(prepare, platform, attention):
    told = refusal(prepare, platform, attention=attention, dtype="bfloat16")
    assert told.startswith(f"config.model.attention: {attention!r} is a kernel for ")
    assert told.endswith(f"and the devices are {platform.upper()}s; use 'xla'")


@pytest.mark.parametrize(
    ("platform", "attention"), [("tpu", "pallas"), ("gpu", "cudnn"), ("cpu", "xla"), ("tpu", "xla")]
)
def test_they_are_taken_there(prepare, platform, attention):
    assert prepare(platform, attention=attention, dtype="bfloat16").model.attention == attention


def test_tensor_divides_the_heads(prepare):
    assert refusal(prepare, "cpu", tensor=3).startswith(
        "config.mesh.tensor: 3 does not divide the 4 heads of "
    )
    assert prepare("cpu", tensor=2).model.size.num_heads == 4


def test_a_crop_fits_into_the_resized_image():
    overrides = ("--config.data.crop=resize", "--config.data.crop_side=7")
    assert refusal(build, TrainConfig, load_config("configs/quickstart.py", overrides)) == (
        "config: data.crop_side 7 is below the 8 pixels of model.image_size, so that no crop "
        "fits; raise it"
    )
    overrides = ("--config.data.crop=resize", "--config.data.crop_side=8")
    assert build(TrainConfig, load_config("configs/quickstart.py", overrides)).data.crop_side == 8


def test_an_early_stop_with_one_evaluation_would_be_ignored(prepare):
    def evaluated_every(steps):
        early = (f"--config.evals.test.every_steps={steps}", "--config.early_stop.eval=test")
        return prepare("cpu", overrides=("--config.total_steps=200", *early))

    assert evaluated_every(199).config.early_stop is not None
    assert refusal(evaluated_every, 200) == (
        "config.early_stop would be ignored: evals.test comes every 200 steps, so after the last "
        "of 200 only; lower its every_steps"
    )


@pytest.mark.parametrize(("smoothing", "is_refused"), [(0.49, False), (0.5, True), (0.9, True)])
def test_sigmoids_smoothed_targets_stay_in_their_order(smoothing, is_refused):
    sigmoid = ("--config.loss=sigmoid", f"--config.label_smoothing={smoothing}")
    values = load_config("configs/quickstart.py", sigmoid)
    if is_refused:
        assert refusal(build, TrainConfig, values).endswith("take less than 0.5")
    else:
        assert build(TrainConfig, values).label_smoothing == smoothing
    build(TrainConfig, load_config("configs/quickstart.py", sigmoid[1:]))  # Softmax's stay so.
