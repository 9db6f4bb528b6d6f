"""The `optimizer` section of a config, and its gradient transformation."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from vit_jax.errors import UserError
from vit_jax.models.functional import Params
from vit_jax.parameters import Table, described, path_of
from vit_jax.training import optax_rules
from vit_jax.training.adafactor import scale_by_adafactor
from vit_jax.training.by_block import by_block
from vit_jax.training.optax_rules import Argument
from vit_jax.training.rates import log_trained, rate_factors

# Where linear decay ends in the paper's code.
LINEAR_END = 1e-5
# The decay of the moments that each optimizer has, by the keys that set it.
_BETAS = {
    "adamw": {"b1": 0.9, "b2": 0.999},
    "sgd": {"momentum": 0.9},
    "adafactor": {"b1": 0.9, "b2": 0.999},
}


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, SGD, Adafactor or an optimizer of optax, with a schedule for the rate.

    Weight decay subtracts `rate * weight_decay * parameter`, with the rate of the schedule. It is
    apart from the gradient's own step, as in the paper's Adam, and stays out of SGD's momentum.
    """

    name: str = "adamw"
    """The optimizer: adamw, sgd, adafactor (factored second moments, for the largest models), or
    one of optax by its name there, such as optax:lion or optax:contrib.ademamix."""
    arguments: dict[str, Argument] = field(default_factory=dict)
    """What an optimizer of optax takes, by its own names, such as arguments.b1=0.95. The rate comes
    from `lr` and `schedule`, weight decay from `weight_decay`."""
    lr: float = 1e-3
    """Peak rate."""
    schedule: Literal["cosine", "linear", "step", "rsqrt", "constant"] = "cosine"
    """How the rate falls after warm-up: to 0 (cosine), to 1e-5 (linear), to a tenth at each
    milestone (step), by the inverse square root of 1 + step / timescale (rsqrt), or not at all."""
    timescale: int | None = None
    """Steps after the warm-up in which schedule=rsqrt lowers the rate by 1 / sqrt(2).
    None: 10,000."""
    cooldown_steps: int = 0
    """Steps at the end in which the rate of schedule=rsqrt or constant falls linearly to 0."""
    milestones: tuple[float, ...] | None = None
    """Ascending shares of the run at which schedule=step lowers the rate. None: (0.3, 0.6, 0.9)."""
    warmup_steps: int = 0
    """Steps in which the rate rises linearly to its peak."""
    weight_decay: float = 0.0
    """Factor of weight decay. 0: none."""
    decay_mask: Literal["all", "kernels"] = "all"
    """What decays: every parameter, as in the paper, or only kernels, as in big_vision."""
    decays: tuple[tuple[str, float], ...] = ()
    """Patterns with factors of weight decay, such as (("head/.*", 100.0),). The first match
    counts."""
    clip_norm: float | None = None
    """Largest global norm of the gradient. None: no clipping."""
    momentum: float | None = None
    """Momentum of SGD. None: 0.9."""
    b1: float | None = None
    """Decay of AdamW's and Adafactor's first moment. None: 0.9."""
    b2: float | None = None
    """Decay of AdamW's second moment; the largest decay of Adafactor's. None: 0.999."""
    momentum_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of SGD's momentum or of AdamW's and Adafactor's first moment."""
    micro_batches: int = 1
    """Parts into which the batch is split; their gradients are summed before an update. More parts
    need less memory."""
    average: float | None = None
    """Factor of the exponential moving average of the parameters. None: no average."""
    freeze: tuple[str, ...] = ()
    """Patterns (regular expressions over whole paths) of parameters that do not train:
    ("(?!head/).*",) trains only the head."""
    rates: tuple[tuple[str, float], ...] = ()
    """Patterns with factors of the rate, such as (("head/.*", 10.0),). The first match counts."""
    layer_decay: float | None = None
    """Factor of the rate for each layer below the head. None: 1."""

    def __post_init__(self) -> None:
        _check_name(self)
        if self.lr <= 0:
            raise UserError(f"lr must be positive, not {self.lr}")
        if self.schedule == "linear" and self.lr <= LINEAR_END:
            raise UserError(f"lr must be above {LINEAR_END}, where linear decay ends")
        if self.milestones is not None:
            _check_milestones(self.milestones, self.schedule)
        _check_rsqrt(self)
        if self.warmup_steps < 0 or self.weight_decay < 0:
            raise UserError("warmup_steps and weight_decay must not be negative")
        if self.weight_decay == 0 and self.decay_mask != "all":
            raise UserError(
                "decay_mask would be ignored: weight_decay is 0; raise that, or set decay_mask=all"
            )
        if self.weight_decay == 0 and self.decays:
            raise UserError("decays would be ignored: weight_decay is 0; raise that")
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

    @property
    def betas(self) -> tuple[float, ...]:
        """The decay of the moments: SGD's momentum, or two; none of an optimizer of optax."""
        return tuple(
            default if getattr(self, key) is None else getattr(self, key)
            for key, default in _BETAS.get(self.name, {}).items()
        )


def _check_name(config: OptimizerConfig) -> None:
    """Checks the name, and that it leaves no key without a meaning."""
    name = config.name
    if is_optax := name.startswith(optax_rules.PREFIX):
        optax_rules.check(name, config.arguments, config.weight_decay)
    elif name not in _BETAS:
        raise UserError(f"name: no optimizer {name!r}{optax_rules.suggestion(name, tuple(_BETAS))}")
    elif config.arguments:
        key = next(iter(config.arguments))
        raise UserError(f"arguments.{key} would be ignored: {name} has keys of its own")
    for key in ("momentum", "b1", "b2"):
        if getattr(config, key) is not None and key not in _BETAS.get(name, {}):
            hint = f"; set arguments.{key}, if it takes one" if is_optax else ""
            raise UserError(f"{key} would be ignored: {name} has none{hint}")
    if is_optax and config.momentum_dtype != "float32":
        raise UserError(
            f"momentum_dtype would be ignored: {name} has its own; set arguments.mu_dtype, if it "
            "takes one"
        )


def _check_milestones(milestones: tuple[float, ...], schedule: str) -> None:
    if schedule != "step":
        raise UserError("milestones would be ignored: they need schedule='step'")
    ascending = all(a < b for a, b in itertools.pairwise((0, *milestones, 1)))
    if not milestones or not ascending:
        raise UserError(f"milestones must ascend between 0 and 1, not {milestones}")


def _check_rsqrt(config: OptimizerConfig) -> None:
    if config.timescale is not None and config.schedule != "rsqrt":
        raise UserError("timescale would be ignored: it needs schedule='rsqrt'")
    if config.timescale is not None and config.timescale < 1:
        raise UserError(f"timescale must be at least 1, not {config.timescale}")
    if config.cooldown_steps < 0:
        raise UserError(f"cooldown_steps must not be negative, not {config.cooldown_steps}")
    if config.cooldown_steps and config.schedule not in ("rsqrt", "constant"):
        raise UserError(
            f"cooldown_steps would be ignored: schedule={config.schedule} falls to its end by "
            "itself; take rsqrt or constant"
        )


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, params: Params, table: Table
) -> optax.GradientTransformation:
    """Chains clipping, the optimizer proper, weight decay and the rate, in this order.

    Frozen parameters do not move, and their gradients do not count. Arrays that are frozen whole
    have no moments. The state then holds `grad_norm`, the norm of the other gradients before
    clipping.

    Args:
      params: those to train, or their shapes; the config's patterns are matched against them.
      table: describes each of them.

    Raises:
      UserError: as in `rate_factors`.
    """
    factors = rate_factors(
        params, table, freeze=config.freeze, rates=config.rates, layer_decay=config.layer_decay
    )
    parts = []
    if config.freeze:
        log_trained(params, factors)
        parts.append(_by_parameter(lambda g, factor: jnp.where(factor > 0, g, 0), factors))
        parts.append(optax.snapshot("grad_norm", optax.global_norm))
    if config.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    parts.append(
        _moments(config, params, table, jax.tree.map(lambda factor: bool(factor.any()), factors))
    )
    if config.weight_decay:
        mask = _kernels(params, table) if config.decay_mask == "kernels" else None
        decay = optax.add_decayed_weights(config.weight_decay, mask)
        parts.append(_decay_by_parameter(config, params, table) if config.decays else decay)
    if config.freeze or config.rates or config.layer_decay is not None:
        parts.append(_by_parameter(jnp.multiply, factors))
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule))


def _moments(
    config: OptimizerConfig, params: Params, table: Table, trains: Any
) -> optax.GradientTransformation:
    """The optimizer proper: from gradients to what is subtracted at rate 1."""
    dtype = jnp.dtype(config.momentum_dtype)
    if config.name == "adafactor":
        b1, b2 = config.betas
        return by_block(scale_by_adafactor(b1, b2, dtype), params, table, trains)
    if config.name not in _BETAS:
        rule = optax_rules.make(config.name, config.arguments)
        return by_block(rule, params, table, trains)
    if config.name == "adamw":
        moments = optax.scale_by_adam(*config.betas, mu_dtype=dtype)
    else:
        moments = optax.trace(*config.betas, accumulator_dtype=dtype)
    return optax.masked(moments, trains) if config.freeze else moments


def _decay_by_parameter(
    config: OptimizerConfig, params: Params, table: Table
) -> optax.GradientTransformation:
    """Weight decay with the factors of `decays`."""
    factors = rate_factors(
        params,
        table,
        freeze=(),
        rates=config.decays,
        layer_decay=None,
        where="config.optimizer.decays",
    )
    if config.decay_mask == "kernels":
        factors = jax.tree.map(jnp.multiply, factors, _kernels(params, table))

    def add(update: Array, param: Array, factor: Array) -> Array:
        return update + config.weight_decay * factor * param

    return optax.stateless(lambda updates, params: jax.tree.map(add, updates, params, factors))


def _by_parameter(
    function: Callable[[Array, Array], Array], factors: Params
) -> optax.GradientTransformation:
    """Applies (update, factor) -> update to each parameter's update."""
    return optax.stateless(lambda updates, _: jax.tree.map(function, updates, factors))


def _kernels(params: Params, table: Table) -> Any:
    """Whether each parameter is a kernel, in the tree of the parameters."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: described(table, path_of(path), leaf.ndim).role == "kernel", params
    )
