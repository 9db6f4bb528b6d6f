"""Weights fitted to the model of a config, as for training and evaluation."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.small_models import SMALL, assert_same, random_params, refusal
from vit_jax.models.config import ModelConfig
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.weights.files import Weights, open_weights, write_weights
from vit_jax.weights.load import params_for

CROP = PreprocessingConfig(resize="short_side", short_side=18, antialias=True)
TRAINED = dataclasses.replace(
    SMALL, gelu="exact", norm_epsilon=1e-5, pooling="gap_timm", preprocessing=CROP
)
OPEN = ModelConfig("ViT-mu/8", image_size=16, num_classes=5, depth=2)


def _changed(**changes: Any) -> ModelConfig:
    return dataclasses.replace(OPEN, **changes)


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    write_weights(tmp_path / "w.npz", random_params(TRAINED), TRAINED)
    return open_weights(tmp_path / "w.npz")


def test_a_config_inherits_what_it_leaves_open(weights: Weights) -> None:
    params, model = params_for(weights, OPEN)
    assert model == TRAINED
    assert_same(params, random_params(TRAINED))
    _, model = params_for(weights, _changed(image_size=(32, 48), dropout=0.1))
    preprocessing = dataclasses.replace(CROP, short_side=36)
    assert model == dataclasses.replace(
        TRAINED, image_size=(32, 48), dropout=0.1, preprocessing=preprocessing
    )


def test_preprocessing_of_the_config_is_kept(weights: Weights) -> None:
    own = PreprocessingConfig(mean=(0, 0, 0))
    assert params_for(weights, _changed(preprocessing=own))[1].preprocessing == own


def test_a_crop_that_does_not_fit_the_new_size_is_refused() -> None:
    with pytest.raises(ValueError, match="short_side 18 is below the image_size 32x32"):
        _changed(image_size=32, preprocessing=TRAINED.preprocessing)


@pytest.mark.parametrize(
    ("changes", "problem", "flag"),
    [
        ({"gelu": "tanh"}, "gelu=exact, the model has tanh", "gelu=exact"),
        ({"pooling": "token"}, "pooling=gap_timm, the model has token", "pooling=gap_timm"),
        ({"norm_epsilon": 1e-6}, "norm_epsilon=1e-05, the model has 1e-06", "norm_epsilon=1e-05"),
    ],
)
def test_what_makes_another_function_is_refused_with_the_flag(
    weights: Weights, changes: dict[str, Any], problem: str, flag: str
) -> None:
    message = refusal(params_for, weights, _changed(**changes))
    assert problem in message and f"--config.model.{flag}" in message


def test_another_head_only_where_it_may_change(
    weights: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    params, model = params_for(weights, _changed(num_classes=3))
    assert model.num_classes == 3 and params["head"]["kernel"].shape == (32, 3)
    assert caplog.messages[-1].endswith("; head 5 -> 3 classes, zero-initialised")
    for changes in ({"num_classes": 3}, {"representation_size": 8}):
        message = refusal(params_for, weights, _changed(**changes), keep_head=True)
        (key,) = changes
        assert f"head has {key}={getattr(TRAINED, key)}" in message
    assert params_for(weights, OPEN, keep_head=True)[1] == TRAINED


def test_arrays_that_do_not_fit_come_with_the_path(weights: Weights) -> None:
    message = refusal(params_for, weights, _changed(depth=3, registers=1))
    assert str(weights.path) in message
    assert "registers: file none, model (1, 1, 32)" in message
    assert message.count("file (2, ") == 16


def test_an_image_size_that_the_patch_does_not_divide(weights: Weights) -> None:
    params, _ = params_for(weights, _changed(image_size=(23, 17)))  # 2 x 2 patches
    assert_same(params, random_params(TRAINED))


def test_only_what_is_assumed_and_used_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = dataclasses.replace(SMALL, pooling="gap")
    write_weights(tmp_path / "w.npz", random_params(model), model)
    (tmp_path / "w.json").unlink()
    weights = open_weights(tmp_path / "w.npz")
    assert params_for(weights, OPEN)[1] == model
    assert params_for(weights, _changed(preprocessing=PreprocessingConfig()))[1] == model
    read, first, again, second = caplog.messages
    assert read == again == f"weights of {weights.path}"
    said = "assumed: gelu=tanh, norm_epsilon=1e-06"
    assert f"{said}, mean=[0.5, 0.5, 0.5]" in first
    assert second.endswith(f"{said}, pooling=gap")
