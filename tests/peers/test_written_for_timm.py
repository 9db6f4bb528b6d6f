"""timm builds what we write for it, and prepares images as that says."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm

import vit_jax
from tests.peers.drawn import redrawn_model
from tests.peers.like_timm import SIZES, assert_equal, assert_equal_preprocessing
from vit_jax.__main__ import main
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import model_params
from vit_jax.preprocessing import PreprocessingConfig
from vit_jax.weights.files import write_weights
from vit_jax.weights.layouts.timm_config import write_config


def write(directory: Path, model: Any, **options: Any) -> Any:
    directory.mkdir(exist_ok=True)
    write_weights(
        directory / "model.safetensors",
        model_params(model),
        model.config,
        layout="timm",
        **options,
    )
    return timm.create_model(f"local-dir:{directory}", pretrained=True).eval()


@pytest.mark.parametrize("pooling", ["token", "gap_timm"])
@pytest.mark.parametrize("size", SIZES)
def test_timm_builds_each_size_from_what_we_write(tmp_path: Path, size: Any, pooling: str) -> None:
    image_size = 224 if pooling == "token" else 96
    options = {"image_size": image_size, "num_classes": 10, "pooling": pooling}
    model = redrawn_model(f"ViT-{size}/16", **options)
    module = write(tmp_path, model)
    assert module.default_cfg["architecture"] == SIZES[size]
    assert module.num_features == model.config.size.width
    assert_equal(model, module, batch=1)


OUR_FORMS: dict[str, Any] = {
    "no head": {"num_classes": 0},
    "Google's mean": {"pooling": "gap"},
    "registers": {"registers": 4},
    "registers, mean": {"registers": 3, "pooling": "gap_timm"},
    "registers, Google's mean": {"registers": 3, "pooling": "gap"},
    "not square": {"image_size": (48, 96)},
    "not square, registers": {"image_size": (48, 96), "registers": 4},
    "not a whole number of patches": {"image_size": (50, 99)},
    "exact GELU": {"gelu": "exact"},
    "a smaller epsilon": {"norm_epsilon": 1e-12},
    "a size that timm has not": {"name": "ViT-mu/8"},
    "another shape": {"width": 88, "num_heads": 11, "mlp_dim": 95, "depth": 3},
}


@pytest.mark.parametrize("form", OUR_FORMS)
def test_timm_builds_each_form_from_what_we_write(tmp_path: Path, form: Any) -> None:
    options = {"name": "ViT-Ti/16", "image_size": 64, "num_classes": 7, "depth": 2}
    model = redrawn_model(**options | OUR_FORMS[form])
    module = write(tmp_path, model)
    assert_equal(model, module)
    (tmp_path / "model.json").unlink()
    assert_equal(vit_jax.load_model(weights=tmp_path), module)


PREPROCESSINGS: dict[str, Any] = {
    "squash": {"resize": "squash", "antialias": True},
    "squash, bicubic": {"resize": "squash", "interpolation": "bicubic", "antialias": True},
    "crop": {"resize": "short_side", "short_side": 72, "antialias": True},
    "whole crop, bicubic": {
        "resize": "short_side",
        "interpolation": "bicubic",
        "antialias": True,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    },
}


@pytest.mark.parametrize("image_size", [64, (48, 80)])
@pytest.mark.parametrize("form", PREPROCESSINGS)
def test_timm_prepares_images_as_what_we_write_says(
    tmp_path: Path, form: Any, image_size: int | tuple[int, ...]
) -> None:
    model = redrawn_model(
        "ViT-Ti/16",
        image_size=image_size,
        num_classes=3,
        depth=1,
        preprocessing=PREPROCESSINGS[form],
    )
    module = write(tmp_path, model, class_names=("cat", "dog", "newt"))
    assert module.pretrained_cfg["label_names"] == ["cat", "dog", "newt"]
    assert_equal_preprocessing(model, module)
    (tmp_path / "model.json").unlink()
    again = vit_jax.load_model(weights=tmp_path)
    assert again.class_names == ("cat", "dog", "newt")
    assert_equal_preprocessing(again, module)


@pytest.mark.parametrize("side", [32, 96, 224, 384, 518])
def test_the_written_crop_is_what_timm_resizes_to(side: int) -> None:

    for short_side in range(side, 2 * side):
        config = ModelConfig(
            image_size=side,
            num_classes=1,
            preprocessing=PreprocessingConfig(resize="short_side", short_side=short_side),
        )
        share = write_config(config.completed(), None)["pretrained_cfg"]["crop_pct"]
        assert math.floor(side / share) == short_side


def test_convert_to_timm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = redrawn_model("ViT-Ti/16", image_size=64, num_classes=5, pooling="gap_timm")
    write_weights(tmp_path / "google.npz", model_params(model), model.config)
    source, target = tmp_path / "google.npz", tmp_path / "hub" / "model.safetensors"
    command = ["convert", f"--source={source}", f"--target={target}", "--layout=timm"]
    assert main(command) == 0
    assert str(target) in capsys.readouterr().out
    assert_equal(model, timm.create_model(f"local-dir:{target.parent}", pretrained=True).eval())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": "attention"}, "attention pooling"),
        ({"representation_size": 9}, "representation layer"),
        ({"positions": "sincos2d"}, "fixed positions"),
        ({"positions": "none", "pooling": "gap"}, "positions"),
        ({"norm_epsilon": 1e-3}, "norm_epsilon"),
    ],
)
def test_a_form_that_timm_has_not_is_refused(
    tmp_path: Path, options: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = redrawn_model("ViT-Ti/16", image_size=32, num_classes=5, depth=1, **options)
    write_weights(tmp_path / "google.npz", model_params(model), model.config)
    source, target = tmp_path / "google.npz", tmp_path / "vit.safetensors"
    command = ["convert", f"--source={source}", f"--target={target}", "--layout=timm"]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: timm's ViT has no") and words in line
    assert not target.exists()
