"""A real trained model, DeiT-Ti/16, in timm and here."""

from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from timm.data import create_transform

import vit_jax
from tests.peers.drawn import module_outputs, outputs

DATA = Path(__file__).parents[3] / "shared/data"
WEIGHTS, PHOTOGRAPH = DATA / "deit_tiny_patch16_224.safetensors", DATA / "cats.png"

pytestmark = pytest.mark.skipif(
    not (WEIGHTS.exists() and PHOTOGRAPH.exists()),
    reason=f"needs {WEIGHTS.name} and {PHOTOGRAPH.name}, which are not part of the package",
)


def test_logits_on_a_photograph() -> None:
    module = timm.create_model("deit_tiny_patch16_224", checkpoint_path=WEIGHTS).eval()
    transform = create_transform(  # as published: 256 pixels, of which 224
        input_size=224,
        crop_pct=224 / 256,
        interpolation="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    image = Image.open(PHOTOGRAPH)
    theirs = transform(image.convert("RGB")).permute(1, 2, 0)[None].numpy()

    model = vit_jax.load_model("ViT-Ti/16", weights=WEIGHTS)
    ours = vit_jax.preprocess([image], model)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    logits = outputs(model, ours)[0]
    np.testing.assert_allclose(logits, module_outputs(module, theirs)[0], rtol=0, atol=1e-3)
    assert list(np.argsort(-logits)[:3]) == [281, 282, 285]
    assert model.class_names is not None
    assert model.class_names[281].startswith("tabby")
