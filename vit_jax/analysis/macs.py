"""Parameters and multiply-adds of a model, counted in closed form."""

import jax
import numpy as np

from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params


def count_params(config: ModelConfig) -> dict[str, int]:
    """Parameters by part of the model, such as `embedding`, `blocks` and `head`."""
    return {
        part: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
        for part, tree in abstract_params(config).items()
    }


def count_macs(config: ModelConfig) -> dict[str, int]:
    """Multiply-adds of one image's forward pass, by part of the model.

    Only matrix products count; norms, activations, softmax and biases are left out.
    """
    depth, width, mlp_dim, _ = config.size
    rows, columns = config.grid
    patches, tokens = rows * columns, config.sequence_length
    macs = {
        "embedding": patches * config.patch_size**2 * 3 * width,
        "blocks": depth * (_attention(tokens, tokens, width) + 2 * tokens * width * mlp_dim),
    }
    if config.pooling == "attention":
        macs["pooling"] = _attention(1, tokens, width) + 2 * width * mlp_dim
    features = width
    if config.representation_size is not None:
        features = config.representation_size
        macs["pre_logits"] = width * features
    if config.num_classes:
        macs["head"] = features * config.num_classes
    return macs


def _attention(queries: int, keys: int, width: int) -> int:
    """Query and output projections, key and value projections, scores and mixing."""
    return (2 * queries + 2 * keys) * width**2 + 2 * queries * keys * width
