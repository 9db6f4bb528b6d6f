"""What a ResNet costs, as a model of its own or in a hybrid."""

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from vit_jax.models.config import ModelConfig

Sides = tuple[int, int]


def backbone_macs(
    config: ModelConfig, between: Callable[[Sides, int], int] | None = None
) -> dict[str, int]:
    """Multiply-adds of one image's forward pass, by part of the ResNet.

    A convolution counts where its kernel meets the image, as XLA counts too: with the zeros around
    it, a ResNet-50 at 224 pixels would have 5 % more.

    Args:
      between: (rows and columns, channels) -> multiply-adds of what each unit has in place of its
        3x3 convolution, before its stride.
    """
    macs: dict[str, int] = {}
    for part, products in _convolutions(config, between):
        macs[part] = macs.get(part, 0) + products
    return macs


def _convolutions(
    config: ModelConfig, between: Callable[[Sides, int], int] | None
) -> Iterator[tuple[str, int]]:
    """For each convolution its part of the model and its multiply-adds."""
    assert config.resnet is not None
    is_same = config.activation_order == "post"

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
            if between is None:
                yield part, products(sides, 3, stride) * width**2
            else:
                yield part, between(sides, width)
            sides = _halved(sides) if stride == 2 else sides
            yield part, products(sides, 1) * width * 4 * width
            if not unit:
                yield part, products(sides, 1) * inputs * 4 * width
            inputs = 4 * width


def _halved(sides: Sides) -> Sides:
    return -(-sides[0] // 2), -(-sides[1] // 2)


def _products(side: int, kernel: int, stride: int, is_same: bool) -> int:
    """Pairs of an output and a place of the kernel along one axis that lie within the input."""
    outputs = -(-side // stride)
    padding = max((outputs - 1) * stride + kernel - side, 0)
    starts = np.arange(outputs) * stride - (padding // 2 if is_same else kernel // 2)
    return int((np.minimum(starts + kernel, side) - np.maximum(starts, 0)).sum())


def backbone_kept(
    config: ModelConfig, between: Callable[[Sides, int], int] | None = None
) -> dict[str, int]:
    """Numbers that the residual unit of each stage that keeps most keeps for the backward pass.

    Args:
      between: (rows and columns, channels) -> what each unit keeps of what it has in place of its
        3x3 convolution.
    """
    assert config.resnet is not None
    kept, inputs = {}, config.resnet.root_width
    after = _halved(_halved(config.input_size))
    for stage in range(len(config.resnet.stages)):
        width = config.resnet.root_width * 2**stage
        before, after = after, _halved(after) if stage else after
        of_unit = functools.partial(_unit, config, width=width, after=after, between=between)
        first = of_unit(inputs=inputs, before=before, projects=True)
        inputs = 4 * width
        later = of_unit(inputs=inputs, before=after, projects=False)
        has_later = config.resnet.stages[stage] > 1
        kept[f"backbone/stage{stage + 1}"] = max(first, later) if has_later else first
    return kept


def _unit(
    config: ModelConfig,
    inputs: int,
    width: int,
    before: Sides,
    after: Sides,
    between: Callable[[Sides, int], int] | None,
    *,
    projects: bool,
) -> int:
    """One unit, with `before` and `after` rows and columns on the two sides of its stride."""
    first, last = math.prod(before), math.prod(after)
    if config.remat == "block":
        return first * inputs
    if config.activation_order == "pre":
        # Before and after each norm, and after its ReLU.
        return first * 3 * (inputs + width) + last * 3 * width
    # The input; for the first norm, and for that of the 3x3 convolution, as above; the inputs of
    # the last norm, of the projection's norm and of the last ReLU.
    inner = last * 3 * width if between is None else between(before, width) + last * width
    return first * (inputs + 3 * width) + inner + last * (2 + projects) * 4 * width
