"""A run while it is open: what its loop does at each step."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax

from vit_jax.data.loader import Loader
from vit_jax.errors import BadStepError, NotSavedError, UserError
from vit_jax.evaluation.evaluator import Scores
from vit_jax.evaluation.opening import Evaluations
from vit_jax.parallel.agreement import on_all_processes
from vit_jax.parallel.processes import Preemption
from vit_jax.runs.checkpoints import Checkpoints, to_save_again
from vit_jax.runs.cost import CostFile
from vit_jax.runs.directory import RunDirectory
from vit_jax.training.deadline import Deadline
from vit_jax.training.final_weights import RunResult, best_weights, write_final_weights
from vit_jax.training.notes import Notes
from vit_jax.training.reporter import Reporter, is_due
from vit_jax.training.rewinding import check_rewind
from vit_jax.training.setup import Setup
from vit_jax.training.step import TrainState, final_params
from vit_jax.training.trace import Trace

_log = logging.getLogger(__name__)

# A step, its state and its notes, to continue from; the state in a list, to be popped, so that no
# reference to it stays.
Start = tuple[int, list[TrainState], Notes]


@dataclass
class Run:
    """What the loop works with; all of it is open.

    Attributes:
      saved: the step of the newest checkpoint; None after a save that failed, and before the first
        one of a run whose first state took work.
      has_probe: whether the head is a probe that was fitted now and is not scored yet.
      deadline: of this start.
      fixed: the objective's fixed arrays, on the mesh.
      notes: what a resumed run must know besides its arrays.
      cost: None on other processes than 0.
    """

    setup: Setup
    directory: RunDirectory
    saved: int | None
    has_probe: bool
    deadline: Deadline
    fixed: Any
    notes: Notes
    cost: CostFile | None
    evaluations: Evaluations
    checkpoints: Checkpoints
    reporter: Reporter
    loader: Loader
    trace: Trace
    preemption: Preemption
    _start: int
    _state: list[TrainState]
    _restore: Callable[[], Start]

    def __post_init__(self) -> None:
        if jax.process_index() == 0:
            _log.info("compiling the training step; its first loss follows")
        self._step = self.setup.program.step()

    def begin(self) -> tuple[int, TrainState]:
        """The step and state to continue from, at the start and after each `rewind`."""
        return self._start, self._state.pop()

    def take(self, step: int, state: TrainState) -> TrainState:
        """Dispatches a step on its batch; uses up the state."""
        self.directory.check()
        with self._on_failure():
            self.checkpoints.check()
        for seconds in self.checkpoints.completed():
            self.reporter.spend("checkpoint_write", seconds)
        with self.trace.step(step) as dispatched:
            state, metrics = self._step(state, next(self.loader), self.fixed)
            dispatched(metrics)
        self.reporter.log_step(step, metrics, waited=self.loader.waited)
        if self.cost is not None:
            self.cost.note(step, self.notes.passed_steps)
        return state

    def evaluate(self, step: int, state: TrainState) -> None:
        """Runs the evaluations whose turn it is after a step, unless they are done.

        Raises:
          Interrupted: the run was asked to end. Evaluations that were complete are noted.
        """
        names = [name for name in self.evaluations.names if self._is_due(name, step)]
        if step and names:
            self._evaluate_now(step, names, state)

    def begin_with_probe(self, state: TrainState) -> None:
        """Scores and saves the state before the first step if its head is a new probe.

        A start that resumes finds the head in the checkpoint.
        """
        if self.has_probe:
            self.has_probe = False
            self._evaluate_now(0, self._names_at_end(0), state)
            self.save(0, state)

    def _evaluate_now(self, step: int, names: Sequence[str], state: TrainState) -> None:
        self.reporter.settle()
        with self.reporter.paused(), self.deadline.timing_evaluation():
            self._run_evaluations(step, names, state)

    def _names_at_end(self, step: int) -> list[str]:
        """The evaluations that would be due if this step were the last one."""
        total = self.setup.total_steps
        return [
            name
            for name in self.evaluations.names
            if self._is_due(name, total) and not self.notes.is_done(step, name)
        ]

    def is_over(self, step: int) -> bool:
        """Whether the run ends after this step: it is the last one, or patience has run out."""
        best = self.notes.best
        return step == self.setup.total_steps or (best is not None and best.is_over)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after this step."""
        is_best = self.notes.best is not None and self.notes.best.step == step
        every_steps = self.setup.config.checkpoint.every_steps
        return is_best or self.is_over(step) or is_due(step, every_steps, self.setup.total_steps)

    def save(self, step: int, state: TrainState) -> None:
        """Starts to save the state, unless it was restored from a checkpoint of this step."""
        if step == self.saved:
            return
        self.reporter.settle()
        with self.reporter.paused("checkpoint_wait"), self._on_failure():
            self._save(step, state)

    def save_at_end(self, step: int, state: TrainState) -> None:
        """Saves the state of a run that is asked to end; returns when it is saved.

        Raises:
          NotSavedError: it is not, whatever `checkpoint.on_failure` says.
        """
        self.reporter.settle()
        if step != self.saved:
            self._save(step, state)
        self.checkpoints.wait()

    def finish_in_time(self, step: int, state: TrainState) -> RunResult:
        """Ends a start whose time is up: saves the state, evaluates, and writes weights.

        The run has not ended: the next start resumes it.

        Raises:
          Interrupted: as `finish`.
        """
        self.reporter.settle()
        self.reporter.message(
            f"max_minutes={self.deadline.minutes:g}: the time is up after step {step} of "
            f"{self.setup.total_steps}, {self.deadline.seconds_for_the_end:.0f} s being left for "
            "evaluating and saving; the same command resumes for as long again"
        )
        self.save_at_end(step, state)
        self._evaluate_now(step, self._names_at_end(step), state)
        return self.finish(step, state, has_ended=False)

    def _save(self, step: int, state: TrainState) -> None:
        # A checkpoint promises that all metrics before it are on disk. A save that only some of the
        # processes begin would never end.
        with on_all_processes(NotSavedError):
            self.reporter.flush()
        best = None if self.notes.best is None else self.notes.best.step
        self.checkpoints.save(step, state, self.notes.to_json(), best=best)
        self.saved = step

    def rewind(self, error: BadStepError) -> None:
        """Goes back to the newest checkpoint, and on to the step of the error without an update.

        What the passed steps would have scored is left out. What `begin` then gives is saved, so
        that another start continues from there too.

        Raises:
          UserError: the config does not ask for it, or not as often.
        """
        with self.reporter.paused():
            with self._on_failure():
                self.checkpoints.wait()
            step, passed = error.step, self.notes.passed
            newest = self.checkpoints.newest() or 0
            check_rewind(self.setup.config, error, newest, len(passed))
            start, (state,), self.notes = self._restore()
            self.reporter.losses = self.notes.losses
            self.notes.passed = [*passed, [start + 1, step]]
            self._start = step
            self._state = [self.setup.program.pass_steps(state, step - start)]
            self.loader.restart(step)
            self.reporter.message(str(error))
            self.reporter.log_rewind(start + 1, step, len(self.notes.passed))
            with self._on_failure():
                self._save(step, *self._state)

    @contextmanager
    def _on_failure(self) -> Iterator[None]:
        """What a save that fails does."""
        try:
            yield
        except NotSavedError as error:
            self.saved = None  # The same step may be saved again.
            if self.setup.config.checkpoint.on_failure == "stop":
                advice = to_save_again(self.directory.path)
                raise UserError(f"{error}; {advice}") from error
            _log.warning("%s; the run continues without it", error)

    def finish(self, step: int, state: TrainState, *, has_ended: bool = True) -> RunResult:
        """Chooses the final weights after the last step, evaluates what is left, and writes them.

        Args:
          has_ended: False if the run resumes in its next start.

        Raises:
          Interrupted: the run was asked to end in the last evaluations.
        """
        self.reporter.settle()
        with self._on_failure():
            self.checkpoints.wait()
        early_stop, best = self.setup.config.early_stop, self.notes.best
        chosen, params, scores = step, final_params(state), self.notes.scores
        if early_stop is not None and best is not None:
            if best.is_over and step < self.setup.total_steps:
                self.reporter.message(
                    f"step {step}: no better {early_stop.name} in {best.evals_since} evaluations, "
                    "so the run ends"
                )
            chosen, params = best_weights(best, step, state, self.checkpoints)
            if chosen == best.step:
                scores = self.notes.best_scores
            scores |= self._evaluate_final_weights(step, params)
            value = best.value if chosen == best.step else None
            self.reporter.log_final_weights(step, chosen, early_stop.name, value)
        with self._on_failure():
            self.reporter.flush()
            if self.cost is not None:
                self.cost.write()  # Before the weights, which tell that the run has ended.
        result = RunResult(self.directory.weights, chosen, dict(scores))
        write_final_weights(self.setup, result, params, has_ended=has_ended)
        self.directory.note_weights()
        self.reporter.message(f"weights are in {result.weights}")
        if self.cost is not None:
            self.reporter.message(f"cost of the run: {self.cost.write()}")
        return result

    def _is_due(self, name: str, step: int) -> bool:
        every_steps = self.setup.config.evals[name].every_steps
        if self.notes.best is not None and every_steps is None:
            return False  # It scores the best weights, at the end.
        due = is_due(step, every_steps, self.setup.total_steps)
        return due and not self.notes.is_done(step, name)

    def _run_evaluations(self, step: int, names: Sequence[str], state: TrainState) -> None:
        early_stop = self.setup.config.early_stop
        judged_by = None if early_stop is None else early_stop.name
        for name, scores in self._scored(step, names, final_params(state)):
            self.notes.add(step, name, scores.values, judged_by)

    def _evaluate_final_weights(self, step: int, params: Any) -> dict[str, float]:
        """Runs the evaluations without `every_steps`; returns their scores as `NAME/SCORE`."""
        evals = self.setup.config.evals
        names = [name for name in self.evaluations.names if evals[name].every_steps is None]
        return {
            f"{name}/{key}": value
            for name, scores in self._scored(step, names, params)
            for key, value in scores.values.items()
        }

    def _scored(self, step: int, names: Sequence[str], params: Any) -> Iterator[tuple[str, Scores]]:
        """Runs evaluations; logs what each gave, and what it took."""
        began = time.perf_counter()
        for name, scores in self.evaluations.run(
            names, params, should_stop=self.preemption.reached
        ):
            self.reporter.log_evaluation(step, name, scores, time.perf_counter() - began)
            yield name, scores
            began = time.perf_counter()
