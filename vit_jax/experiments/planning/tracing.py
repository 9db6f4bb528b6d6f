"""What an image costs a training step: read from the traced objective, without compiling it."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.training.config import TrainConfig
from vit_jax.training.program import Program, make_program

# Rows of the traced batch: a prime that is no other axis, so that the axis of the batch shows.
_ROWS = 8191
# Arrays of a TPU lie in tiles of so many rows and columns; the rest of the last ones is padding.
_TILE_ROWS, _TILE_COLUMNS = 8, 128


@dataclass(frozen=True)
class Traced:
    """What one device does for one image, with the whole model on it.

    Attributes:
      kept_blocks: bytes that the stacked blocks keep of the image for the backward pass.
      kept_rest: bytes that is kept of it before and behind them.
      depth: number of stacked blocks; 0 for a model without.
      largest: bytes of the largest product of the image, kept or recomputed: hidden units, or the
        scores of attention.
      widest: bytes of the largest product of the image and a parameter.
      keeps_all: whether nothing is recomputed.
      itemsize: bytes of a number of the activations.
      flops: operations of matrix products and convolutions, forward, backward and recomputed.
      image_bytes: what these products read and write of the image's arrays.
      parameter_bytes: what they read and write of parameters and their gradients, once for all
        images of a micro-batch.
    """

    kept_blocks: float
    kept_rest: float
    depth: int
    largest: float
    widest: float
    keeps_all: bool
    itemsize: int
    flops: float
    image_bytes: float
    parameter_bytes: float

    @property
    def kept(self) -> float:
        """All bytes that are kept of the image."""
        return self.kept_blocks + self.kept_rest


def trace(config: TrainConfig, max_labels: int | None, device: Any) -> Traced:
    """Traces the objective and its gradient.

    Args:
      config: with nothing of the model left open. Its `model.remat` decides what is kept.
      max_labels: the training data's; None for one label a record.
      device: of the platform that the step is for; it may be absent.
    """
    pull, shapes = _objective(config, max_labels, device)
    depth = 0 if config.model.blocks is None else config.model.blocks.depth
    is_tiled = device.platform == "tpu"
    blocks, rest = _kept(pull, shapes, depth, is_tiled=is_tiled)

    def gradient(*arguments: Any) -> Any:
        return pull(*arguments)(np.float32(1))

    products = list(_products(jax.make_jaxpr(gradient)(*shapes).jaxpr, 1))
    return Traced(
        sum(blocks),
        sum(rest),
        depth,
        largest=max(_bytes_of_image(p.result, is_tiled=is_tiled) for p in products),
        widest=max(_bytes_of_image(p.result, is_tiled=False) for p in products if p.other_bytes),
        keeps_all=config.model.remat == "none",
        itemsize=2 if config.model.dtype == "bfloat16" else 4,
        flops=sum(product.flops for product in products) / _ROWS,
        image_bytes=sum(product.image_bytes for product in products),
        parameter_bytes=sum(product.other_bytes for product in products),
    )


def _objective(
    config: TrainConfig, max_labels: int | None, device: Any
) -> tuple[Callable[..., Any], tuple[Any, Any, Any]]:
    """The forward pass as a function that returns its pull-back, and the shapes that it takes."""
    program = _program(config, max_labels, device)

    def pull(params: Any, batch: Any, fixed: Any) -> Any:
        key = jax.random.key(0)
        batch = program.objective.prepare(batch, (key, key))

        def loss(params: Any) -> jax.Array:
            return program.objective.losses(params, fixed, batch, key).losses.sum()

        return jax.vjp(loss, params)[1]

    return pull, (program.state.params, program.batch, program.fixed)


def _kept(
    pull: Callable[..., Any], shapes: tuple[Any, Any, Any], depth: int, *, is_tiled: bool
) -> tuple[list[float], list[float]]:
    """Bytes that are kept of an image, for each array: those of stacked blocks, and the others."""
    blocks: list[float] = []
    rest: list[float] = []
    # A pull-back is a tree whose leaves are what it keeps.
    for leaf in jax.tree.leaves(jax.eval_shape(pull, *shapes)):
        size = _bytes_of_image(leaf, is_tiled=is_tiled)
        (blocks if depth and leaf.shape[:1] == (depth,) else rest).append(size)
    return blocks, rest


def _program(config: TrainConfig, max_labels: int | None, device: Any) -> Program:
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, batch_size=_ROWS),
        optimizer=dataclasses.replace(config.optimizer, micro_batches=1),
        mesh=MeshConfig(),
    )
    return make_program(config, 2**31, make_mesh(MeshConfig(), [device]), max_labels)


def _rows(shape: tuple[int, ...]) -> list[int]:
    return [axis for axis, length in enumerate(shape) if length and length % _ROWS == 0]


def _size(aval: Any) -> float:
    itemsize = getattr(aval.dtype, "itemsize", 4)
    return float(math.prod(aval.shape)) * itemsize


def _bytes_of_image(aval: Any, *, is_tiled: bool) -> float:
    """Bytes of an array for each row of the batch; 0 if it has none."""
    rows = _rows(aval.shape)
    if not rows:
        return 0.0
    lengths = [length for axis, length in enumerate(aval.shape) if axis not in rows]
    return _size(aval) / _ROWS * (_padding(lengths) if is_tiled else 1.0)


def _padding(lengths: list[int]) -> float:
    """How much larger tiles are than the array in them, with the axes that fill them best.

    Args:
      lengths: of all axes but the batch's, which may be the tiles' rows.
    """

    def ratio(length: int, tile: int) -> float:
        return -(-length // tile) * tile / length

    columns = [(ratio(length, _TILE_COLUMNS), axis) for axis, length in enumerate(lengths)]
    if not columns or min(lengths[axis] for _, axis in columns) == max(lengths) == 1:
        return 1.0  # The batch itself lies along the columns.
    best, axis = min(columns)
    others = [ratio(length, _TILE_ROWS) for i, length in enumerate(lengths) if i != axis]
    return best * min(others, default=1.0)


class _Product(NamedTuple):
    """One matrix product or convolution, as often as it runs.

    Attributes:
      image_bytes: of operands and results that belong to single images, for one image.
      other_bytes: of the others.
      result: its shape and type.
    """

    flops: float
    image_bytes: float
    other_bytes: float
    result: Any


def _products(jaxpr: Any, times: float) -> Iterator[_Product]:
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            yield _product(eqn, _dot_flops(eqn), times)
        elif name == "conv_general_dilated":
            yield _product(eqn, _conv_flops(eqn), times)
        elif name == "pallas_call":
            grid = math.prod(int(length) for length in eqn.params["grid_mapping"].grid)
            inner = sum(p.flops for j in _inner(eqn) for p in _products(j, grid))
            yield _product(eqn, inner, times)
        else:
            count = eqn.params["length"] if name == "scan" else 1
            for each in _inner(eqn):
                yield from _products(each, times * count)


def _inner(eqn: Any) -> Iterator[Any]:
    for value in eqn.params.values():
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, core.Jaxpr):
                yield each


def _product(eqn: Any, flops: float, times: float) -> _Product:
    avals = [each.aval for each in (*eqn.invars, *eqn.outvars)]
    images = sum(_bytes_of_image(aval, is_tiled=False) for aval in avals)
    others = sum(_size(aval) for aval in avals if not _rows(aval.shape))
    return _Product(flops * times, images * times, others * times, avals[-1])


def _dot_flops(eqn: Any) -> float:
    """Two for each multiply-add."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _conv_flops(eqn: Any) -> float:
    """Two for each multiply-add, without those by the zeros that a dilation puts in."""
    kernel, numbers = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"]
    outputs = kernel[numbers.rhs_spec[0]]
    places = math.prod(kernel) / outputs / math.prod(eqn.params["lhs_dilation"])
    groups = eqn.params["batch_group_count"]
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * places / groups
