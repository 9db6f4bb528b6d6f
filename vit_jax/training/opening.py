"""Opens a run: checks first, then the directory, then what its loop works with."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import jax

from vit_jax.analysis.macs import training_flops
from vit_jax.errors import UserError
from vit_jax.evaluation.opening import Evaluations
from vit_jax.models.functional import Params
from vit_jax.parallel.agreement import check_shared, on_all_processes
from vit_jax.parallel.processes import Preemption
from vit_jax.runs.checkpoints import Checkpoints
from vit_jax.runs.cost import CostFile, Hardware
from vit_jax.runs.directory import RunDirectory
from vit_jax.runs.metrics import MetricsWriter
from vit_jax.schema import build, to_dict
from vit_jax.spelling import nearest
from vit_jax.training.callbacks import Callback, CallbackContext, Callbacks
from vit_jax.training.config import TrainConfig
from vit_jax.training.deadline import Deadline
from vit_jax.training.early_stop import BestStep
from vit_jax.training.final_weights import RunResult, read_result
from vit_jax.training.notes import Notes, notes_of_0_1_0
from vit_jax.training.probe_head import with_probe_head
from vit_jax.training.process_checks import check_same_config, check_same_data, read_started
from vit_jax.training.reporter import Reporter
from vit_jax.training.resuming import check_data, describe_extension, extend, extended_steps
from vit_jax.training.run import Run, Start
from vit_jax.training.setup import (
    Setup,
    initial_params,
    make_evaluations,
    make_loader,
    prepare,
)
from vit_jax.training.spikes import RecentLosses
from vit_jax.training.step import final_params
from vit_jax.training.trace import Trace
from vit_jax.weights.placing import place

_log = logging.getLogger(__name__)

# Passes over the data from which on a run says how many it takes.
_MANY_EPOCHS = 500


@contextmanager
def open_run(
    config: TrainConfig,
    workdir: str | os.PathLike[str],
    callbacks: Sequence[Callback],
    profile: range | None,
    *,
    extend_to: int | None = None,
    accept_changed_data: bool = False,
    max_minutes: float | None = None,
    began: float,
) -> Iterator[Run | RunResult]:
    """Opens a run, and closes it in the end; if it has ended already, gives its result.

    Args:
      began: when this start began, by `time.monotonic`; the others are as for `train`.

    Raises:
      UserError: as `train`.
    """
    if jax.process_index() == 0:
        _log.info("opening the data and the model")
    started = read_started(workdir)
    with on_all_processes():
        steps = extended_steps(workdir, extend_to)
        setup = prepare(config, started=started, extended_to=steps)
        _check_profile(profile, setup.total_steps)
    check_same_config(setup.config)
    check_same_data({"train": setup.source})
    with ExitStack() as stack:
        with on_all_processes():
            # Before the directory is made, so that a damaged file leaves nothing behind.
            initial = initial_params(setup) if started is None else None
            evaluations = stack.enter_context(make_evaluations(setup))
            best = make_best(setup, evaluations)
        check_same_data(evaluations.sources())
        with on_all_processes():
            directory = stack.enter_context(_claim(workdir, setup))
            before = extend(setup, directory, extend_to)
        check_shared(directory.path, "--workdir")
        result = read_result(directory)
        if result is not None:
            if jax.process_index() == 0:
                print(f"the run has ended: weights are in {result.weights}", flush=True)
            yield result
            return
        if jax.process_index() == 0 and setup.config.evals:
            _log.info("compiling the largest of the evaluations")
        # The largest program, so that a lack of memory shows now and not hours later.
        evaluations.compile(final_params(setup.program.state))
        checkpoints = stack.enter_context(
            Checkpoints(directory.checkpoints, config.checkpoint, directory.identity)
        )
        (start, state, notes), probe = _restore_or_start(
            setup, directory, checkpoints, initial, best
        )
        del initial  # Its arrays have become the state's.

        def restore() -> Start:
            best = make_best(setup, evaluations)
            return _restore_or_start(setup, directory, checkpoints, None, best)[0]

        with on_all_processes():
            sources = {"train": setup.source, **evaluations.sources()}
            check_data(directory, sources, start, accept=accept_changed_data)
        reporter = stack.enter_context(
            _open_reporter(stack, setup, directory, start, callbacks, notes.losses)
        )
        if before is not None:
            reporter.message(describe_extension(setup, before, start))
        _say_length(setup, reporter)
        if probe is not None:
            reporter.message(probe)
        examples = sum(len(source) for source in evaluations.sources().values())
        traced = profile if profile is not None and jax.process_index() == 0 else range(0)
        if profile is not None and start >= profile[-1]:
            reporter.message(f"step {profile[-1]} is past: nothing is traced")
        with on_all_processes():
            loader = stack.enter_context(make_loader(setup, start))
            fixed = place(setup.program.objective.fixed, setup.program.fixed)
        yield Run(
            setup=setup,
            directory=directory,
            saved=start if probe is None else None,
            has_probe=probe is not None,
            deadline=_deadline(
                max_minutes or config.max_minutes, began, config, examples, reporter.callbacks
            ),
            fixed=fixed,
            notes=notes,
            cost=_open_cost(stack, setup, directory, start, notes, began),
            evaluations=evaluations,
            checkpoints=checkpoints,
            reporter=reporter,
            loader=loader,
            trace=stack.enter_context(Trace(traced, directory.profile)),
            preemption=stack.enter_context(Preemption()),
            _start=start,
            _state=state,
            _restore=restore,
        )


def _say_length(setup: Setup, reporter: Reporter) -> None:
    """Says how long a run is that passes over its data more often than seems meant."""
    batch_size, images = setup.config.data.batch_size, len(setup.source)
    epochs = setup.total_steps * batch_size / images
    if epochs > _MANY_EPOCHS:
        reporter.message(
            f"{setup.total_steps:,} steps of {batch_size} images are {epochs:,.0f} epochs of the "
            f"{images:,} there are; --config.total_steps sets fewer"
        )


def _check_profile(profile: range | None, total_steps: int) -> None:
    if profile is not None and profile[-1] > total_steps:
        raise UserError(
            f"--profile={profile[0]}:{profile[-1]}: the run ends with step {total_steps}"
        )


def _restore_or_start(
    setup: Setup,
    directory: RunDirectory,
    checkpoints: Checkpoints,
    initial: Params | None,
    best: BestStep | None,
) -> tuple[Start, str | None]:
    """What to continue from, and a line on the probe of a new head."""
    config, notes = setup.config, Notes(best, RecentLosses(setup.config.spike_limit))
    restored = checkpoints.restore(setup.program.state)
    if restored is None:
        if initial is None:  # A new run of random parameters, or no checkpoint can be read.
            with on_all_processes():
                initial = initial_params(setup)
        probe = None
        if config.init_head is not None and initial is not None:
            initial, probe = with_probe_head(setup, initial)
        return (0, [setup.program.start(initial)], notes), probe
    if restored.notes is not None:
        notes = notes.noted(restored.notes)
    else:
        judged_by = None if config.early_stop is None else config.early_stop.name
        names = list(config.evals)
        notes = notes_of_0_1_0(restored.step, directory.path, names, notes, judged_by)
    return (restored.step, [restored.state], notes), None


def _claim(workdir: str | os.PathLike[str], setup: Setup) -> RunDirectory:
    return RunDirectory(
        workdir,
        to_dict(setup.config),
        writer=jax.process_index() == 0,
        digest=setup.program.objective.fixed_digest,
        upgrade=lambda config: to_dict(build(TrainConfig, config)),
    )


def make_best(setup: Setup, evaluations: Evaluations) -> BestStep | None:
    """What early stopping starts with; None without it.

    Raises:
      UserError: the evaluation has no such score.
    """
    early_stop = setup.config.early_stop
    if early_stop is None:
        return None
    known = evaluations.score_names(early_stop.eval)
    if early_stop.metric not in known:
        raise UserError(
            f"config.early_stop.metric: evals.{early_stop.eval} has no score "
            f"{early_stop.metric!r}{nearest(early_stop.metric, known)}"
        )
    lower = evaluations.lower_is_better(early_stop.eval, early_stop.metric)
    if early_stop.mode is not None:
        lower = early_stop.mode == "min"
    return BestStep(lower_is_better=lower, patience=early_stop.patience)


def _deadline(
    minutes: float | None,
    began: float,
    config: TrainConfig,
    examples: int,
    callbacks: Callbacks | None,
) -> Deadline:
    """The end of this start, which its callbacks know too.

    Args:
      examples: of all evaluations; a pass over them takes half as long an example as a step, until
        it was timed.
    """
    if callbacks is not None and minutes is not None:
        callbacks.ends_at(began + 60 * minutes)
    return Deadline(
        minutes,
        began=began,
        agree_every=config.log_every,
        evaluation_steps=examples / config.data.batch_size / 2,
        seconds_later=None if callbacks is None else callbacks.seconds_later,
    )


def _open_reporter(
    stack: ExitStack,
    setup: Setup,
    directory: RunDirectory,
    start: int,
    given: Sequence[Callback],
    losses: RecentLosses,
) -> Reporter:
    """The reporter, with metrics and callbacks on process 0."""
    writer = callbacks = None
    with on_all_processes():
        if jax.process_index() == 0:
            context = CallbackContext(directory.path, to_dict(setup.config), start)
            callbacks = Callbacks(setup.config.callbacks, given, context)
            stack.callback(callbacks.close)
            writer = MetricsWriter(directory.path, start)
            stack.callback(writer.close)
    return Reporter(setup, start, writer, callbacks, losses)


def _open_cost(
    stack: ExitStack,
    setup: Setup,
    directory: RunDirectory,
    start: int,
    notes: Notes,
    began: float,
) -> CostFile | None:
    """The file of the run's cost on process 0, which is written once more when the stack closes."""
    if jax.process_index() != 0:
        return None
    # As for MFU: frozen parameters need no gradient, so the count would be too high.
    is_known = not setup.config.optimizer.freeze
    cost = CostFile(
        directory.path,
        Hardware.of(setup.mesh.devices.flat),
        step=start,
        passed=notes.passed_steps,
        batch_size=setup.config.data.batch_size,
        flops_per_image=training_flops(setup.model) if is_known else None,
        began=began,
    )
    stack.callback(cost.write)
    return cost
