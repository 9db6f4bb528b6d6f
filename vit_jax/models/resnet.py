"""ResNets with group normalisation and weight standardisation (section 4.1), and their units.

ResNets and hybrids share the backbone; a hybrid may use fewer stages.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vit_jax.models.config import ModelConfig
from vit_jax.models.model import Model, head
from vit_jax.models.placement import OneDevice, Placement
from vit_jax.models.rematerialisation import Remat, block_input, rematerialised
from vit_jax.parameters import Parameter, Table, nested, norm

GROUPS = 32

# Jitted, so that it is traced once for all convolutions of a shape.
_lecun = jax.jit(nnx.initializers.lecun_normal(), static_argnums=(1, 2))

_KERNEL = ("height", "columns", "inputs", "channels")


def parameters(config: ModelConfig) -> dict[str, Parameter]:
    """Describes the parameters of a ResNet."""
    return {**nested("backbone", backbone_parameters(config)), **head(config, "channels")}


def backbone_parameters(config: ModelConfig, between: Table | None = None) -> dict[str, Parameter]:
    """Describes the parameters of a `Backbone`.

    Args:
      between: what each unit has between its convolutions of 1 pixel; by default a convolution of 3
        pixels and its norm.
    """
    assert config.resnet is not None
    is_pre = config.activation_order == "pre"
    table = {"root/kernel": Parameter(_KERNEL, "kernel", "stem")}
    table |= nested("norm", norm("channels", "norm")) if is_pre else {}
    table |= nested("root_norm", norm("channels", "stem")) if not is_pre else {}
    between = _conv(2) if between is None else between
    for stage, units in enumerate(config.resnet.stages, start=1):
        for unit in range(1, units + 1):
            own = _unit(between, projects=unit == 1, is_pre=is_pre)
            table |= nested(f"stage{stage}/unit{unit}", own)
    return table


def _conv(i: int) -> dict[str, Parameter]:
    """The `i`-th convolution of a unit, and its norm."""
    kernel = Parameter(_KERNEL, "kernel", "stage")
    return {f"conv{i}/kernel": kernel} | nested(f"norm{i}", norm("channels", "stage"))


def _unit(between: Table, *, projects: bool, is_pre: bool) -> Table:
    table: dict[str, Parameter] = {**_conv(1), **between, **_conv(3)}
    if projects:
        table["projection/kernel"] = Parameter(_KERNEL, "kernel", "stage")
        if not is_pre:
            table |= nested("projection_norm", norm("channels", "stage"))
    return table


class StandardizedConv(nnx.Module):
    """A convolution without bias whose filters have mean 0 and variance 1 (arXiv 1903.10520).

    Statistics are over height, width and input channels. The authors' code for the two orders of
    units differs in where it adds a small number and in how it pads. A pre-activation ResNet pads
    both sides alike. A post-activation ResNet pads as `SAME`: one more at the bottom and right if
    the stride is 2 and the side is even.
    """

    def __init__(
        self,
        config: ModelConfig,
        inputs: int,
        outputs: int,
        size: int,
        stride: int = 1,
        *,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(_lecun(rngs.params(), (size, size, inputs, outputs), jnp.float32))
        self.strides = (stride, stride)
        self.order = config.activation_order

    def __call__(self, x: Array) -> Array:
        """[batch, height, width, inputs] -> [batch, height / stride, width / stride, outputs]."""
        kernel = self.kernel[...]
        kernel = kernel - kernel.mean(axis=(0, 1, 2))
        variance = jnp.square(kernel).mean(axis=(0, 1, 2))
        if self.order == "pre":
            kernel = kernel / jnp.sqrt(variance + 1e-10)
        else:
            kernel = kernel / (jnp.sqrt(variance) + 1e-5)
        return jax.lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            self.strides,
            _padding(self.order, kernel.shape[0]),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class GroupNorm(nnx.Module):
    """Normalises over all positions and a group of channels (arXiv 1803.08494), in float32.

    Computed as in flax. But flax's own module takes a random key for each of its constants, which
    makes tracing slow: the time grows with the square of the number of units.
    """

    def __init__(self, config: ModelConfig, channels: int, *, initial_scale: float = 1.0):
        assert config.norm_epsilon is not None
        self.scale = nnx.Param(jnp.full((channels,), initial_scale))
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.epsilon = config.norm_epsilon

    def __call__(self, x: Array) -> Array:
        """[batch, height, width, channels] -> the same."""
        grouped = x.astype(jnp.float32).reshape(*x.shape[:3], GROUPS, -1)
        axes = (1, 2, 4)
        mean = grouped.mean(axes, keepdims=True)
        # In one pass over the input; rounding may make it negative.
        variance = jnp.square(grouped).mean(axes, keepdims=True) - jnp.square(mean)
        scale, bias = (p[...].reshape(GROUPS, -1) for p in (self.scale, self.bias))
        scale = jax.lax.rsqrt(jnp.maximum(variance, 0) + self.epsilon) * scale
        return ((grouped - mean) * scale + bias).reshape(x.shape).astype(x.dtype)


class Unit(nnx.Module):
    """Bottleneck residual unit: convolutions of 1, 3 and 1 pixels; the second has the stride.

    If the output has another shape than the input, the input is projected.
    """

    def __init__(
        self, config: ModelConfig, inputs: int, width: int, stride: int, *, rngs: nnx.Rngs
    ):
        is_pre, outputs = config.activation_order == "pre", 4 * width
        self.conv1 = StandardizedConv(config, inputs, width, 1, rngs=rngs)
        self.norm1 = GroupNorm(config, inputs if is_pre else width)
        self.conv2 = StandardizedConv(config, width, width, 3, stride, rngs=rngs)
        self.norm2 = GroupNorm(config, width)
        self.conv3 = StandardizedConv(config, width, outputs, 1, rngs=rngs)
        # A norm after the last convolution starts at zero, so that the unit starts as the identity.
        self.norm3 = GroupNorm(config, width if is_pre else outputs, initial_scale=float(is_pre))
        self.is_pre = is_pre
        self.projects = inputs != outputs or stride != 1
        if self.projects:
            self.projection = StandardizedConv(config, inputs, outputs, 1, stride, rngs=rngs)
            if not is_pre:
                self.projection_norm = GroupNorm(config, outputs)

    def __call__(self, x: Array) -> Array:
        """[batch, height, width, inputs] -> [batch, height / stride, width / stride, 4 * width]."""
        return self._pre(x) if self.is_pre else self._post(x)

    def _post(self, x: Array) -> Array:
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = jax.nn.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        if self.projects:
            x = self.projection_norm(self.projection(x))
        return jax.nn.relu(x + y)

    def _pre(self, x: Array) -> Array:
        y = jax.nn.relu(self.norm1(x))
        if self.projects:
            x = self.projection(y)
        y = jax.nn.relu(self.norm2(self.conv1(y)))
        y = jax.nn.relu(self.norm3(self.conv2(y)))
        return x + self.conv3(y)


class Stage(nnx.Module):
    """Units at one resolution, `unit1` and so on; the first one has the stride."""

    def __init__(
        self,
        make: Callable[..., nnx.Module],
        config: ModelConfig,
        inputs: int,
        width: int,
        stride: int,
        units: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.names = tuple(f"unit{i + 1}" for i in range(units))
        for i, name in enumerate(self.names):
            unit = make(config, 4 * width if i else inputs, width, 1 if i else stride, rngs=rngs)
            setattr(self, name, unit)
        # The only products with parameters are convolutions, which `dots` does not keep.
        self.remat: Remat = "none" if config.remat == "dots" else config.remat

    def __call__(self, x: Array, placement: Placement) -> Array:
        """[batch, height, width, inputs] -> [batch, height / stride, width / stride, 4 * width]."""
        for name in self.names:
            graphdef, params = nnx.split(getattr(self, name))

            def run(params: Any, x: Array, graphdef: Any = graphdef) -> Array:
                return nnx.merge(graphdef, params)(block_input(x))

            unit = run if self.remat == "none" else rematerialised(run, self.remat)
            x = placement.constrain(unit(params, x))
        return x


class Backbone(nnx.Module):
    """The root (7x7 convolution and 3x3 maximum, stride 2 each), then `stage1`, `stage2`, ...

    Args:
      make: makes a unit, from what `Unit` takes.
    """

    def __init__(
        self, config: ModelConfig, make: Callable[..., nnx.Module] = Unit, *, rngs: nnx.Rngs
    ):
        size = config.resnet
        assert size is not None
        inputs = size.root_width
        self.root = StandardizedConv(config, 3, inputs, 7, 2, rngs=rngs)
        if config.activation_order == "post":
            self.root_norm = GroupNorm(config, inputs)
        self.names = tuple(f"stage{i + 1}" for i in range(len(size.stages)))
        for i, (name, units) in enumerate(zip(self.names, size.stages, strict=True)):
            width, stride = size.root_width * 2**i, 2 if i else 1
            setattr(self, name, Stage(make, config, inputs, width, stride, units, rngs=rngs))
            inputs = 4 * width
        if config.activation_order == "pre":
            self.norm = GroupNorm(config, inputs)
        self.order, self.root_pool = config.activation_order, config.root_pool

    def __call__(self, x: Array, placement: Placement) -> Array:
        """[batch, height, width, 3] -> [batch, height / stride, width / stride, channels]."""
        x = self.root(x)
        if self.order == "post":
            x = jax.nn.relu(self.root_norm(x))
        x = placement.constrain(self._maximum(x))
        for name in self.names:
            x = getattr(self, name)(x, placement)
        return jax.nn.relu(self.norm(x)) if self.order == "pre" else x

    def _maximum(self, x: Array) -> Array:
        """The root's 3x3 maximum with stride 2."""
        padding = _padding(self.order, 3)
        if not isinstance(padding, str):
            padding = [(0, 0), *padding, (0, 0)]
            if self.root_pool == "zeros":
                # No ReLU comes before, so a zero at the border may be the largest value.
                x, padding = jnp.pad(x, padding), "VALID"
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


class ResNet(Model):
    """A ResNet whose head sees the mean over the positions of the last stage.

    `R50x1` has post-activation units like the hybrids; `BiT-R50x1` has the pre-activation units of
    BiT (arXiv 1912.11370).
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config)
        size = self.config.resnet
        assert size is not None
        self.backbone = self._backbone(rngs)
        self._add_head(size.channels, rngs)

    def _backbone(self, rngs: nnx.Rngs) -> Backbone:
        return Backbone(self.config, rngs=rngs)

    def patches(self, images: Array, *, placement: Placement | None = None) -> Array:
        """See `Model.patches`."""
        x = self.backbone(self._checked(images), placement or OneDevice())
        return x.reshape(x.shape[0], -1, x.shape[-1])

    def pool(self, tokens: Array, *, key: Array | None = None) -> Array:
        """See `Model.pool`."""
        del key
        return tokens.mean(axis=1)


def _padding(order: str, size: int) -> str | list[tuple[int, int]]:
    return "SAME" if order == "post" else [(size // 2, size // 2)] * 2
