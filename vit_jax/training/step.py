"""The training step: a pure function of the state and a batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from vit_jax.losses import weighted_sum
from vit_jax.models.functional import Params
from vit_jax.parallel.sharding import constrain_batch
from vit_jax.training.objectives import Batch, Objective, split_params

Metrics = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a run needs to resume.

    Attributes:
      step: int32, the steps done.
      params: float32, nested by name: the model's and, under "objective", the objective's own.
      averaged: exponential moving average of `params`, or None.
      skipped: int32, rows so far that did not count, such as images that cannot be read.
    """

    step: Array
    params: Params
    opt_state: optax.OptState
    averaged: Params | None
    skipped: Array


def init_state(
    params: Params, optimizer: optax.GradientTransformation, *, average: bool
) -> TrainState:
    """The state before the first step; the average starts at the parameters."""
    averaged = jax.tree.map(jnp.copy, params) if average else None
    # Separate arrays: both buffers are donated.
    step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    return TrainState(step, params, optimizer.init(params), averaged, skipped)


def pass_steps(state: TrainState, count: int | Array) -> TrainState:
    """The state after further steps that pass without an update.

    They count for what follows the number of the step: the rate, and the keys of random draws.
    """

    def later(part: Any) -> Any:
        # The only part of an optimizer that goes by the run's steps, and not by its own updates.
        if isinstance(part, optax.ScaleByScheduleState):
            return optax.ScaleByScheduleState(count=part.count + count)
        return part

    opt_state = jax.tree.map(
        later, state.opt_state, is_leaf=lambda x: isinstance(x, optax.ScaleByScheduleState)
    )
    return replace(state, step=state.step + count, opt_state=opt_state)


def final_params(state: TrainState) -> Params:
    """The model's parameters to evaluate and write: the averaged ones if there are any."""
    return split_params(state.params if state.averaged is None else state.averaged)[0]


class _Sums(NamedTuple):
    """Sums over the examples that count."""

    loss: Array
    metrics: Metrics
    counted: Array
    skipped: Array


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    micro_batches: int,
    average: float | None,
    seed: int,
    norms: Callable[[Params, Params, Params], Array] | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Builds the step (state, batch, fixed=()) -> (next state, scalars), not yet jitted.

    A batch holds images uint8 [batch, height, width, 3], labels int32 [batch] or [batch, labels],
    padded with -1, and weights float32 [batch]. `fixed` are the objective's fixed arrays. Whatever
    is random depends on (seed, state.step) and the row alone; dropout depends on the number of
    micro-batches too.

    The scalars are means over the examples of the whole batch that count: `loss` and the
    objective's own metrics; then `grad_norm`, the global norm of the gradient of what trains,
    before clipping; and `skipped`, the rows since the run's start that did not count. With `norms`,
    `norms` is what it gives for the gradient, the parameters before the update and the update.
    """

    def micro_sums(params: Params, fixed: Any, micro: Batch, key: Array) -> tuple[Array, _Sums]:
        losses, metrics, counts = objective.losses(params, fixed, micro, key)
        sums = _Sums(
            weighted_sum(losses, counts),
            {name: weighted_sum(values, counts) for name, values in metrics.items()},
            counts.sum(),
            (counts == 0).sum(),
        )
        return sums.loss, sums

    def gradient(params: Params, fixed: Any, micro: Batch, key: Array) -> tuple[Params, _Sums]:
        return jax.grad(micro_sums, has_aux=True)(params, fixed, micro, key)

    def step(state: TrainState, batch: Batch, fixed: Any = ()) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(jax.random.key(seed), state.step)
        first_key, model_key, second_key = jax.random.split(step_key, 3)
        batch = objective.prepare(batch, (first_key, second_key))
        if micro_batches == 1:
            grads, sums = gradient(state.params, fixed, batch, model_key)
        else:
            grads, sums = _accumulate(
                lambda micro, key: gradient(state.params, fixed, micro, key),
                _strided(batch, micro_batches, constrain_batch(mesh, axis=1)),
                jax.random.split(model_key, micro_batches),
            )
        # Divided at the end, so that each example counts alike whatever its micro-batch holds.
        total = jnp.maximum(sums.counted, 1)
        grads = jax.tree.map(lambda grad: grad / total, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = state.averaged
        if average is not None:
            # In this form, float32 keeps the average of a constant: frozen parameters stay exact.
            averaged = jax.tree.map(lambda a, p: a + (1 - average) * (p - a), averaged, params)
        skipped = state.skipped + sums.skipped
        metrics = {
            "loss": sums.loss / total,
            **{name: value / total for name, value in sums.metrics.items()},
            # An optimizer that freezes parameters keeps the norm of what is left.
            "grad_norm": optax.tree_utils.tree_get(
                opt_state, "grad_norm", default=optax.global_norm(grads)
            ),
            "skipped": skipped,
        }
        if norms is not None:
            metrics["norms"] = norms(grads, state.params, updates)
        return TrainState(state.step + 1, params, opt_state, averaged, skipped), metrics

    return step


def _strided(batch: Batch, parts: int, constrain: Callable[[Array], Array]) -> Batch:
    """[batch, ...] to [parts, batch / parts, ...]: row r goes to part r mod parts.

    Each part is then spread over all devices as the batch is, and nothing moves between them.
    """

    def split(x: Array) -> Array:
        return constrain(x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1))

    return jax.tree.map(split, batch)


def _accumulate(
    gradient: Callable[[Batch, Array], tuple[Params, _Sums]], micros: Batch, keys: Array
) -> tuple[Params, _Sums]:
    """Sums the gradients and the other sums of the micro-batches, one after the other."""

    def body(sums: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, gradient(*part)), None

    shapes = jax.eval_shape(gradient, jax.tree.map(lambda x: x[0], micros), keys[0])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(body, zeros, (micros, keys))[0]
