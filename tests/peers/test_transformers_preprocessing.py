"""Images prepared as Hugging Face's processors prepare them, both ways."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import (
    AutoImageProcessor,
    CLIPImageProcessor,
    DeiTImageProcessor,
    ViTImageProcessor,
)

import vit_jax
from tests.peers.drawn import photograph, redrawn_model
from tests.peers.like_transformers import made, write
from vit_jax.errors import UserError

PHOTOGRAPHS = (photograph(150, 100), photograph(60, 120))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PREPROCESSINGS: dict[str, Any] = {
    "squash": {"antialias": True},
    "squash, bicubic": {"interpolation": "bicubic", "antialias": True, **IMAGENET},
    "crop": {"resize": "short_side", "short_side": 72, "antialias": True, **IMAGENET},
    "whole crop, bicubic": {
        "resize": "short_side",
        "interpolation": "bicubic",
        "antialias": True,
    },
}


def _assert_equal_preprocessing(model: Any, directory: Any, images: Any = PHOTOGRAPHS) -> None:
    """To one level of 255 where torchvision resizes in the place of Pillow.

    The margins of these crops are even; of an odd one Hugging Face leaves off the smaller half at
    the top and the left, torchvision and we round it to even.
    """
    level = 1 / (255 * np.asarray(model.config.preprocessing.std))
    for backend, bar in (("pil", 1e-5), ("torchvision", level + 1e-5)):
        processor = AutoImageProcessor.from_pretrained(directory, backend=backend)
        for image in images:
            (theirs,) = processor(images=image, return_tensors="np")["pixel_values"]
            (ours,) = vit_jax.preprocess([image], model)
            difference = np.abs(ours - theirs.transpose(1, 2, 0))
            assert difference.shape == ours.shape and (difference <= bar).all()


@pytest.mark.parametrize("form", PREPROCESSINGS)
def test_transformers_prepares_images_as_what_we_write_says(tmp_path: Path, form: Any) -> None:
    model = redrawn_model(
        "ViT-Ti/16",
        image_size=(48, 80) if form == "squash" else 64,
        num_classes=3,
        depth=1,
        preprocessing=PREPROCESSINGS[form],
    )
    write(tmp_path, model)
    _assert_equal_preprocessing(model, tmp_path)
    (tmp_path / "model.json").unlink()
    again = vit_jax.load_model(weights=tmp_path)
    _assert_equal_preprocessing(again, tmp_path)


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessor(size={"height": 64, "width": 64}),
        ViTImageProcessor(size={"height": 64, "width": 64}, resample=3, image_mean=[0.1, 0.2, 0.3]),
        CLIPImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
    ],
    ids=["squash", "squash, bicubic", "crop"],
)
def test_we_prepare_images_as_a_saved_processor(tmp_path: Path, processor: Any) -> None:
    made().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    _assert_equal_preprocessing(vit_jax.load_model(weights=tmp_path), tmp_path)


def test_a_square_that_is_cropped(tmp_path: Path) -> None:
    """DeiT's form there; other aspects than a square we keep, as DeiT itself did."""
    made().save_pretrained(tmp_path)
    DeiTImageProcessor(size={"height": 72, "width": 72}, crop_size=64).save_pretrained(tmp_path)
    model = vit_jax.load_model(weights=tmp_path)
    assert model.config.preprocessing.short_side == 72
    _assert_equal_preprocessing(model, tmp_path, [photograph(100, 100)])


def test_a_crop_that_would_be_padded_is_refused(tmp_path: Path) -> None:
    model = redrawn_model(
        "ViT-Ti/16",
        image_size=(48, 80),
        num_classes=3,
        depth=1,
        preprocessing=PREPROCESSINGS["crop"] | {"short_side": 48},
    )
    with pytest.raises(UserError, match="no crop of 48x80 pixels"):
        write(tmp_path, model)
    assert not list(tmp_path.iterdir())
