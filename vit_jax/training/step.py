"""The training step: a pure function of the state and a batch."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from vit_jax.losses import Loss, cross_entropy, weighted_sum
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params, apply_model
from vit_jax.parallel.sharding import OnMesh, constrain_batch
from vit_jax.preprocessing import PreprocessingConfig, normalize
from vit_jax.training.mix import mix, pair, random_flip

Batch = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a run needs to go on.

    Attributes:
      step: int32, updates done.
      params: float32, nested by name.
      averaged: exponential moving average of `params`, or None.
      skipped: int32, rows so far whose image could not be read.
    """

    step: Array
    params: Params
    opt_state: optax.OptState
    averaged: Params | None
    skipped: Array


def init_state(
    params: Params, optimizer: optax.GradientTransformation, *, average: bool
) -> TrainState:
    """The state before the first step; averages start at the parameters."""
    averaged = jax.tree.map(jnp.copy, params) if average else None
    # Two arrays, for the step is given each buffer to keep.
    step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    return TrainState(step, params, optimizer.init(params), averaged, skipped)


def final_params(state: TrainState) -> Params:
    """What is evaluated and written: the averaged parameters where there are any."""
    return state.params if state.averaged is None else state.averaged


def make_train_step(
    model: ModelConfig,
    preprocessing: PreprocessingConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    sequence: bool = False,
    loss: Loss,
    label_smoothing: float,
    flip: bool,
    micro_batches: int,
    average: float | None,
    seed: int,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Builds the step, to be jitted with the state donated.

    The step takes images uint8 [batch, height, width, 3], labels int [batch] or, padded with -1,
    [batch, n], and weights float32 [batch]. It returns the next state and scalars: the mean loss
    over the rows that count, the global norm, before clipping, of the gradient of what trains, and
    the rows skipped since the run's start. All that is random depends on (seed, state.step) and
    the row alone. `mixup` and `cutmix` are as in `training.mix.pair`.
    """
    apply = apply_model(model)
    placement = OnMesh(mesh, sequence)
    is_mixed = mixup > 0 or cutmix > 0

    def micro_loss(params: Params, micro: Batch, key: Array, total: Array) -> Array:
        images = normalize(mix(micro) if is_mixed else micro["images"], preprocessing)
        logits = apply(params, images, key=key, placement=placement)
        losses = cross_entropy(logits, micro["labels"], loss, label_smoothing)
        if is_mixed:
            partners = cross_entropy(logits, micro["partner_labels"], loss, label_smoothing)
            losses = micro["share"] * losses + (1 - micro["share"]) * partners
        return weighted_sum(losses, micro["weights"]) / total

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        step_key = jax.random.fold_in(jax.random.key(seed), state.step)
        flip_key, model_key, mix_key = jax.random.split(step_key, 3)
        if flip:
            batch = batch | {"images": random_flip(flip_key, batch["images"])}
        if is_mixed:
            batch = pair(mix_key, batch, mixup=mixup, cutmix=cutmix)
        # Of the whole batch, so that micro-batches with more invalid rows do not count more.
        total = jnp.maximum(batch["weights"].sum(), 1)
        value_and_grad = jax.value_and_grad(micro_loss)
        if micro_batches == 1:
            value, grads = value_and_grad(state.params, batch, model_key, total)
        else:
            value, grads = _accumulate(
                lambda micro, key: value_and_grad(state.params, micro, key, total),
                _strided(batch, micro_batches, constrain_batch(mesh, axis=1)),
                jax.random.split(model_key, micro_batches),
            )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = state.averaged
        if average is not None:
            # In this form, float32 keeps the average of a constant: frozen parameters stay exact.
            averaged = jax.tree.map(lambda a, p: a + (1 - average) * (p - a), averaged, params)
        skipped = state.skipped + (batch["weights"] == 0).sum()
        metrics = {
            "loss": value,
            # Of an optimizer that freezes parameters, without them.
            "grad_norm": optax.tree_utils.tree_get(
                opt_state, "grad_norm", default=optax.global_norm(grads)
            ),
            "skipped": skipped,
        }
        return TrainState(state.step + 1, params, opt_state, averaged, skipped), metrics

    return step


def _strided(batch: Batch, parts: int, constrain: Callable[[Array], Array]) -> Batch:
    """[batch, ...] to [parts, batch / parts, ...]: row r goes to part r mod parts.

    So each part is spread over all devices as the batch is, and nothing moves between them.
    """

    def split(x: Array) -> Array:
        return constrain(x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1))

    return jax.tree.map(split, batch)


def _accumulate(
    value_and_grad: Callable[[Batch, Array], tuple[Array, Params]], micros: Batch, keys: Array
) -> tuple[Array, Params]:
    """Sums the values and gradients of the parts, one after the other."""

    def body(sums, part):
        return jax.tree.map(jnp.add, sums, value_and_grad(*part)), None

    shapes = jax.eval_shape(value_and_grad, jax.tree.map(lambda x: x[0], micros), keys[0])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(body, zeros, (micros, keys))[0]
