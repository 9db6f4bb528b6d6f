"""Whether a run goes back to a checkpoint after a step that went wrong, or ends."""

from vit_jax.errors import BadStepError, SpikeError, UserError
from vit_jax.training.config import TrainConfig

# Rewinds of a run whose config leaves their number open.
MAX_REWINDS = 3


def check_rewind(config: TrainConfig, error: BadStepError, start: int, rewinds: int) -> None:
    """Ends the run unless it may go back once more.

    Args:
      start: the step of the newest checkpoint; 0 if there is none.
      rewinds: those so far.

    Raises:
      UserError: the config does not ask for it, or not as often.
    """
    most, key = config.max_rewinds or MAX_REWINDS, error.key
    if getattr(config, key) != "rewind":
        advice = (
            f"with --config.{key}=rewind, the same command resumes after step {start} and passes "
            f"steps {start + 1} to {error.step} without an update"
        )
    elif rewinds >= most:
        advice = (
            f"config.max_rewinds={most} is used up; with {2 * most}, the same command resumes "
            f"after step {start}"
        )
    else:
        return
    if isinstance(error, SpikeError):
        advice += f"; with --config.{key}=ignore, it resumes and takes the step"
    raise UserError(
        f"{error}; {advice}; or train again in a new --workdir with a lower optimizer.lr, a "
        "longer optimizer.warmup_steps or an optimizer.clip_norm"
    )
