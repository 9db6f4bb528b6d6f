import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation.test_classification import COUNT, Images
from tests.small_models import SMALL, refusal
from vit_jax.inference.features import FeatureConfig, features, features_of_source
from vit_jax.inference.preprocess import preprocess
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import make_model

MODEL = dataclasses.replace(SMALL, image_size=(16, 24), depth=3, registers=2)
IMAGES = np.random.default_rng(0).normal(size=(2, 16, 24, 3)).astype(np.float32)
CAPTURED = ("features", "tokens", "layers", "normed_layers")


def test_the_last_blocks_next_to_each_other() -> None:
    """As DINO's get_intermediate_layers gives them, block by block."""
    model = make_model(MODEL, 0)
    _, captured = model(IMAGES, capture=CAPTURED)
    width = MODEL.size.width
    for norm, name in ((True, "normed_layers"), (False, "layers")):
        layers = np.asarray(captured[name])[-2:]
        found = np.asarray(features(model, IMAGES, FeatureConfig("class", 2, norm)))
        np.testing.assert_allclose(found[:, :width], layers[0, :, 0], rtol=1e-6)
        np.testing.assert_allclose(found[:, width:], layers[1, :, 0], rtol=1e-6)

        found = np.asarray(features(model, IMAGES, FeatureConfig("patches", 2, norm)))
        assert found.shape == (2, 2, 3, 2 * width)
        grid = layers[0, :, 1:7].reshape(2, 2, 3, width)
        np.testing.assert_allclose(found[..., :width], grid, rtol=1e-6)

        means = np.asarray(features(model, IMAGES, FeatureConfig("mean", 2, norm)))
        np.testing.assert_allclose(means, found.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


def test_one_block_is_the_normed_output() -> None:
    model = make_model(MODEL, 0)
    _, captured = model(IMAGES, capture=CAPTURED)
    tokens = np.asarray(captured["tokens"])
    np.testing.assert_array_equal(features(model, IMAGES, FeatureConfig("class")), tokens[:, 0])
    np.testing.assert_array_equal(features(model, IMAGES), captured["features"])


def test_a_source_in_record_order() -> None:
    """Images that cannot be read are left out; a batch that is not full changes nothing."""
    model = make_model(dataclasses.replace(SMALL, image_size=(8, 16), dtype="bfloat16"), 0)
    source = Images(5, broken=(4,))
    config = FeatureConfig("patches")
    found = features_of_source(model, source, config, batch_size=8, on_error="skip")
    kept = [i for i in range(COUNT) if i != 4]
    assert found.features.shape == (COUNT - 1, 1, 2, 32)
    assert found.features.dtype == np.float32
    assert found.labels.tolist() == source.labels[kept].tolist()
    images = preprocess([source.pixels[i] for i in kept], model)
    expected = jax.jit(lambda x: features(model, x, config))(images)
    np.testing.assert_allclose(found.features, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ["Mixer-B/16", "BiT-R50x1", "R50+ViT-B/32"])
def test_every_family_has_pooled_features(name: str) -> None:
    small = {"width": 32} if "Mixer" in name else {}
    model = make_model(ModelConfig(name, image_size=32, num_classes=2, **small), 0)
    assert features(model, jnp.zeros((1, 32, 32, 3))).shape[0] == 1


def test_refusals() -> None:
    vit = make_model(MODEL, 0)
    without = make_model(dataclasses.replace(MODEL, pooling="gap"), 0)
    resnet = make_model(ModelConfig("BiT-R50x1", image_size=32, num_classes=2), 0)
    assert "has no class token" in refusal(features, without, IMAGES, FeatureConfig("class"))
    assert "3 blocks" in refusal(features, vit, IMAGES, FeatureConfig("mean", 4))
    assert "has no tokens" in refusal(features, resnet, IMAGES, FeatureConfig("mean"))
    assert "would be ignored" in refusal(FeatureConfig, "pooled", 2)
    assert "at least 1" in refusal(FeatureConfig, "mean", 0)
