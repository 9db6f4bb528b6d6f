"""AxialResNet (appendix D.6, Figure 13): attention in place of the 3x3 convolutions of a ResNet.

A position attends to those of its column, then to those of its row, with relative positions for
queries, keys and values, as in Axial-DeepLab (arXiv 2003.07853, section 3.2). The paper states no
more. All else is as in the code that its co-authors published in Scenic: 8 heads; queries and keys
half as wide as values; one projection without a bias; group norms after it and after the
attention, over the positions of one row or column; scores that are not scaled; and a mean over 2x2
positions in place of a stride. One choice is ours: initial values, which are as in Axial-DeepLab.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vit_jax.models.config import ModelConfig
from vit_jax.models.model import head
from vit_jax.models.resnet import Backbone, GroupNorm, ResNet, StandardizedConv, backbone_parameters
from vit_jax.parameters import Parameter, Table, nested, norm

HEADS = 8

_AXIS: Table = {
    "qkv/kernel": Parameter(("inputs", "channels"), "kernel", "stage"),
    **nested("qkv_norm", norm("channels", "stage")),
    "offset_embedding": Parameter(("positions", "head_size"), "embedding", "stage"),
    **nested("norm", norm("channels", "stage")),
}


def parameters(config: ModelConfig) -> dict[str, Parameter]:
    """Describes the parameters of an AxialResNet."""
    between = {**nested("columns", _AXIS), **nested("rows", _AXIS)}
    backbone = backbone_parameters(config, between)
    return {**nested("backbone", backbone), **head(config, "channels")}


def sides_before(config: ModelConfig, stage: int, stride: int) -> tuple[int, int]:
    """Rows and columns that the attention of a unit sees; the stride comes after it.

    Args:
      stage: counted from 0.
      stride: of the unit.
    """
    pixels = 4 * 2**stage // stride
    rows, columns = (-(-side // pixels) for side in config.input_size)
    return rows, columns


class LineAttention(nnx.Module):
    """Attention among the positions of each line, with relative positions.

    Scores are q_i k_j + q_i r^k_{i-j} + k_j r^q_{i-j}; values are v_j + r^v_{i-j}.
    """

    def __init__(self, config: ModelConfig, width: int, length: int, *, rngs: nnx.Rngs):
        size = width // HEADS

        def draw(shape: tuple[int, int], variance: float) -> nnx.Param[Array]:
            return nnx.Param(jax.random.normal(rngs.params(), shape) * np.float32(variance**0.5))

        self.qkv = nnx.Linear(
            width,
            2 * width,
            use_bias=False,
            kernel_init=nnx.initializers.normal(width**-0.5),
            dtype=config.dtype,
            rngs=rngs,
        )
        self.qkv_norm = GroupNorm(config, 2 * width)
        self.offset_embedding = draw((2 * length - 1, 2 * size), 1 / size)
        self.norm = GroupNorm(config, width)

    def __call__(self, x: Array) -> Array:
        """[lines, length, width] -> the same."""
        lines, length, width = x.shape
        size = width // HEADS
        mixed = _normed(self.qkv_norm, self.qkv(x)).reshape(lines, length, HEADS, 2 * size)
        query, key, value = jnp.split(mixed, [size // 2, size], axis=-1)
        place = np.arange(length)
        # [query, key, channel]; the first row of the table is the first place less the last.
        offsets = self.offset_embedding[...][place[:, None] - place + length - 1].astype(x.dtype)
        of_query, of_key, of_value = jnp.split(offsets, [size // 2, size], axis=-1)

        def scores(formula: str, one: Array, other: Array) -> Array:
            return jnp.einsum(formula, one, other, preferred_element_type=jnp.float32)

        weights = jax.nn.softmax(
            scores("bihd,bjhd->bhij", query, key)
            + scores("bihd,ijd->bhij", query, of_key)
            + scores("bjhd,ijd->bhij", key, of_query)
        ).astype(x.dtype)
        mixed = jnp.einsum("bhij,bjhd->bihd", weights, value)
        mixed += jnp.einsum("bhij,ijd->bihd", weights, of_value)
        return _normed(self.norm, mixed.reshape(lines, length, width))


def _normed(norm: GroupNorm, lines: Array) -> Array:
    """Each line [length, width] normalised on its own."""
    return norm(lines[:, None])[:, 0]


class AxialUnit(nnx.Module):
    """Bottleneck residual unit: a convolution of 1 pixel, attention along both axes, another."""

    def __init__(
        self, config: ModelConfig, inputs: int, width: int, stride: int, *, rngs: nnx.Rngs
    ):
        assert config.resnet is not None
        outputs = 4 * width
        stage = (width // config.resnet.root_width).bit_length() - 1
        rows, columns = sides_before(config, stage, stride)
        self.conv1 = StandardizedConv(config, inputs, width, 1, rngs=rngs)
        self.norm1 = GroupNorm(config, width)
        self.columns = LineAttention(config, width, rows, rngs=rngs)
        self.rows = LineAttention(config, width, columns, rngs=rngs)
        self.conv3 = StandardizedConv(config, width, outputs, 1, rngs=rngs)
        # It starts at zero, so that the unit starts as the identity.
        self.norm3 = GroupNorm(config, outputs, initial_scale=0.0)
        self.projects = inputs != outputs or stride != 1
        if self.projects:
            self.projection = StandardizedConv(config, inputs, outputs, 1, stride, rngs=rngs)
            self.projection_norm = GroupNorm(config, outputs)
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        """[batch, height, width, inputs] -> [batch, height / stride, width / stride, 4 * width]."""
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        batch, rows, columns, width = y.shape
        y = self.columns(y.swapaxes(1, 2).reshape(batch * columns, rows, width))
        y = y.reshape(batch, columns, rows, width).swapaxes(1, 2)
        y = self.rows(y.reshape(batch * rows, columns, width)).reshape(batch, rows, columns, width)
        y = jax.nn.relu(_mean_of_four(y) if self.stride == 2 else y)
        y = self.norm3(self.conv3(y))
        if self.projects:
            x = self.projection_norm(self.projection(x))
        return jax.nn.relu(x + y)


def _mean_of_four(x: Array) -> Array:
    """The mean over 2x2 positions; zeros stand after the last of an odd number."""
    zero = np.zeros((), x.dtype)
    return jax.lax.reduce_window(x, zero, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "SAME") / 4


class AxialResNet(ResNet):
    """A ResNet with attention along columns and rows in place of its 3x3 convolutions."""

    def _backbone(self, rngs: nnx.Rngs) -> Backbone:
        return Backbone(self.config, AxialUnit, rngs=rngs)
