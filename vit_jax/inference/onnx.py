"""A model as ONNX, through jax2onnx (extra `onnx`), checked in ONNX Runtime at once."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, export
from jax.extend.core import jaxpr_as_fun

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params, bind_model, model_params
from vit_jax.models.model import Model
from vit_jax.preprocessing import normalize

# What a file of protocol buffers can hold, less what the program itself takes.
_LARGEST = 2**31 - 2**24
# How far ONNX Runtime's logits may be from JAX's, in parts of the largest logit, or of 1 where
# it is smaller.
_TOLERANCE = 1e-4


def to_onnx(model: Model) -> bytes:
    """Returns an ONNX program from `images` to `logits`, with the parameters inside.

    It maps uint8 [batch, height, width, 3], resized and cropped but not normalised, to float32
    logits [batch, num_classes], for any batch size.

    Raises:
      UserError: the extra `onnx` is missing, jax2onnx cannot write this model, or ONNX Runtime
        computes other logits with what it wrote.
    """
    size = 4 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model)))
    if size > _LARGEST:
        raise UserError(
            f"{model.config.name} has {size / 1e9:.1f} GB of parameters, and an ONNX file holds 2; "
            "write it with --layout=stablehlo"
        )
    with _quiet():
        try:
            import jax2onnx
            import onnxruntime
        except ImportError as error:
            raise UserError(
                f"the layout onnx needs the package {error.name}: pip install 'vit_jax[onnx]'"
            ) from error
        # What every runtime has: no bfloat16, no kernel of one device.
        config = dataclasses.replace(model.config, dtype="float32", attention="xla")
        bound = functools.partial(_logits, config, model_params(model))
        serve, images = _traced(bound, config.input_size)
        try:
            program = jax2onnx.to_onnx(
                serve, [images], input_names=["images"], output_names=["logits"]
            )
            _pool_in_two_dimensions(program.graph)
            _drop_unused(program)
            data: bytes = program.SerializeToString()
            session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
            _check(session, bound, config.input_size)
        except UserError:
            raise
        except Exception as error:  # Its plugins raise nearly anything for what they lack.
            if isinstance(error, AttributeError):  # A name of JAX's that a newer version lacks.
                raise UserError(
                    f"the installed jax2onnx does not know jax {jax.__version__} ({error}); "
                    "install versions that fit together: pip install 'vit_jax[onnx]'"
                ) from error
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"jax2onnx cannot write {model.config.name} as ONNX ({reason}); write it with "
                "--layout=stablehlo"
            ) from error
    return data


def _logits(config: ModelConfig, params: Params, images: Array) -> Array:
    """Logits of pixels."""
    assert config.preprocessing is not None
    return bind_model(config)(params)(normalize(images, config.preprocessing))


def _traced(
    logits: Callable[[Array], Array], size: tuple[int, int]
) -> tuple[Callable[[Array], Array], jax.ShapeDtypeStruct]:
    """The same function, traced already, and the shape of its pixels.

    jax2onnx replaces the calls of flax's layers, in forms that flax no longer has. In what is
    traced already it finds none.
    """
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
    traced = jaxpr_as_fun(jax.make_jaxpr(logits)(images))
    return lambda images: traced(images)[0], images


def _pool_in_two_dimensions(graph: Any) -> None:
    """Rewrites maxima over [batch, height, width, channels] as those of images.

    jax2onnx makes one of four dimensions: [1, 1, batch, ...] and a window of 1 x h x w x 1. ONNX
    Runtime has at most three.
    """
    from onnx import helper

    makers = {name: node for node in graph.node for name in node.output}
    users = {name: node for node in graph.node for name in node.input}
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        options = {each.name: helper.get_attribute_value(each) for each in pool.attribute}
        if len(options["kernel_shape"]) != 4:
            continue
        inner = makers[pool.input[0]]
        outer, squeeze = makers[inner.input[0]], users[pool.output[0]]
        pads = options.pop("pads", [0] * 8)
        planes = {name: values[1:3] for name, values in options.items() if name != "ceil_mode"}
        source, name = outer.input[0], pool.output[0]
        nodes = [
            helper.make_node("Transpose", [source], [f"{name}_in"], perm=[0, 3, 1, 2]),
            helper.make_node(
                "MaxPool", [f"{name}_in"], [f"{name}_out"], pads=[*pads[1:3], *pads[5:7]], **planes
            ),
            helper.make_node("Transpose", [f"{name}_out"], squeeze.output, perm=[0, 2, 3, 1]),
        ]
        place = list(graph.node).index(pool)
        kept = list(graph.node)
        rewritten = [*kept[:place], *nodes, *kept[place + 1 :]]
        gone = [outer, inner, squeeze]
        del graph.node[:]
        graph.node.extend(node for node in rewritten if node not in gone)


def _drop_unused(program: Any) -> None:
    """Removes constants that no node reads, of which ONNX Runtime would print a line each."""
    graphs = [program.graph]
    for graph in graphs:  # It grows as it is walked.
        graphs += [each.g for node in graph.node for each in node.attribute if each.HasField("g")]
    used = {name for graph in graphs for node in graph.node for name in node.input}
    used |= {value.name for graph in graphs for value in graph.output}
    for graph in graphs:
        kept = [constant for constant in graph.initializer if constant.name in used]
        if len(kept) < len(graph.initializer):
            kept = copy.deepcopy(kept)
            del graph.initializer[:]
            graph.initializer.extend(kept)


def _check(session: Any, logits: Callable[[Array], Array], size: tuple[int, int]) -> None:
    """Compares the program with the model on three images of noise."""
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    (found,) = session.run(None, {"images": images})
    with jax.default_matmul_precision("highest"):
        expected = np.asarray(jax.jit(logits)(images))
    scale = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(found - expected).max()) / scale
    if not difference <= _TOLERANCE:
        raise UserError(
            f"ONNX Runtime's logits differ from this model's by {difference:.1g} of the largest; "
            "write it with --layout=stablehlo"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what jax2onnx logs of its plugins for libraries that no model here uses."""
    logs = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
