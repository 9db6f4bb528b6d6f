"""Vision Transformers in JAX and Flax, from the paper to a TPU pod.

    model = vit_jax.create_model("ViT-B/16", image_size=224, num_classes=1000, seed=0)
    model = vit_jax.load_model(weights="augreg/B_16", image_size=384, num_classes=10)
    images = vit_jax.preprocess([pil_image, "photo.jpg"], model)
    logits = model(images)  # float [batch, height, width, 3] -> [batch, num_classes]
    result = vit_jax.train("configs/quickstart.py", "runs/digits")  # weights, step and scores

`python -m vit_jax --help` lists the commands.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING

from vit_jax.version import __version__

if TYPE_CHECKING:
    from vit_jax.inference.preprocess import preprocess
    from vit_jax.models import create_model, list_models
    from vit_jax.training.loop import train
    from vit_jax.weights.load import load_model

__all__ = ["__version__", "create_model", "list_models", "load_model", "preprocess", "train"]

# Imported when they are first used: data workers import this package too, and start without JAX.
# Type checkers see the imports above instead, so that they report a name that does not exist.
if not TYPE_CHECKING:
    _HOMES = {
        "create_model": "vit_jax.models",
        "list_models": "vit_jax.models",
        "load_model": "vit_jax.weights.load",
        "preprocess": "vit_jax.inference.preprocess",
        "train": "vit_jax.training.loop",
    }

    class _Package(types.ModuleType):
        # Functions of these names in the module itself would be listed by `help(vit_jax)`.
        def __getattr__(self, name):
            if name in _HOMES:
                return getattr(importlib.import_module(_HOMES[name]), name)
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

        def __dir__(self):
            return [*self.__dict__, *_HOMES]

    sys.modules[__name__].__class__ = _Package
