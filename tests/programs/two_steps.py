"""Two steps of a small model of a family, on a mesh of this process's devices."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from vit_jax.models.config import ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import Params, abstract_params, init_params
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import OnMesh, batch_sharding, replicated, state_shardings
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.schedule import make_schedule
from vit_jax.training.step import TrainState, init_state, make_train_step
from vit_jax.training.supervised import Supervised

RATE = 0.1


class Steps(NamedTuple):
    """What two steps give.

    Attributes:
      grads: the gradients of the first step.
      losses: of both steps.
      parts: into how many parts each parameter is split, by its path.
    """

    grads: Params
    losses: list[np.ndarray]
    parts: dict[str, int]


def two_steps(model: ModelConfig, mesh_config: MeshConfig, devices: int) -> Steps:
    """Takes two steps at the highest precision, with flips, micro-batches and an invalid row."""
    config = OptimizerConfig("sgd", lr=RATE, schedule="constant", micro_batches=2)
    optimizer = make_optimizer(
        config, make_schedule(config, 10), abstract_params(model), parameter_table(model)
    )
    rng = np.random.default_rng(0)
    batch = {
        "images": rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
        "labels": rng.integers(0, 10, 16, np.int32),
        "weights": np.array([0] + [1] * 15, np.float32),
    }

    def init(params: Params) -> TrainState:
        return init_state(params, optimizer, average=True)

    with jax.default_matmul_precision("highest"):
        start = jax.device_get(jax.jit(init)(_start(model)))
        mesh = make_mesh(mesh_config, jax.devices()[:devices])
        shardings = state_shardings(start, parameter_table(model), mesh)
        objective = Supervised(
            model, OnMesh(mesh, mesh_config.sequence), label_smoothing=0.1, flip=True
        )
        step = make_train_step(objective, optimizer, mesh, micro_batches=2, average=0.9, seed=0)
        step = jax.jit(
            step,
            in_shardings=(shardings, batch_sharding(mesh)),
            out_shardings=(shardings, replicated(mesh)),
        )
        states, losses = [jax.device_put(start, shardings)], []
        for _ in range(2):
            state, metrics = step(states[-1], jax.device_put(batch, batch_sharding(mesh)))
            states.append(state)
            losses.append(metrics["loss"])
    parts = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        parts[name] = leaf.size // leaf.addressable_shards[0].data.size
    before, after, _ = (jax.device_get(state.params) for state in states)
    grads = jax.tree.map(lambda a, b: (a - b) / RATE, before, after)
    return Steps(grads, jax.device_get(losses), parts)


@functools.cache
def _start(model: ModelConfig) -> Params:
    """Parameters on the host; none of them is zero, since zeros hide many gradients."""
    params = jax.device_get(jax.jit(init_params, static_argnums=(0, 1))(model, 0))
    params = jax.tree.map(lambda leaf: np.where(leaf == 0, np.float32(0.3), leaf), params)
    head = params["head"]["kernel"]
    params["head"]["kernel"] = jax.device_get(jax.random.normal(jax.random.key(1), head.shape))
    return params


@functools.cache
def one_device(model: ModelConfig) -> Steps:
    """The two steps on a single device, taken once in this process."""
    return two_steps(model, MeshConfig(), 1)
