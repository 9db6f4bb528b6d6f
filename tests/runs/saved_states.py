"""Training states whose numbers are all drawn, saved and restored."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.small_models import SMALL
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params
from vit_jax.runs.checkpoints import CheckpointConfig, Checkpoints
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.schedule import make_schedule
from vit_jax.training.step import init_state

SGD = OptimizerConfig("sgd", momentum_dtype="bfloat16")


def training_shapes(optimizer: Any = SGD, average: bool = False) -> Any:
    """A tree of its own for each caller, who may change it."""
    return jax.tree.map(lambda x: x, _traced(optimizer, average))


_known: dict[tuple[str, bool], Any] = {}


def _traced(optimizer: Any, average: bool) -> Any:
    key = (repr(optimizer), average)  # Its arguments cannot be hashed.
    if key not in _known:
        _known[key] = _trace(optimizer, average)
    return _known[key]


def _trace(optimizer: Any, average: bool) -> Any:
    params = abstract_params(SMALL)
    schedule = make_schedule(optimizer, 10)
    optimizer = make_optimizer(optimizer, schedule, params, parameter_table(SMALL))
    shapes = jax.eval_shape(lambda p: init_state(p, optimizer, average=average), params)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)


def draw_state(seed: int, shapes: Any) -> Any:
    """A training state in which every number is drawn, step and counts included."""
    rng = np.random.default_rng(seed)

    def draw(x: Any) -> Any:
        whole = jnp.issubdtype(x.dtype, jnp.integer)
        values = rng.integers(1, 1000, x.shape) if whole else rng.normal(size=x.shape)
        return jax.device_put(np.asarray(values, x.dtype), x.sharding)

    return jax.tree.map(draw, shapes)


def assert_same_state(actual: Any, expected: Any) -> None:
    structures: list[Any] = [jax.tree.structure(tree) for tree in (actual, expected)]
    assert structures[0] == structures[1]
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def open_checkpoints(directory: Path, keep: int = 2, identity: Any = None) -> Any:
    return Checkpoints(directory / "checkpoints", CheckpointConfig(keep=keep), identity)


def restore(directory: Path, like: Any) -> Any:
    with open_checkpoints(directory) as checkpoints:
        restored = checkpoints.restore(like)
    return restored and (restored.step, restored.state)


def steps_in(directory: Path) -> Any:
    return sorted(int(p.name) for p in (directory / "checkpoints").iterdir())
