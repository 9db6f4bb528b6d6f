"""The weights that a run ends with: which step's they are, and the file they are written to."""

import json
import logging
from dataclasses import dataclass

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from vit_jax.errors import StorageError, UserError
from vit_jax.models.functional import Params
from vit_jax.runs.checkpoints import Checkpoints
from vit_jax.runs.directory import RunDirectory
from vit_jax.storage import objects
from vit_jax.training.early_stop import BestStep
from vit_jax.training.setup import Setup
from vit_jax.training.step import TrainState, final_params
from vit_jax.weights.files import write_weights

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a run that has ended gives.

    Attributes:
      weights: the file of final weights.
      step: the step whose weights they are.
      scores: their scores by name, such as `test/top1`.
    """

    weights: epath.Path
    step: int
    scores: dict[str, float]


def read_result(directory: RunDirectory) -> RunResult | None:
    """The result of a run that has ended; None if it has not, or if its weights are damaged."""
    result = None
    facts_file = directory.weights.with_suffix(".json")
    try:
        if objects.exists(facts_file) and objects.exists(directory.weights):
            facts = json.loads(objects.read_bytes(facts_file))
            if not facts.get("has_ended", True):
                raise ValueError("written when the time of a start was up")
            result = RunResult(directory.weights, int(facts["step"]), dict(facts["scores"]))
            if not directory.weights_are_whole():
                _log.warning("%s is damaged: it is written anew", directory.weights)
                result = None
    except StorageError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        result = None  # Nothing final is written yet, or version 0.1.0 wrote it.
    has_ended = np.array(result is not None)
    return result if multihost_utils.broadcast_one_to_all(has_ended) else None


def best_weights(
    best: BestStep, last: int, state: TrainState, checkpoints: Checkpoints
) -> tuple[int, Params]:
    """The step whose weights are the final ones, and these weights.

    Without a best step, or if its checkpoint cannot be read, they are those of the last step.

    Args:
      state: of the step `last`. Frees its `opt_state`.
    """
    if best.step is None or best.step == last:
        return last, final_params(state)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    # Makes room for another state, where gradients and activations were.
    jax.tree.map(lambda x: x.delete(), state.opt_state)
    restored = checkpoints.restore_step(best.step, like)
    if restored is None:
        return last, final_params(state)
    return best.step, final_params(restored)


def write_final_weights(
    setup: Setup, result: RunResult, params: Params, *, has_ended: bool
) -> None:
    """Writes the weights of all processes into one file, on process 0.

    Args:
      has_ended: False if the run resumes; `read_result` then finds no result.
    """
    # Leaf by leaf, so that a device holds one whole array at a time.
    arrays = jax.tree.map(
        lambda x: np.asarray(multihost_utils.process_allgather(x, tiled=True)), params
    )
    if jax.process_index() != 0:
        return
    try:
        write_weights(
            result.weights,
            arrays,
            setup.model,
            class_names=setup.source.class_names,
            extra={
                "step": result.step,
                "scores": result.scores,
                "averaged": setup.config.optimizer.average is not None,
                "loss": setup.config.loss,
                **({} if has_ended else {"has_ended": False}),
            },
        )
    except StorageError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot write {result.weights} ({error.strerror}); free space, then start again"
        ) from error
