"""Weight files that version 0.1.0 wrote load, and give the logits that they gave there."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.weights.files import open_weights
from vit_jax.weights.load import load_model

FILES = Path(__file__).parents[1] / "data/version_0_1_0/weights"
LOGITS = json.loads((FILES / "logits.json").read_text())


# Their descriptions have null for what a family lacks, and "absent" for a model without positions.
@pytest.mark.parametrize("name", LOGITS)
def test_the_logits_stay(name: str) -> None:
    model = load_model(weights=FILES / f"{name}.npz")
    shape = (2, *model.config.input_size, 3)
    images = np.linspace(-1, 1, np.prod(shape), dtype=np.float32).reshape(shape)
    actual = jax.jit(lambda x: model(x))(images)
    np.testing.assert_allclose(actual, LOGITS[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOGITS)
def test_nothing_is_assumed(name: str) -> None:
    weights = open_weights(FILES / f"{name}.npz")
    assert weights.assumed == {}
    stated = json.loads((FILES / f"{name}.json").read_text())
    assert weights.class_names == tuple(stated["class_names"])
    assert {key: stated[key] for key in ("step", "averaged", "loss")} == weights.extra


def test_a_model_without_positions_has_none() -> None:
    model = load_model(weights=FILES / "absent.npz")
    images = jax.random.normal(jax.random.key(0), (1, 16, 16, 3))
    # The patches in another order.
    shuffled = jnp.roll(images.reshape(1, 2, 8, 16, 3), 1, axis=1).reshape(images.shape)
    np.testing.assert_allclose(model(images), model(shuffled), rtol=1e-5, atol=1e-5)
