"""TensorBoard, Weights & Biases, MLflow and callbacks of one's own."""

import json
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

import vit_jax
from tests.full_disk import no_room
from tests.small_models import TINY_FLAGS, refusal
from vit_jax.config import load_config
from vit_jax.training.callbacks import CallbackContext, Callbacks, register_callback

CONTEXT = {"optimizer": {"lr": 0.1}, "seed": 0}


def events(directory: Path) -> Iterator[Event]:
    """The events of all files, read as TFRecord: length (8 bytes), checksum (4), data, checksum."""
    for path in sorted((directory / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def write(directory: Path, start: int, steps: tuple[int, ...], name: str = "tensorboard") -> None:
    callbacks = Callbacks([name], [], CallbackContext(directory, CONTEXT, start))
    for step in steps:
        callbacks.scalars(step, {"train/loss": 1 / step})
    callbacks.close()


def test_tensorboard_shows_the_scalars(tmp_path: Path) -> None:
    write(tmp_path, 0, (1, 2, 4))
    scalars = {
        (value.tag, event.step, value.simple_value)
        for event in events(tmp_path)
        for value in event.summary.value
    }
    assert scalars == {("train/loss", 1, 1.0), ("train/loss", 2, 0.5), ("train/loss", 4, 0.25)}


def test_tensorboard_forgets_the_steps_that_are_run_again(tmp_path: Path) -> None:
    write(tmp_path, 0, (1, 2, 4))
    write(tmp_path, 2, (3, 4))
    starts = [e.step for e in events(tmp_path) if e.session_log.status == e.session_log.START]
    # TensorBoard drops what came before a start and has its step or a later one.
    assert starts[-1] == 3


def test_tensorboard_does_not_hold_up_a_run_on_a_full_disk(tmp_path: Path) -> None:
    callbacks = Callbacks(["tensorboard"], [], CallbackContext(tmp_path, {}, 0))
    with no_room():
        for step in range(1, 2001):
            callbacks.scalars(step, {"train/loss": float(step)})
    callbacks.close()
    values = [v.simple_value for event in events(tmp_path) for v in event.summary.value]
    assert values == list(range(1, 2001))


def test_a_directory_of_events_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").touch()
    message = refusal(Callbacks, ["tensorboard"], [], CallbackContext(tmp_path, {}, 0))
    assert "cannot write events to" in message and "config.callbacks" in message


def test_a_failing_callback_ends_and_the_others_hear_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []

    class Failing:
        def scalars(self, step: int, values: Mapping[str, float]) -> None:
            raise OSError("no connection")

        def close(self) -> None:
            raise OSError("no connection")

    class Hearing:
        def scalars(self, step: int, values: Mapping[str, float]) -> None:
            heard.append(step)

        def close(self) -> None:
            heard.append(-1)

    callbacks = Callbacks([], [Failing(), Hearing()], CallbackContext(tmp_path, {}, 0))
    for step in (1, 2):
        callbacks.scalars(step, {"train/loss": 1.0})
    callbacks.close()
    assert heard == [1, 2, -1]
    assert caplog.text.count("callback Failing failed at step 1") == 1


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    write(tmp_path, 0, (1, 2), "wandb")
    write(tmp_path, 1, (2, 3), "wandb")
    identity = json.loads((tmp_path / "wandb.json").read_text())["id"]
    files = list((tmp_path / "wandb").glob(f"offline-run-*/run-{identity}.wandb"))
    assert len(files) == 2 and all(file.stat().st_size for file in files)
    assert any(b"train/loss" in file.read_bytes() for file in files)


def test_mlflow_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write(tmp_path, 0, (1, 2), "mlflow")
    write(tmp_path, 1, (2, 3), "mlflow")
    identity = json.loads((tmp_path / "mlflow.json").read_text())["id"]
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    found = {(m.step, m.value) for m in client.get_metric_history(identity, "train/loss")}
    assert found == {(1, 1.0), (2, 0.5), (3, 1 / 3)}
    run = client.get_run(identity)
    assert run.info.status == "FINISHED" and run.data.params["optimizer.lr"] == "0.1"


def test_a_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
        message = refusal(Callbacks, [name], [], CallbackContext(tmp_path, {}, 0))
        assert f"pip install 'vit_jax[{name}]'" in message


def test_train_in_python_with_a_callback_of_one_s_own(tmp_path: Path) -> None:
    """As in a notebook: a ConfigDict's values, and a class of ten lines."""
    heard: dict[str, list[int]] = {}

    class Recorder:
        def scalars(self, step: int, values: Mapping[str, float]) -> None:
            for name in values:
                heard.setdefault(name, []).append(step)

        def close(self) -> None:
            heard["closed"] = []

    register_callback("recorder", lambda context: Recorder())
    overrides = [
        *TINY_FLAGS,
        *("--config.data.batch_size=16", "--config.total_steps=4"),
        *("--config.optimizer.warmup_steps=2", "--config.log_every=2"),
        *("--config.evals.test.every_steps=2", "--config.callbacks=('recorder',)"),
        f"--config.data.data_dir={tmp_path / 'data'}",
    ]
    config = load_config("configs/quickstart.py", overrides)
    result = vit_jax.train(config, tmp_path / "run")
    assert heard["train/loss"] == heard["test/top1"] == [2, 4] and "closed" in heard
    assert not (tmp_path / "run/tensorboard").exists()
    assert result.weights == tmp_path / "run/weights.npz" and result.step == 4
    assert 0 <= result.scores["test/top1"] <= 1 and result.scores["test/examples"] == 360
    # A run that has ended gives the same again, and takes no step.
    heard.clear()
    assert vit_jax.train(config, tmp_path / "run", callbacks=[Recorder()]) == result
    assert not heard
    message = refusal(vit_jax.train, config | {"callbacks": ["recoder"]}, tmp_path / "other")
    assert "did you mean 'recorder'?" in message
