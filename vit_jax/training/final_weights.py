"""Which weights a run with early stopping ends with, where its best checkpoint is and where not."""

import logging
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.errors import UserError
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import Params
from vit_jax.parallel.agreement import together
from vit_jax.runs.checkpoints import Checkpoints
from vit_jax.training.early_stop import BestStep
from vit_jax.training.setup import Setup, place
from vit_jax.training.step import TrainState, final_params
from vit_jax.weights.files import open_weights
from vit_jax.weights.load import params_for

_log = logging.getLogger(__name__)


def best_params(
    best: BestStep,
    last: int,
    state: TrainState,
    checkpoints: Checkpoints,
    written: Callable[[int], Params | None],
) -> tuple[int, Params]:
    """The best step of which there still are weights, and these.

    Args:
      state: of the step `last`; of its arrays, those of the optimizer are given up.
      written: the final weights of a run that had ended, if they are of this step.
    """
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    # So that another state has room, where gradients and activations had it.
    jax.tree.map(lambda x: x.delete(), state.opt_state)
    for step in best.ranked(last):
        if step == last:
            break
        restored = checkpoints.restore_step(step, like)
        params = written(step) if restored is None else final_params(restored)
        if params is not None:
            return step, params
    return last, final_params(state)


def written_params(setup: Setup, file: Path, step: int) -> Params | None:
    """The final weights in a file, on the mesh; None if it is not there, broken or of other ones.

    Args:
      step: that they must be of.
    """

    def read() -> Params:
        weights = open_weights(file)
        if weights.extra.get("step") != step:
            raise UserError(f"{file} is not of step {step}")
        return place(params_for(weights, setup.model)[0], parameter_table(setup.model), setup.mesh)

    if not multihost_utils.broadcast_one_to_all(np.array(file.exists())):
        return None
    try:
        params = together(read)
    except UserError as error:
        _log.warning("the weights that are there cannot be used either: %s", error)
        return None
    _log.warning("the weights of step %d are those of %s, which stay", step, file)
    return params
