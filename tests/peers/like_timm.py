"""Comparisons of a model and of its preprocessing with timm's."""

from typing import Any

import numpy as np
from timm.data import create_transform, resolve_data_config

import vit_jax
from tests.peers.drawn import assert_close, images_for, module_outputs, outputs, photograph

SIZES = {"Ti": "vit_tiny_patch16_224", "S": "vit_small_patch16_224", "B": "vit_base_patch16_224"}


def assert_equal(model: Any, module: Any, batch: int = 2) -> None:
    images = images_for(model, batch)
    assert_close(outputs(model, images), module_outputs(module, images))


def assert_equal_preprocessing(model: Any, module: Any) -> None:
    transform = create_transform(**resolve_data_config(model=module))
    for image in (photograph(150, 100), photograph(60, 120)):
        theirs = transform(image).permute(1, 2, 0)
        (ours,) = vit_jax.preprocess([image], model)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
