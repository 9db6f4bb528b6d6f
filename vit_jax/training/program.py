"""The training step as a program over a mesh: what goes in, what comes out, and where it lives.

Nothing here needs data or devices that are there, so that it can be compiled for absent ones.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from vit_jax.models.functional import Params, init_params
from vit_jax.parallel.sharding import batch_sharding, replicated, state_shardings
from vit_jax.training.config import TrainConfig
from vit_jax.training.step import Batch, TrainState, init_state, make_train_step


def state_shapes(
    config: TrainConfig, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shapes, types and shardings of the state, as `jax.ShapeDtypeStruct`."""
    shapes = jax.eval_shape(lambda: _init(config, optimizer, None))
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        state_shardings(shapes, mesh),
    )


def start_state(
    config: TrainConfig,
    optimizer: optax.GradientTransformation,
    shapes: TrainState,
    params: Params | None = None,
) -> TrainState:
    """The state before the first step, placed as `shapes` (of `state_shapes`) say.

    Args:
      params: to start from, whose memory the state takes: they are gone after. None draws fresh
        ones.
    """
    shardings = jax.tree.map(lambda x: x.sharding, shapes)
    init = jax.jit(lambda p: _init(config, optimizer, p), out_shardings=shardings, donate_argnums=0)
    return init(params)


def _init(
    config: TrainConfig, optimizer: optax.GradientTransformation, params: Params | None
) -> TrainState:
    if params is None:
        params = init_params(config.model, config.seed)
    return init_state(params, optimizer, average=config.optimizer.average is not None)


def batch_shapes(config: TrainConfig, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Likewise of a batch."""
    rows, sharding = config.data.batch_size, batch_sharding(mesh)
    return {
        "images": jax.ShapeDtypeStruct(
            (rows, *config.model.input_size, 3), jnp.uint8, sharding=sharding
        ),
        "labels": jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=sharding),
        "weights": jax.ShapeDtypeStruct((rows,), jnp.float32, sharding=sharding),
    }


def jit_step(
    config: TrainConfig, optimizer: optax.GradientTransformation, mesh: Mesh, state: TrainState
) -> "jax.stages.Wrapped":
    """The step of `make_train_step`, which takes the state's memory for the next state.

    Args:
      config: with nothing of the model left open.
      state: arrays or, as of `state_shapes`, their shapes; they say where the next state lies.
    """
    model = config.model
    assert model.preprocessing is not None
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]] = make_train_step(
        model,
        model.preprocessing,
        optimizer,
        mesh,
        sequence=config.mesh.sequence,
        loss=config.loss,
        label_smoothing=config.label_smoothing,
        flip=config.data.flip,
        mixup=config.data.mixup,
        cutmix=config.data.cutmix,
        micro_batches=config.optimizer.micro_batches,
        average=config.optimizer.average,
        seed=config.seed,
    )
    shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
