"""Four steps with Mixup and CutMix, on a mesh of this process's devices."""

from typing import NamedTuple

import jax
import numpy as np
import optax

from vit_jax.models.config import ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import Params, abstract_params, init_params
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import OnMesh, batch_sharding, replicated, state_shardings
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.step import TrainState, init_state, make_train_step
from vit_jax.training.supervised import Supervised

ROWS, SIDE = 64, 16
MODEL = ModelConfig("ViT-mu/8", image_size=SIDE, num_classes=10).completed()


class Steps(NamedTuple):
    """The parameters before and after, the loss of each step, and the compiled program."""

    start: Params
    params: Params
    losses: list[np.ndarray]
    program: str


def mixed_steps(mesh_config: MeshConfig, devices: int, micro_batches: int) -> Steps:
    """Takes four steps at the highest precision, on a batch some of whose rows do not count."""
    optimizer = make_optimizer(
        OptimizerConfig("sgd", momentum=0.0),
        optax.constant_schedule(0.1),
        abstract_params(MODEL),
        parameter_table(MODEL),
    )
    rng = np.random.default_rng(0)
    counts = np.isin(np.arange(ROWS), [0, 5, 7, 15, 16, 40, 63], invert=True)
    batch = {
        "images": rng.integers(0, 256, (ROWS, SIDE, SIDE, 3), np.uint8),
        "labels": rng.integers(0, 10, ROWS, np.int32),
        # Some are at the borders of devices' rows: a partner on another device does not count.
        "weights": counts.astype(np.float32),
    }

    def init() -> TrainState:
        params = init_params(MODEL, 0)
        head = params["head"]["kernel"]
        params["head"]["kernel"] = jax.random.normal(jax.random.key(1), head.shape)
        return init_state(params, optimizer, average=False)

    with jax.default_matmul_precision("highest"):
        start = jax.device_get(jax.jit(init)())
        mesh = make_mesh(mesh_config, jax.devices()[:devices])
        shardings = state_shardings(jax.eval_shape(init), parameter_table(MODEL), mesh)
        objective = Supervised(
            MODEL, OnMesh(mesh), loss="sigmoid", flip=True, mixup=0.8, cutmix=1.0
        )
        step = make_train_step(
            objective, optimizer, mesh, micro_batches=micro_batches, average=None, seed=0
        )
        rows = jax.device_put(batch, batch_sharding(mesh))
        state = jax.device_put(start, shardings)
        jitted = jax.jit(
            step,
            in_shardings=(shardings, batch_sharding(mesh)),
            out_shardings=(shardings, replicated(mesh)),
        )
        compiled = jitted.lower(state, rows).compile()
        losses = []
        for _ in range(4):
            state, metrics = compiled(state, rows)
            losses.append(metrics["loss"])
    params, losses = jax.device_get((state.params, losses))
    return Steps(start.params, params, losses, compiled.as_text())
