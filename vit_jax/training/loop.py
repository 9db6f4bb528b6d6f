"""A run, from its config to its final weights."""

import math
import os
import time
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from vit_jax.data.batches import Chunks
from vit_jax.data.images import TrainTransform
from vit_jax.data.loader import Loader, local_rows
from vit_jax.errors import UserError
from vit_jax.evaluation.classification import Classification
from vit_jax.models.functional import Params, init_params
from vit_jax.parallel.sharding import batch_sharding, replicated, state_shardings
from vit_jax.runs.checkpoints import Checkpoints
from vit_jax.runs.directory import RunDirectory
from vit_jax.runs.metrics import MetricsWriter
from vit_jax.schema import to_dict
from vit_jax.training.config import TrainConfig
from vit_jax.training.progress import Clock, Progress
from vit_jax.training.setup import Setup, make_evaluations, prepare
from vit_jax.training.step import TrainState, init_state, make_train_step
from vit_jax.weights.files import write_weights

# A step's number and its scalars, which may still be computed.
_Pending = tuple[int, dict[str, Array]]


def train(config: TrainConfig, workdir: str | os.PathLike[str]) -> Path:
    """Starts a run, or goes on with the one that `workdir` holds.

    Returns:
      The file of final weights.

    Raises:
      UserError: a mistake in the config, the data or the directory; or the loss is not finite.
    """
    setup = prepare(config)
    is_writer = jax.process_index() == 0
    with ExitStack() as stack:
        evaluations = make_evaluations(setup)
        for evaluation in evaluations.values():
            stack.enter_context(evaluation)
        run = stack.enter_context(RunDirectory(workdir, to_dict(setup.config), writer=is_writer))
        checkpoints = stack.enter_context(Checkpoints(run.checkpoints, config.checkpoint))
        start, state = _restore_or_init(setup, checkpoints)
        reporter = stack.enter_context(_Reporter(setup, run, start, shown=is_writer))
        loader = stack.enter_context(make_loader(setup, start))
        state = _run(setup, state, start, loader, evaluations, checkpoints, reporter)
        checkpoints.wait()
        _write_weights(setup, state, run, is_writer)
        reporter.message(f"weights are in {run.weights}")
        return run.weights


def _run(
    setup: Setup,
    state: TrainState,
    start: int,
    loader: Loader,
    evaluations: dict[str, Classification],
    checkpoints: Checkpoints,
    reporter: "_Reporter",
) -> TrainState:
    config, total = setup.config, setup.total_steps
    train_step = _compile_step(setup, state)
    pending: _Pending | None = None
    for step in range(start + 1, total + 1):
        state, metrics = train_step(state, next(loader).arrays)
        # The scalars of the step before are read while this one runs.
        if pending is not None:
            reporter.finish(*pending, waited=loader.waited)
        pending = step, metrics
        due = {
            name: evaluation
            for name, evaluation in evaluations.items()
            if _is_due(step, config.evals[name].every_steps, total)
        }
        save = _is_due(step, config.checkpoint.every_steps, total)
        if due or save:
            reporter.finish(*pending, waited=loader.waited)
            pending = None
        with reporter.paused():
            for name, evaluation in due.items():
                reporter.evaluated(step, name, evaluation.evaluate(_final_params(state)))
            if save:
                # Metrics first: a checkpoint promises that all of its past is on disk.
                reporter.flush()
                checkpoints.save(step, state)
    return state


def _is_due(step: int, every_steps: int | None, total: int) -> bool:
    return step == total or (every_steps is not None and step % every_steps == 0)


def _restore_or_init(setup: Setup, checkpoints: Checkpoints) -> tuple[int, TrainState]:
    """The step and state to go on from, sharded from the first moment on."""
    model, seed = setup.model, setup.config.seed
    average = setup.config.optimizer.average is not None

    def init(params: Params) -> TrainState:
        return init_state(params, setup.optimizer, average=average)

    def init_fresh() -> TrainState:
        return init(init_params(model, seed))

    shapes = jax.eval_shape(init_fresh)
    shardings = state_shardings(shapes, setup.mesh)
    restored = checkpoints.restore(
        jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
        )
    )
    if restored is not None:
        return restored
    if setup.initial is None:
        return 0, jax.jit(init_fresh, out_shardings=shardings)()
    params = jax.tree.map(_place, setup.initial, shardings.params)
    return 0, jax.jit(init, out_shardings=shardings)(params)


def _place(array: np.ndarray, sharding: jax.sharding.Sharding) -> Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def make_loader(setup: Setup, start: int) -> Loader:
    """Batches of the steps after `start`, to the last one of the run."""
    config, sharding = setup.config.data, batch_sharding(setup.mesh)
    size = setup.model.input_size
    chunks = Chunks(
        setup.source,
        TrainTransform(size, setup.preprocessing, config),
        size=size,
        rows=local_rows(config.batch_size, sharding),
        batch_size=config.batch_size,
        seed=setup.config.seed,
        shuffle=True,
    )
    return Loader(
        chunks,
        sharding,
        start=start,
        stop=setup.total_steps,
        workers=config.workers,
        on_error=config.on_error,
    )


def _compile_step(setup: Setup, state: TrainState):
    config = setup.config
    step = make_train_step(
        setup.model,
        setup.preprocessing,
        setup.optimizer,
        setup.mesh,
        loss=config.loss,
        label_smoothing=config.label_smoothing,
        flip=config.data.flip,
        micro_batches=config.optimizer.micro_batches,
        average=config.optimizer.average,
        seed=config.seed,
    )
    shardings = state_shardings(state, setup.mesh)
    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(setup.mesh)),
        out_shardings=(shardings, replicated(setup.mesh)),
        donate_argnums=0,
    )


def _final_params(state: TrainState) -> Params:
    """What is evaluated and written: the averaged parameters where there are any."""
    return state.params if state.averaged is None else state.averaged


def _write_weights(setup: Setup, state: TrainState, run: RunDirectory, is_writer: bool) -> None:
    # Leaf by leaf, so that a device holds one whole array at a time.
    params = jax.tree.map(
        lambda x: np.asarray(multihost_utils.process_allgather(x, tiled=True)),
        _final_params(state),
    )
    description = {
        "layout": "google",
        "model": to_dict(setup.model),
        "class_names": list(setup.source.class_names),
        "step": setup.total_steps,
        "averaged": state.averaged is not None,
    }
    if is_writer:
        write_weights(run.weights, params, description)


class _Reporter:
    """Where a run's scalars go: checked, to the metrics files and to the progress line."""

    def __init__(self, setup: Setup, run: RunDirectory, start: int, *, shown: bool):
        self._schedule, self._total = setup.schedule, setup.total_steps
        self._log_every = setup.config.log_every
        self._writer = MetricsWriter(run.path, start) if shown else None
        self._progress = Progress(start, setup.total_steps, shown=shown)
        self._clock = Clock(setup.config.data.batch_size)
        if start:
            self.message(f"going on after step {start} of {self._total}")

    def finish(self, step: int, metrics: dict[str, Array], *, waited: float) -> None:
        """Waits for a step's scalars; writes and shows them where it is their turn.

        Raises:
          UserError: the loss or the gradient is not finite.
        """
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]):
                raise UserError(
                    f"step {step}: {name} is {values[name]}; start again from the last checkpoint "
                    "with a lower config.optimizer.lr, more warm-up or clip_norm, in another --workdir"
                )
        self._clock.tick()
        if not _is_due(step, self._log_every, self._total):
            return
        scalars = {f"train/{name}": value for name, value in values.items()}
        scalars["train/lr"] = float(self._schedule(step - 1))
        scalars |= self._clock.report(waited, self._total - step)
        self._progress.step(step, scalars)
        self._write(step, scalars)

    def evaluated(self, step: int, name: str, values: dict[str, float]) -> None:
        """Writes and shows what an evaluation gave."""
        self._write(step, {f"{name}/{key}": value for key, value in values.items()})
        self.message(
            f"step {step}: {name} top-1 {values['top1']:.2%}, top-5 {values['top5']:.2%}, "
            f"loss {values['loss']:.4f} on {values['examples']:,.0f} examples"
        )

    def message(self, text: str) -> None:
        self._progress.message(text)

    def flush(self) -> None:
        """Returns when all metrics so far are on disk."""
        if self._writer is not None:
            self._writer.flush()

    def paused(self) -> "_Pause":
        """A context whose time does not count as training."""
        return _Pause(self._clock)

    def _write(self, step: int, scalars: dict[str, float]) -> None:
        if self._writer is not None:
            self._writer.write(step, scalars)

    def __enter__(self) -> "_Reporter":
        return self

    def __exit__(self, *_) -> None:
        self._progress.close()
        if self._writer is not None:
            self._writer.close()


class _Pause:
    def __init__(self, clock: Clock):
        self._clock = clock

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_) -> None:
        self._clock.pause(time.perf_counter() - self._began)
