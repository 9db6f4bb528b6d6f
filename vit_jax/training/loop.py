"""Training: one run, from its config to its final weights.

Read on in `run.py` (what the loop does at each step), `program.py` (the step as a program on a
mesh) and `step.py` (what a step computes). `opening.py` opens what a run needs, in order.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax

from vit_jax.errors import BadStepError, Stopped, UserError
from vit_jax.inference.requests import Interrupted
from vit_jax.runs.directory import newest_checkpoint
from vit_jax.training.callbacks import Callback
from vit_jax.training.choices import completed
from vit_jax.training.config import TrainConfig
from vit_jax.training.final_weights import RunResult
from vit_jax.training.opening import open_run
from vit_jax.training.run import Run


def train(
    config: TrainConfig | Mapping[str, Any] | str,
    workdir: str | os.PathLike[str],
    callbacks: Sequence[Callback] = (),
    *,
    profile: range | None = None,
    extend_to: int | None = None,
    accept_changed_data: bool = False,
    max_minutes: float | None = None,
) -> RunResult:
    """Starts a run, or resumes the one in `workdir`.

    Works in a notebook and in a script without a main guard, worker processes included. If several
    processes train together, each calls this alike.

    Args:
      config: a `TrainConfig`, an `ml_collections.ConfigDict` or a dict of its values, or the text
        of `--config`, such as "configs/finetune.py:b16,cifar10".
      callbacks: hear the scalars of the run on process 0, besides those in `config.callbacks`.
      profile: steps to trace, from 1, into `WORKDIR/profile`.
      extend_to: steps to take in all, more than the run in `workdir` has.
      accept_changed_data: resumes even if the data is not what the run was trained on.
      max_minutes: when they are over, this start ends with its state saved and its weights
        evaluated and written; the same call resumes for as long again. None is the config's.

    Returns:
      The file of final weights, the step they are of, and their scores.

    Raises:
      UserError: a mistake in the config, the data, the directory or the steps to trace; processes
        differ in one of these; the loss is not finite, or a spike that ends the run; or a device
        has too little memory.
      Stopped: SIGTERM, SIGHUP or a notice of preemption came, and the state is saved; the same
        call resumes.
      KeyboardInterrupt: with a message that says from where the same call resumes.
    """
    began = time.monotonic()
    with (
        explain_interrupt(workdir),
        explain_out_of_memory(),
        open_run(
            completed(config, workdir, max_minutes),
            workdir,
            callbacks,
            profile,
            max_minutes=max_minutes,
            began=began,
            extend_to=extend_to,
            accept_changed_data=accept_changed_data,
        ) as run,
    ):
        if isinstance(run, RunResult):
            return run  # The run had ended before.
        while True:
            try:
                return _take_steps(run)
            except BadStepError as error:
                problem = error.with_traceback(None)  # That would keep the state in memory.
            run.rewind(problem)


def _take_steps(run: Run) -> RunResult:
    """Takes a run from where it is to its end."""
    step, state = run.begin()
    try:
        run.begin_with_probe(state)
        run.evaluate(step, state)  # Those that an interrupted start still owes.
        while not run.is_over(step):
            step += 1
            state = run.take(step, state)
            if run.preemption.reached():
                raise Interrupted
            run.evaluate(step, state)
            if run.saves(step):
                run.save(step, state)
            if not run.is_over(step) and run.deadline.is_reached(step):
                return run.finish_in_time(step, state)
        return run.finish(step, state)
    except Interrupted:
        run.save_at_end(step, state)
        raise Stopped(
            f"asked to end: the state after step {step} is saved", run.preemption.code
        ) from None


@contextmanager
def explain_interrupt(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Says in a KeyboardInterrupt what is left of the run; saves under way have ended then."""
    try:
        yield
    except KeyboardInterrupt:
        step = newest_checkpoint(workdir)
        if step is None:
            left = "no step is saved yet, so the same command starts anew"
        else:
            left = f"the same command resumes after step {step}"
        raise KeyboardInterrupt(left) from None


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turns a lack of device memory into a UserError that names the keys that help.

    It goes around all that fills devices: what is dispatched here fails where it is waited for.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).partition("RESOURCE_EXHAUSTED:")[2].strip().partition("\n")[0]
        raise UserError(
            f"the run needs more memory than a device has ({reason}); try, in this order, "
            "config.model.remat='dots' or 'block', config.optimizer.micro_batches=2 or more, "
            "config.mesh.fsdp over more devices, and a smaller config.data.batch_size"
        ) from error
