"""The package is imported without JAX and NumPy, and makes a model when it is asked for one."""

import sys

import vit_jax

assert "jax" not in sys.modules and "numpy" not in sys.modules
assert "ViT-B/16" in vit_jax.list_models()

import numpy as np  # noqa: E402

model = vit_jax.create_model("ViT-Ti/16", image_size=32, num_classes=7, depth=1, seed=1)
assert model(np.zeros((2, 32, 32, 3), np.float32)).shape == (2, 7)
try:
    vit_jax.create_modle  # type: ignore[attr-defined]  # noqa: B018
except AttributeError as error:
    assert "no attribute 'create_modle'" in str(error)
else:
    raise AssertionError("a misspelt name was found")
