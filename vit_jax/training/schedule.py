"""The learning rate of each update."""

import itertools

import jax.numpy as jnp
import optax

from vit_jax.errors import UserError
from vit_jax.training.optimizer import LINEAR_END, OptimizerConfig

# The step schedule: shares of the run after which the rate falls, and the factor by which it falls
# (BiT-HyperRule, arXiv 1912.11370, section 3.3).
MILESTONES = (0.3, 0.6, 0.9)
STEP_FACTOR = 0.1
# Steps of the rsqrt schedule, as in big_vision.
TIMESCALE = 10_000


def milestone_steps(config: OptimizerConfig, total_steps: int) -> list[int]:
    """Returns the steps after which the rate of the step schedule falls to a tenth."""
    return [round(share * total_steps) for share in config.milestones or MILESTONES]


def make_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Returns the rate of update s = 0, 1, ..., total_steps - 1.

    Warm-up is linear. Its first rate is lr / warmup_steps, so no update is wasted. After it comes
    cosine decay towards 0 or linear decay towards 1e-5 (both reached after the last update), steps
    down to a tenth after each milestone, lr / sqrt(1 + (s - warm-up) / timescale) as in "Scaling
    Vision Transformers" (arXiv 2106.04560, section 3.5), or the constant rate. A cool-down
    multiplies the last rates by a line that reaches 0 after the last update.

    Raises:
      UserError: the warm-up and the cool-down are as long as the run, or the warm-up ends after
          the first milestone.
    """
    lr, warmup = config.lr, config.warmup_steps
    if warmup >= total_steps:
        raise UserError(
            f"config.optimizer.warmup_steps: {warmup} take up all {total_steps} steps of the run; "
            "lower them or train longer"
        )
    if (cooldown := config.cooldown_steps) and warmup + cooldown > total_steps:
        raise UserError(
            f"config.optimizer.cooldown_steps: {cooldown}, and {warmup} of warm-up, are more than "
            f"the {total_steps} steps of the run; lower them or train longer"
        )
    decay = _decay(config, total_steps)
    if warmup == 0:
        return decay
    warm = optax.linear_schedule(lr / warmup, lr, max(warmup - 1, 1))
    return optax.join_schedules([warm, decay], [warmup])


def _decay(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The schedule after the warm-up, where it counts from 0."""
    lr, steps = config.lr, total_steps - config.warmup_steps
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(lr, steps)
    if config.schedule == "linear":
        return optax.linear_schedule(lr, LINEAR_END, steps)
    if config.schedule == "constant":
        return _cooled(optax.constant_schedule(lr), config.cooldown_steps, steps)
    if config.schedule == "rsqrt":
        timescale = config.timescale or TIMESCALE
        fall: optax.Schedule = lambda step: lr / jnp.sqrt(1 + step / timescale)  # noqa: E731
        return _cooled(fall, config.cooldown_steps, steps)
    falls = milestone_steps(config, total_steps)
    ends = [max(config.warmup_steps, 1) - 1, *falls, total_steps]
    if any(a >= b for a, b in itertools.pairwise(ends)):
        raise UserError(
            f"config.optimizer.milestones: the rate would drop after steps {falls} of "
            f"{total_steps}; each drop must come at another step, after the {config.warmup_steps} "
            "steps of warm-up and before the end; shorten the warm-up or train longer"
        )
    return optax.piecewise_constant_schedule(
        lr, {fall - config.warmup_steps: STEP_FACTOR for fall in falls}
    )


def _cooled(rate: optax.Schedule, cooldown: int, steps: int) -> optax.Schedule:
    """A schedule whose last rates fall along a line to 0, which is reached at `steps`."""
    if cooldown == 0:
        return rate
    return lambda step: rate(step) * jnp.minimum(1, (steps - step) / cooldown)
