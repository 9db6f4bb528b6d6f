"""A run, from its config to its final weights."""

import functools
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from vit_jax.data.batches import Chunks
from vit_jax.data.images.transforms import make_transform
from vit_jax.data.loader import Loader, local_rows
from vit_jax.errors import Stopped, UserError
from vit_jax.evaluation.opening import Evaluations
from vit_jax.inference.passes import Interrupted
from vit_jax.models.functional import Params
from vit_jax.parallel.agreement import check_shared, together
from vit_jax.parallel.processes import Preemption
from vit_jax.parallel.sharding import batch_sharding
from vit_jax.runs.checkpoints import Checkpoints
from vit_jax.runs.directory import RunDirectory
from vit_jax.schema import build, to_dict
from vit_jax.training.config import TrainConfig
from vit_jax.training.early_stop import BestStep
from vit_jax.training.final_weights import best_params, written_params
from vit_jax.training.one_run import check_same_config, check_same_data, read_started
from vit_jax.training.reporter import Reporter, is_due
from vit_jax.training.setup import Setup, make_evaluations, place, place_initial, prepare
from vit_jax.training.step import TrainState, final_params
from vit_jax.training.trace import Trace
from vit_jax.weights.files import write_weights


def train(
    config: TrainConfig, workdir: str | os.PathLike[str], *, profile: range = range(0)
) -> Path:
    """Starts a run, or goes on with the one that `workdir` holds.

    Args:
      profile: steps, from 1, of which the first process leaves a trace.

    Returns:
      The file of final weights.

    Raises:
      UserError: a mistake in the config, the data, the directory or the steps to trace; processes
        differ in one of these; the loss is not finite; or a device has too little memory.
      Stopped: SIGTERM, or a notice of preemption to any process, came; the state is saved.
    """
    started = read_started(workdir)
    setup = together(lambda: prepare(config, started=started))
    check_same_config(setup.config)
    check_same_data({"train": setup.source})
    if profile and profile[-1] > setup.total_steps:
        raise UserError(
            f"--profile={profile[0]}:{profile[-1]}: the run ends with step {setup.total_steps}"
        )
    is_writer = jax.process_index() == 0
    with ExitStack() as stack:
        stack.enter_context(_telling_what_takes_memory())
        # Before the directory is made: a damaged file leaves nothing behind.
        initial = None
        if setup.initial is not None and started is None:
            initial = together(lambda: place_initial(setup))
        evaluations = together(lambda: make_evaluations(setup))
        check_same_data(evaluations.sources())
        stack.enter_context(evaluations)
        run = together(lambda: _claim(workdir, setup, is_writer))
        stack.enter_context(run)
        check_shared(run.path, "--workdir")
        best = BestStep(config.early_stop) if config.early_stop is not None else None
        bests = best.improvements if best is not None else ()
        checkpoints = stack.enter_context(Checkpoints(run.checkpoints, config.checkpoint, bests))
        start, state = _restore_or_init(setup, checkpoints, initial)
        reporter = stack.enter_context(Reporter(setup, run, start, shown=is_writer))
        if best is not None:
            for past in reporter.past(best.config.name):
                best.add(*past)
        loader = stack.enter_context(make_loader(setup, start))
        preemption = stack.enter_context(Preemption())
        if profile and start >= profile[-1]:
            reporter.message(f"step {profile[-1]} is past, so that nothing is traced")
        trace = stack.enter_context(Trace(profile if is_writer else range(0), run.profile))
        opened = (evaluations, checkpoints, reporter, loader, preemption, trace)
        loop = _Run(setup, *opened, best, run.weights)
        step, params = loop.run(start, state)
        checkpoints.wait()
        _write_weights(setup, step, params, run, is_writer)
        reporter.message(f"weights are in {run.weights}")
        return run.weights


@dataclass(frozen=True)
class _Run:
    """What the loop works with; all of it is open."""

    setup: Setup
    evaluations: Evaluations
    checkpoints: Checkpoints
    reporter: Reporter
    loader: Loader
    preemption: Preemption
    trace: Trace
    best: BestStep | None
    # The file of final weights.
    weights: Path

    def run(self, start: int, state: TrainState) -> tuple[int, Params]:
        """Takes the steps after `start`; returns the final weights and the step they are of."""
        last, state = self._take_steps(start, state)
        if self.best is None:
            return last, final_params(state)
        self.checkpoints.wait()
        written = functools.partial(written_params, self.setup, self.weights)
        chosen, params = best_params(self.best, last, state, self.checkpoints, written)
        done = self.reporter.recorded if last == start else ()
        if not self._evaluate(last, params, self._due_at_the_end, done):
            self._stop(last)
        self.reporter.chosen(last, self.best, chosen)
        self.reporter.flush()
        return chosen, params

    def _take_steps(self, start: int, state: TrainState) -> tuple[int, TrainState]:
        """The last step, be it that of the schedule or the one that patience ends at."""
        config, total = self.setup.config, self.setup.total_steps
        # A run that was stopped in the middle of its evaluations still owes the others.
        if start:
            done = self.reporter.recorded
            if not self._evaluate(start, final_params(state), self._due(start), done):
                self._stop(start)
            if self._is_over(start):
                return start, state
        self.evaluations.compile(final_params(state))
        program = self.setup.program
        train_step = program.step()
        fixed = place(program.objective.fixed, program.fixed_table, self.setup.mesh)
        pending: tuple[int, dict[str, Array]] | None = None
        for step in range(start + 1, total + 1):
            self.trace.start_before(step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = train_step(state, next(self.loader), fixed)
            # The scalars of the step before are read while this one runs.
            if pending is not None:
                self.reporter.finish(*pending, waited=self.loader.waited)
            pending = step, metrics
            stop = self.preemption.reached()
            save = stop or is_due(step, config.checkpoint.every_steps, total)
            if save or self._due(step) or self.trace.turns_after(step):
                self.reporter.finish(*pending, waited=self.loader.waited)
                pending = None
            with self.reporter.paused():
                self.trace.stop_after(step)
                stop = stop or not self._evaluate(step, final_params(state), self._due(step))
                is_best = self.best is not None and step in self.best.improvements
                is_over = self._is_over(step)
                if save or stop or is_best or is_over:
                    # Metrics first: a checkpoint promises that all of its past is on disk.
                    self.reporter.flush()
                    self.checkpoints.save(step, state)
            if stop:
                self._stop(step)
            if is_over:
                return step, state
        return total, state

    def _is_over(self, step: int) -> bool:
        """Whether patience ends the run here, which is then said."""
        if self.best is None or not self.best.is_over:
            return False
        self.reporter.message(
            f"step {step}: {self.best.config.name} has not become better "
            f"{self.best.since} times, so the run ends"
        )
        return True

    def _due(self, step: int) -> list[str]:
        """The evaluations whose turn it is."""
        evals, total = self.setup.config.evals, self.setup.total_steps
        due = [
            name for name in self.evaluations.names if is_due(step, evals[name].every_steps, total)
        ]
        return [name for name in due if name not in self._due_at_the_end]

    @property
    def _due_at_the_end(self) -> list[str]:
        """The evaluations of the best step, where that is not simply the last one."""
        evals = self.setup.config.evals if self.best is not None else {}
        return [name for name in evals if evals[name].every_steps is None]

    def _evaluate(
        self, step: int, params: Params, names: Collection[str], done: Collection[str] = ()
    ) -> bool:
        """Runs evaluations at a step, less those done; False when asked to stop meanwhile."""
        names = [name for name in names if name not in done]
        try:
            for name, scores in self.evaluations.run(
                names, params, should_stop=self.preemption.reached
            ):
                self.reporter.evaluated(step, name, scores)
                if self.best is not None and name == self.best.config.eval:
                    self.best.add(step, scores.values[self.best.config.metric])
        except Interrupted:
            return False
        return True

    def _stop(self, step: int) -> NoReturn:
        self.checkpoints.wait()
        raise Stopped(f"asked to end: the state after step {step} is saved")


@contextmanager
def _telling_what_takes_memory() -> Iterator[None]:
    """Around all that fills devices, since what is dispatched here fails where it is waited for."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).partition("RESOURCE_EXHAUSTED:")[2].strip().partition("\n")[0]
        raise UserError(
            f"the run needs more memory than a device has ({reason}); try, in this "
            "order, config.model.remat='dots' or 'block', config.optimizer.micro_batches=2 or "
            "more, config.mesh.fsdp over more devices, and a smaller config.data.batch_size"
        ) from error


def _claim(workdir: str | os.PathLike[str], setup: Setup, is_writer: bool) -> RunDirectory:
    return RunDirectory(
        workdir,
        to_dict(setup.config),
        writer=is_writer,
        upgrade=lambda config: to_dict(build(TrainConfig, config)),
    )


def _restore_or_init(
    setup: Setup, checkpoints: Checkpoints, initial: Params | None
) -> tuple[int, TrainState]:
    """The step and state to go on from, sharded from the first moment on."""
    restored = checkpoints.restore(setup.program.state)
    if restored is not None:
        return restored
    if initial is None and setup.initial is not None:
        # The run had a state, but none that can be read.
        initial = together(lambda: place_initial(setup))
    return 0, setup.program.start(initial)


def make_loader(setup: Setup, start: int) -> Loader:
    """Batches of the steps after `start`, to the last one of the run."""
    config = setup.config.data
    return Loader(
        _make_chunks(setup),
        batch_sharding(setup.mesh),
        start=start,
        stop=setup.total_steps,
        workers=config.workers,
        on_error=config.on_error,
    )


def _make_chunks(setup: Setup) -> Chunks:
    config, size = setup.config.data, setup.model.input_size
    return Chunks(
        setup.source,
        make_transform(size, setup.preprocessing, config),
        size=size,
        rows=local_rows(config.batch_size, batch_sharding(setup.mesh)),
        batch_size=config.batch_size,
        seed=setup.config.seed,
        shuffle=True,
    )


def _write_weights(
    setup: Setup, step: int, params: Params, run: RunDirectory, is_writer: bool
) -> None:
    # Leaf by leaf, so that a device holds one whole array at a time.
    params = jax.tree.map(
        lambda x: np.asarray(multihost_utils.process_allgather(x, tiled=True)), params
    )
    if is_writer:
        try:
            write_weights(
                run.weights,
                params,
                setup.model,
                class_names=setup.source.class_names,
                extra={
                    "step": step,
                    "averaged": setup.config.optimizer.average is not None,
                    "loss": setup.config.loss,
                },
            )
        except OSError as error:
            raise UserError(
                f"cannot write {run.weights} ({error.strerror}); the last state is saved: make "
                "room, then start again"
            ) from error
