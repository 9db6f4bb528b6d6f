"""The `optimizer` section of a config, its learning rates and its gradient transformation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from vit_jax.errors import UserError
from vit_jax.models.functional import Params
from vit_jax.training.rates import rate_factors

# Where linear decay ends, in the paper's code.
LINEAR_END = 1e-5


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or SGD, with the schedule of its rate.

    Weight decay subtracts `rate * weight_decay * parameter`, with the rate of the schedule, apart
    from the gradient's own step, as the paper's Adam does; for SGD it stays out of the momentum.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    # Peak rate.
    lr: float = 1e-3
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    # all: every parameter, as in the paper; kernels: those named `kernel`, as in big_vision.
    decay_mask: Literal["all", "kernels"] = "all"
    # Largest global norm of the gradient; None does not clip.
    clip_norm: float | None = None
    # SGD; None is 0.9.
    momentum: float | None = None
    # AdamW; None is 0.9 and 0.999.
    b1: float | None = None
    b2: float | None = None
    # Of SGD's momentum or AdamW's first moment.
    momentum_dtype: Literal["float32", "bfloat16"] = "float32"
    # Gradients of so many parts of the batch are summed before an update.
    micro_batches: int = 1
    # Factor of the exponential moving average of the parameters; None keeps no average.
    average: float | None = None
    # Patterns of parameters that stay as they are (`rates.rate_factors`): ("(?!head/).*",) trains
    # the head alone.
    freeze: tuple[str, ...] = ()
    # Patterns with factors of the rate, the first match counts: (("head/.*", 10.0),). Not a dict,
    # for a ConfigDict takes no names with dots.
    rates: tuple[tuple[str, float], ...] = ()
    # Factor of the rate for each layer below the head; None is 1.
    layer_decay: float | None = None

    def __post_init__(self) -> None:
        ignored = ("b1", "b2") if self.name == "sgd" else ("momentum",)
        for key in ignored:
            if getattr(self, key) is not None:
                raise UserError(f"{key} would be ignored: {self.name} has none")
        if self.lr <= 0:
            raise UserError(f"lr must be positive, not {self.lr}")
        if self.schedule == "linear" and self.lr <= LINEAR_END:
            raise UserError(f"lr must be above {LINEAR_END}, where linear decay ends")
        if self.warmup_steps < 0 or self.weight_decay < 0:
            raise UserError("warmup_steps and weight_decay must not be negative")
        if self.weight_decay == 0 and self.decay_mask != "all":
            raise UserError("decay_mask would be ignored: weight_decay is 0")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UserError(
                f"clip_norm must be positive, not {self.clip_norm}; null is no clipping"
            )
        if self.micro_batches < 1:
            raise UserError(f"micro_batches must be at least 1, not {self.micro_batches}")
        for key in ("momentum", "b1", "b2", "average"):
            value = getattr(self, key)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"{key} must be in [0, 1), not {value}")


def make_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The rate of update s = 0, 1, ..., total_steps - 1.

    Warm-up is linear and its first rate is lr / warmup_steps, so that no update is lost; then
    cosine decay towards 0, linear decay towards 1e-5 (both reached after the last update), or
    the constant rate.

    Raises:
      UserError: the warm-up is as long as the run or longer.
    """
    lr, warmup = config.lr, config.warmup_steps
    if warmup >= total_steps:
        raise UserError(
            f"config.optimizer.warmup_steps: {warmup} leave nothing of the run's {total_steps} "
            "steps; lower them or train longer"
        )
    decay_steps = total_steps - warmup
    decays = {
        "cosine": optax.cosine_decay_schedule(lr, decay_steps),
        "linear": optax.linear_schedule(lr, LINEAR_END, decay_steps),
        "constant": optax.constant_schedule(lr),
    }
    if warmup == 0:
        return decays[config.schedule]
    warm = optax.linear_schedule(lr / warmup, lr, warmup - 1) if warmup > 1 else decays["constant"]
    return optax.join_schedules([warm, decays[config.schedule]], [warmup])


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, params: Params
) -> optax.GradientTransformation:
    """Clipping, the optimizer proper, weight decay and the rate, in this order.

    Frozen parameters do not move, their gradients count nowhere, and arrays that are frozen whole
    have no moments; the state then holds `grad_norm`, the norm before clipping of what is left.

    Args:
      params: those to train, or their shapes; the config's patterns are matched against them.

    Raises:
      UserError: as in `rate_factors`.
    """
    factors = rate_factors(
        params, freeze=config.freeze, rates=config.rates, layer_decay=config.layer_decay
    )
    dtype = jnp.dtype(config.momentum_dtype)
    if config.name == "adamw":
        b1 = 0.9 if config.b1 is None else config.b1
        b2 = 0.999 if config.b2 is None else config.b2
        moments = optax.scale_by_adam(b1, b2, mu_dtype=dtype)
    else:
        momentum = 0.9 if config.momentum is None else config.momentum
        moments = optax.trace(momentum, accumulator_dtype=dtype)
    parts = []
    if config.freeze:
        parts.append(_by_parameter(lambda g, factor: jnp.where(factor > 0, g, 0), factors))
        parts.append(optax.snapshot("grad_norm", optax.global_norm))
        moments = optax.masked(moments, jax.tree.map(lambda factor: bool(factor.any()), factors))
    if config.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    parts.append(moments)
    if config.weight_decay:
        mask = _is_kernel if config.decay_mask == "kernels" else None
        parts.append(optax.add_decayed_weights(config.weight_decay, mask))
    if config.freeze or config.rates or config.layer_decay is not None:
        parts.append(_by_parameter(jnp.multiply, factors))
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule))


def _by_parameter(
    function: Callable[[Array, Array], Array], factors: Params
) -> optax.GradientTransformation:
    """Applies (update, factor) -> update to each parameter's update."""
    return optax.stateless(lambda updates, _: jax.tree.map(function, updates, factors))


def _is_kernel(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )
