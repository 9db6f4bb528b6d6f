"""Adafactor of the G sizes, against the same in NumPy, block by block."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.small_models import small_vit
from vit_jax.models.config import ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params
from vit_jax.parameters import path_of
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer

# 33 blocks are as many as a factored side needs; so are kernels of [80, 2, 40] and [2, 40, 80].
DEEP = small_vit(depth=33, width=80, mlp_dim=48, representation_size=40)
RATES = 0.1 / np.arange(1, 5)


def _trees(model: ModelConfig, count: int) -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = abstract_params(model)
    return [
        jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
        for _ in range(count)
    ]


def _optimizer(config: OptimizerConfig, model: ModelConfig, params: Any) -> Any:
    schedule = lambda step: jnp.asarray(RATES)[step]  # noqa: E731
    return make_optimizer(config, schedule, params, parameter_table(model))


def _descend(config: OptimizerConfig, model: ModelConfig) -> tuple[Any, Any, list[Any]]:
    before, *gradients = _trees(model, 1 + len(RATES))
    optimizer = _optimizer(config, model, before)
    after, state = before, optimizer.init(before)
    for gradient in gradients:
        updates, state = jax.jit(optimizer.update)(gradient, state, after)
        after = optax.apply_updates(after, updates)
    return before, jax.device_get(after), gradients


def _adafactor(p: Any, gradients: list[Any], b1: float, cap: float, decay: float) -> Any:
    """The parameter after steps along its gradients, of which it has at most three axes."""
    p = p.astype(np.float64)
    # The longest axis comes last, and of equals the last one.
    *_, second, first = [-1, *np.argsort(p.shape, kind="stable")]
    is_factored = p.ndim > 1 and p.shape[second] >= 32
    m, v, rows, columns = 0.0, 0.0, 0.0, 0.0
    for t, (g, rate) in enumerate(zip(gradients, RATES, strict=True), start=1):
        g = g.astype(np.float64)
        beta = min(cap, 1 - t**-0.8)
        square = g**2 + 1e-30
        if is_factored:
            rows = beta * rows + (1 - beta) * square.mean(first, keepdims=True)
            columns = beta * columns + (1 - beta) * square.mean(second, keepdims=True)
            v = rows * columns / rows.mean(second, keepdims=True)
        else:
            v = beta * v + (1 - beta) * square
        m = b1 * m + (1 - b1) * g / np.sqrt(v)
        p = p - rate * (m + decay * p)
    return p


@pytest.mark.parametrize(("b1", "b2"), [(None, None), (0.8, 0.5)])
def test_each_block_is_updated_as_by_numpy(b1: float | None, b2: float | None) -> None:
    config = OptimizerConfig("adafactor", b1=b1, b2=b2, weight_decay=0.3)
    before, after, gradients = _descend(config, DEEP)
    flat = [jax.tree_util.tree_leaves_with_path(tree) for tree in (before, after, *gradients)]
    for (path, p), (_, found), *rest in zip(*flat, strict=True):
        name, of_p = path_of(path), [g for _, g in rest]
        options = {"b1": b1 or 0.9, "cap": b2 or 0.999, "decay": 0.3}
        if name.startswith("blocks/"):
            expected = np.stack(
                [_adafactor(p[i], [g[i] for g in of_p], **options) for i in range(len(p))]
            )
        else:
            expected = _adafactor(p, of_p, **options)
        np.testing.assert_allclose(found, expected, rtol=3e-5, atol=3e-6, err_msg=name)


def test_what_is_frozen_has_no_moments_and_does_not_move() -> None:
    freeze = ("blocks/.*", "embedding/.*", "cls", "pos_embedding", "norm/.*")
    config = OptimizerConfig("adafactor", freeze=freeze, weight_decay=0.1)
    before, after, _ = _descend(config, small_vit())
    for name in ("blocks", "embedding", "cls", "norm"):
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])
    assert (before["head"]["kernel"] != after["head"]["kernel"]).all()
    state = jax.eval_shape(_optimizer(config, small_vit(), before).init, before)
    # A first and a second moment of the head, too small to be factored, with two stand-ins each,
    # the schedule's count, two counts of its own, and the norm of the gradient.
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 2 * (16 * 5 + 5) + 2 * 2 + 4


@pytest.mark.parametrize(
    ("name", "depth", "width", "hidden"),
    [
        ("ViT-g/14", 40, 1408, 6144),
        ("ViT-G/14", 48, 1664, 8192),
    ],
)
def test_memory_of_the_large_sizes(name: str, depth: int, width: int, hidden: int) -> None:
    """Half of the parameters' bytes for the first moment, and below one percent for the second."""
    model = ModelConfig(name, num_classes=1000)
    params = abstract_params(model)
    config = OptimizerConfig("adafactor", momentum_dtype="bfloat16")
    state = jax.eval_shape(_optimizer(config, model, params).init, params)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.bfloat16]
    assert sum(leaf.size for leaf in moments) == count

    tokens, heads, patch = 257, 16, 14 * 14 * 3
    # In attention, each head has a mean for each input and one for each output.
    attention = 4 * (heads * width + width)
    mlp = 2 * (width + hidden)
    # Biases and norms are kept whole: four of attention, two of the MLP, and two norms.
    vectors = 4 * width + hidden + width + 4 * width
    factored = depth * (attention + mlp + vectors) + (tokens + width) + (width + 1000)
    # All sides of the patches' kernel but one are below 32. Then come two biases, the class token
    # and the last norm.
    whole = (patch + 1) * width + width + 2 * width + 1000
    kept = sum(
        leaf.size
        for slot in ("v", "v_row", "v_col")
        for _, tree in optax.tree_utils.tree_get_all_with_path(state, slot)
        for leaf in jax.tree.leaves(tree)
    )
    # Where something does not apply stands a one: twice for each of ten vectors of a block and six
    # single arrays, once for each of six kernels of a block, the positions and the head.
    assert kept == factored + whole + (2 * 10 + 6) * depth + 2 * 6 + 2
    assert kept < 0.01 * count
