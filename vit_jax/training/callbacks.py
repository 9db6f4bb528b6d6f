"""Who hears of a run's scalars besides `metrics.jsonl`: TensorBoard, W&B, MLflow and your own.

A callback of your own is a class with two methods, given to `vit_jax.train`:

    class Printer:
        def scalars(self, step, values):
            print(step, values)

        def close(self):
            pass

    vit_jax.train(config, workdir, callbacks=[Printer()])

In a config file, register how it is opened, and name it in `config.callbacks`:

    register_callback("printer", lambda context: Printer())
    config.callbacks = ("tensorboard", "printer")
"""

import importlib
import json
import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol, cast

from etils import epath

from vit_jax.errors import TakenOverError, UserError
from vit_jax.spelling import nearest
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket
from vit_jax.training.tensorboard import TensorBoard

_log = logging.getLogger(__name__)


class Callback(Protocol):
    """Hears the scalars of a run, on process 0."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the scalars of one step, by names such as `train/loss` and `val/top1`.

        Steps come in ascending order. One step may come several times, with other names. A resumed
        run repeats the steps after its checkpoint, with equal values.
        """

    def close(self) -> None:
        """The run has ended or was interrupted."""


class WorksLater(Callback, Protocol):
    """A callback that has something to do after training, such as a report."""

    def seconds_later(self, evaluation: float) -> float:
        """What that takes; a start with `max_minutes` ends so much earlier.

        Args:
          evaluation: seconds that all evaluations take.
        """

    def ends_at(self, moment: float) -> None:
        """Tells when it must be done, by `time.monotonic`; not called without `max_minutes`."""


@dataclass(frozen=True)
class CallbackContext:
    """What a callback is opened for.

    Attributes:
      workdir: the run's directory, on a disk or in a bucket.
      config: the run's config, as nested dicts.
      start: the step after which this start takes steps; 0 for a new run.
    """

    workdir: epath.Path
    config: dict[str, Any]
    start: int


Opener = Callable[[CallbackContext], Callback]
_openers: dict[str, Opener] = {}


def register_callback(name: str, opener: Opener) -> None:
    """Makes a callback known under a name that `config.callbacks` may hold."""
    _openers[name] = opener


def check_callbacks(names: Sequence[str]) -> None:
    """Checks that callbacks are known.

    Raises:
      UserError: one is not.
    """
    for name in names:
        if name not in _openers:
            raise UserError(f"callbacks: no callback {name!r}{nearest(name, _openers)}")


class Callbacks:
    """Several callbacks as one. A failure of one is logged and ends that callback, not the run."""

    def __init__(self, names: Sequence[str], given: Sequence[Callback], context: CallbackContext):
        opened = [(name, _openers[name](context)) for name in names]
        self._callbacks = [*opened, *((type(each).__name__, each) for each in given)]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Passes the scalars on, if there are any."""
        if not values:
            return
        for name, callback in list(self._callbacks):
            try:
                callback.scalars(step, dict(values))
            except Exception:  # It is someone else's code, and the run is worth more than its log.
                _log.exception("callback %s failed at step %d and is ended", name, step)
                self._callbacks.remove((name, callback))

    def seconds_later(self, evaluation: float) -> float:
        """What all of them take after training; see `WorksLater`."""
        return sum(each.seconds_later(evaluation) for each in self._later())

    def ends_at(self, moment: float) -> None:
        """Tells those that work after training when they must be done."""
        for each in self._later():
            each.ends_at(moment)

    def _later(self) -> list[WorksLater]:
        # Most have neither of the two methods.
        having = (each for _, each in self._callbacks if hasattr(each, "seconds_later"))
        return [cast(WorksLater, each) for each in having]

    def close(self) -> None:
        """Closes all callbacks."""
        for name, callback in self._callbacks:
            try:
                callback.close()
            except TakenOverError:
                pass  # The run ends with a line that says so.
            except UserError as error:
                _log.warning("callback %s could not be closed: %s", name, error)
            except Exception:
                _log.exception("callback %s could not be closed", name)
        self._callbacks = []


class WandB:
    """Logs to Weights & Biases; a resumed run continues the same W&B run.

    W&B reads its own settings from the environment: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE.
    """

    def __init__(self, context: CallbackContext):
        wandb = _require("wandb", "wandb")
        identity = _kept_id(context.workdir / "wandb.json", lambda: secrets.token_hex(8))
        # Its own files cannot lie in a bucket; it sends what they hold.
        local = tempfile.mkdtemp(prefix="wandb_") if is_bucket(context.workdir) else context.workdir
        self._run = wandb.init(id=identity, resume="allow", dir=str(local), config=context.config)
        # W&B drops values of a step below one it has seen, and a resumed run repeats some.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values, with `step` as their axis."""
        self._run.log({"step": step, **values})

    def close(self) -> None:
        """Waits until everything is sent or, offline, written."""
        self._run.finish()


class MLflow:
    """Logs to MLflow; a resumed run continues the same MLflow run.

    MLflow reads its own settings from the environment: MLFLOW_TRACKING_URI, without which it writes
    files in `WORKDIR/mlruns`, and MLFLOW_EXPERIMENT_NAME.
    """

    def __init__(self, context: CallbackContext):
        mlflow = _require("mlflow", "mlflow")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            if is_bucket(context.workdir):
                raise UserError(
                    f"callbacks: 'mlflow' writes no files to {context.workdir}; name a server in "
                    "MLFLOW_TRACKING_URI, or leave 'mlflow' out of config.callbacks"
                )
            # MLflow 3 writes plain files only if it is told that this is meant.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (context.workdir / "mlruns").as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "vit_jax")
        self._id = _kept_id(context.workdir / "mlflow.json", lambda: self._create(name, context))

    def _create(self, name: str, context: CallbackContext) -> str:
        experiment = self._client.get_experiment_by_name(name)
        number = (
            self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        )
        run_id: str = self._client.create_run(number, run_name=context.workdir.name).info.run_id
        for key, value in _flat(context.config):
            self._client.log_param(run_id, key, value)
        return run_id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values at their step."""
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self) -> None:
        """Marks the run as finished; a resumed run logs to it again."""
        self._client.set_terminated(self._id)


def _require(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"callbacks: {extra!r} needs the package {module} ({error}): pip install "
            f"'vit_jax[{extra}]'"
        ) from error


def _kept_id(file: epath.Path, make: Callable[[], str]) -> str:
    """The id that the run's directory holds for a service; the first start makes and stores it."""
    if objects.exists(file):
        return str(json.loads(objects.read_bytes(file))["id"])
    identity = make()
    objects.write_bytes(file, json.dumps({"id": identity}).encode())
    return identity


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    items = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            items += _flat(value, f"{prefix}{key}.")
        else:
            items.append((f"{prefix}{key}", str(value)))
    return items


register_callback(
    "tensorboard", lambda context: TensorBoard(context.workdir / "tensorboard", context.start)
)
register_callback("wandb", WandB)
register_callback("mlflow", MLflow)
