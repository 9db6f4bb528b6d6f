"""Parameters and multiply-adds of a model, counted in closed form."""

import jax
import numpy as np

from vit_jax.models.config import ModelConfig, family_of
from vit_jax.models.functional import abstract_params


def count_params(config: ModelConfig) -> dict[str, int]:
    """Parameters by part of the model, such as `embedding`, `blocks` and `head`.

    The root and the stages of a backbone are parts too: `backbone/root`, `backbone/stage1`, ...
    """
    params = abstract_params(config)
    backbone = params.pop("backbone", {})
    parts = {f"backbone/{name}": tree for name, tree in backbone.items()} | params
    return {
        part: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
        for part, tree in parts.items()
    }


def count_macs(config: ModelConfig) -> dict[str, int]:
    """Multiply-adds of one image's forward pass, by part of the model as in `count_params`.

    Only matrix products and convolutions count; norms, activations, softmax, biases and the
    standardisation of kernels are left out.
    """
    family = family_of(config)
    macs = family.macs(config)
    if config.num_classes:
        macs["head"] = family.features(config) * config.num_classes
    return macs


def training_flops(config: ModelConfig) -> int:
    """Floating-point operations of training on one image.

    Two for each multiply-add, three times over: forward, and backward to inputs and parameters.
    """
    return 6 * sum(count_macs(config).values())


def exaflops(config: ModelConfig, images: float) -> float:
    """Floating-point operations, in 10^18, of training on so many images (Figure 5, Table 6)."""
    return training_flops(config) * images / 1e18
