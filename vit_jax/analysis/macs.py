"""Parameters and multiply-adds of a model, counted in closed form."""

from collections.abc import Iterator

import jax
import numpy as np

from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params


def count_params(config: ModelConfig) -> dict[str, int]:
    """Parameters by part of the model, such as `embedding`, `blocks` and `head`.

    Those of a backbone are parts of their own, `backbone/root`, `backbone/stage1` and so on.
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
    standardisation of kernels are left out. A convolution counts where its kernel meets the image,
    as XLA counts too: with the zeros around it, a ResNet-50 at 224 pixels would have 5 % more.
    """
    macs: dict[str, int] = {}
    for part, products in _convolutions(config):
        macs[part] = macs.get(part, 0) + products
    if config.family == "resnet":
        assert config.resnet is not None
        features = config.resnet.channels
    else:
        blocks = _mixer(config) if config.family == "mixer" else _encoder(config)
        macs |= {"embedding": _embedding(config)} | blocks
        size = config.mixer_size if config.family == "mixer" else config.size
        features = config.representation_size or size.width
    if config.num_classes:
        macs["head"] = features * config.num_classes
    return macs


def training_flops(config: ModelConfig) -> int:
    """Floating-point operations of training on one image.

    Two for each multiply-add, three times over: forward, and backward to inputs and parameters.
    """
    return 6 * sum(count_macs(config).values())


def exaflops(config: ModelConfig, images: float) -> float:
    """Floating-point operations, in 10^18, of training on so many images (Figure 5, Table 6)."""
    return training_flops(config) * images / 1e18


def _embedding(config: ModelConfig) -> int:
    rows, columns = config.grid
    channels = config.resnet.channels if config.resnet else 3
    size = config.mixer_size if config.family == "mixer" else config.size
    return rows * columns * config.embedding_size**2 * channels * size.width


def _mixer(config: ModelConfig) -> dict[str, int]:
    depth, width, mlp_dim, token_mlp_dim = config.mixer_size
    return {"blocks": depth * 2 * config.sequence_length * width * (token_mlp_dim + mlp_dim)}


def _encoder(config: ModelConfig) -> dict[str, int]:
    depth, width, mlp_dim, _ = config.size
    tokens = config.sequence_length
    macs = {"blocks": depth * (_attention(tokens, tokens, width) + 2 * tokens * width * mlp_dim)}
    if config.pooling == "attention":
        macs["pooling"] = _attention(1, tokens, width) + 2 * width * mlp_dim
    if config.representation_size is not None:
        macs["pre_logits"] = width * config.representation_size
    return macs


def _attention(queries: int, keys: int, width: int) -> int:
    """Query and output projections, key and value projections, scores and mixing."""
    return (2 * queries + 2 * keys) * width**2 + 2 * queries * keys * width


def _convolutions(config: ModelConfig) -> Iterator[tuple[str, int]]:
    """The backbone's: the part of the model, and multiply-adds."""
    if config.resnet is None:
        return
    is_same = config.unit_order == "post"

    def products(sides: tuple[int, ...], kernel: int, stride: int = 1) -> int:
        rows, columns = (_products(side, kernel, stride, is_same) for side in sides)
        return rows * columns

    stages, _ = config.resnet
    inputs, sides = config.resnet.root_width, config.input_size
    yield "backbone/root", products(sides, 7, 2) * 3 * inputs
    sides = _halved(_halved(sides))  # the convolution and the maximum
    for stage, units in enumerate(stages):
        part, width = f"backbone/stage{stage + 1}", config.resnet.root_width * 2**stage
        for unit in range(units):
            stride = 2 if stage and not unit else 1
            yield part, products(sides, 1) * inputs * width
            yield part, products(sides, 3, stride) * width**2
            sides = _halved(sides) if stride == 2 else sides
            yield part, products(sides, 1) * width * 4 * width
            if not unit:
                yield part, products(sides, 1) * inputs * 4 * width
            inputs = 4 * width


def _halved(sides: tuple[int, int]) -> tuple[int, int]:
    return -(-sides[0] // 2), -(-sides[1] // 2)


def _products(side: int, kernel: int, stride: int, is_same: bool) -> int:
    """Pairs of an output and a place of the kernel along one axis that lie within the input."""
    outputs = -(-side // stride)
    padding = max((outputs - 1) * stride + kernel - side, 0)
    starts = np.arange(outputs) * stride - (padding // 2 if is_same else kernel // 2)
    return int((np.minimum(starts + kernel, side) - np.maximum(starts, 0)).sum())
