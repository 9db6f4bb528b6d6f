"""An objective in one file: a student learns a teacher's answers, and labels where there are any.

The teacher's arrays are fixed: an argument of the step, and no part of the state.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array
from sklearn.datasets import load_digits

from tests.eight_devices import EightDevices
from tests.real_processes import start_process, wait_for_line
from tests.small_models import random_params
from tests.tiny_run import results
from vit_jax.__main__ import main
from vit_jax.losses import cross_entropy
from vit_jax.models.config import ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import Params, abstract_params, apply_model, init_params
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import replicated
from vit_jax.parameters import Table, nested
from vit_jax.preprocessing import normalize
from vit_jax.training.objectives import Batch, Examples, ObjectiveConfig, ObjectiveContext
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.schedule import make_schedule
from vit_jax.training.step import init_state, make_train_step
from vit_jax.training.supervised import Supervised
from vit_jax.weights.files import open_weights, write_weights
from vit_jax.weights.load import params_for


class Distillation:
    """Cross-entropy with the teacher's answers, plus that with the label if there is one."""

    def __init__(
        self, context: ObjectiveContext, teacher: ModelConfig, params: Params, digest: str | None
    ) -> None:
        self.parameters: Table = nested("teacher", parameter_table(teacher))
        self.fixed: Any = {"teacher": params}
        self.fixed_digest = digest
        self._context = context
        self._student, self._teacher = apply_model(context.model), apply_model(teacher)
        assert context.model.preprocessing is not None and teacher.preprocessing is not None
        self._preprocessing = context.model.preprocessing, teacher.preprocessing

    def init(self, key: Array) -> Params:
        del key
        return {}

    def prepare(self, batch: Batch, keys: tuple[Array, Array]) -> Batch:
        del keys
        return batch

    def losses(self, params: Params, fixed: Any, batch: Batch, key: Array) -> Examples:
        own, others = (normalize(batch["images"], each) for each in self._preprocessing)
        placement = self._context.placement
        logits = self._student(params, own, key=key, placement=placement)
        answers = self._teacher(fixed["teacher"], others, placement=placement)
        losses = optax.softmax_cross_entropy(logits, jax.nn.softmax(answers))
        by_label = cross_entropy(logits, batch["labels"], "softmax", 0.0)
        losses += jnp.where(batch["labels"] >= 0, by_label, 0)
        agrees = (logits.argmax(-1) == answers.argmax(-1)).astype(jnp.float32)
        return Examples(losses, {"agreement": agrees}, batch["weights"])


@ObjectiveConfig.kinds.register("distillation")
@dataclass(frozen=True)
class DistillationConfig(ObjectiveConfig):
    """Learns the answers of a teacher."""

    learns_labels: ClassVar[bool] = False

    teacher: str
    """The teacher's weight file."""

    def make(self, context: ObjectiveContext) -> Distillation:
        weights = open_weights(self.teacher)
        params, model = params_for(weights, weights.model)
        with open(weights.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Distillation(context, model, params, digest)


MODEL = ModelConfig(
    "ViT-Ti/2",
    image_size=8,
    num_classes=10,
    depth=1,
    width=32,
    mlp_dim=64,
    num_heads=2,
    pooling="gap",
    scan=False,
).completed()
STEPS, BATCH = 200, 64


def context(model: ModelConfig) -> ObjectiveContext:
    from vit_jax.data.config import DataConfig
    from vit_jax.models.placement import OneDevice

    return ObjectiveContext(model, OneDevice(), "softmax", 0.0, DataConfig("digits"))


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [1797, 8, 8, 3] and int32 [1797]."""
    found = load_digits()
    images = np.repeat((found.images * 15.9375).astype(np.uint8)[..., None], 3, axis=-1)
    return images, found.target.astype(np.int32)


def fit(
    step: Callable[..., Any], optimizer: Any, labels: np.ndarray, seed: int, fixed: Any = ()
) -> Params:
    """Trains on the first 1437 digits; -1 is no label."""
    mesh, rng = make_mesh(MeshConfig(), jax.devices()[:1]), np.random.default_rng(seed)
    state = init_state(init_params(MODEL, seed), optimizer, average=False)
    state = jax.device_put(state, replicated(mesh))
    images, _ = digits()
    for _ in range(STEPS):
        rows = rng.integers(0, 1437, BATCH)
        batch = {"images": images[rows], "labels": labels[rows], "weights": np.ones(BATCH, "f4")}
        state, _ = step(state, batch, fixed)
    params: Params = state.params
    return params


def accuracy(params: Params) -> float:
    images, labels = digits()
    assert MODEL.preprocessing is not None
    logits = jax.jit(apply_model(MODEL))(params, normalize(images[1437:], MODEL.preprocessing))
    return float((np.asarray(logits).argmax(-1) == labels[1437:]).mean())


@functools.cache
def steps() -> tuple[Any, Any, Any, Params]:
    """The optimizer, the step without and with the teacher, and the teacher."""
    config = OptimizerConfig(lr=5e-3, warmup_steps=20, clip_norm=1.0)
    schedule = make_schedule(config, STEPS)
    optimizer = make_optimizer(config, schedule, abstract_params(MODEL), parameter_table(MODEL))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    options: dict[str, Any] = {"micro_batches": 1, "average": None, "seed": 0}
    alone = jax.jit(make_train_step(Supervised(MODEL), optimizer, mesh, **options))
    _, labels = digits()
    teacher = fit(alone, optimizer, labels[:1437], seed=100)
    taught = Distillation(context(MODEL), MODEL, teacher, None)
    return optimizer, alone, jax.jit(make_train_step(taught, optimizer, mesh, **options)), teacher


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_student_scores_higher_with_a_teacher(seed: int) -> None:
    optimizer, alone, with_teacher, teacher = steps()
    _, labels = digits()
    assert accuracy(teacher) > 0.7
    # A hundred images have a known label.
    few = np.full(1437, -1, np.int32)
    known = np.random.default_rng(seed).choice(1437, 100, replace=False)
    few[known] = labels[known]
    student = fit(with_teacher, optimizer, few, seed, {"teacher": teacher})
    assert accuracy(student) > accuracy(fit(alone, optimizer, few, seed)) + 0.1


CONFIG = """
import tests.training.test_distillation
from vit_jax.config import load_config


def get_config(teacher):
    config = load_config("configs/quickstart.py")
    config["objective"] = {"kind": "distillation", "teacher": teacher}
    return config
"""


def run(tmp_path: Path, teacher: Path, name: str) -> list[str]:
    config = tmp_path / "distilled.py"
    config.write_text(CONFIG)
    return [
        *("train", f"--config={config}:{teacher}"),
        *("--config.model.depth=1", "--config.model.width=32", "--config.model.mlp_dim=32"),
        *("--config.model.num_heads=2", "--config.model.dropout=0.1"),
        *("--config.data.batch_size=32", "--config.optimizer.micro_batches=2"),
        *("--config.optimizer.warmup_steps=2", "--config.optimizer.average=0.9"),
        *("--config.total_steps=12", "--config.log_every=1", "--config.checkpoint.every_steps=5"),
        *("--config.evals=none", f"--config.data.data_dir={tmp_path / 'data'}"),
        f"--workdir={tmp_path / name}",
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a teacher, the data and the runs."""
    home = tmp_path_factory.mktemp("distillation")
    model = dataclasses.replace(MODEL, width=48, mlp_dim=48)
    write_weights(home / "teacher.npz", random_params(model), model)
    return home


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """A run that nothing disturbed."""
    assert main(run(home, home / "teacher.npz", "whole")) == 0
    return home / "whole"


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(home: Path, whole: Path) -> None:
    arguments = run(home, home / "teacher.npz", "killed")
    process = start_process(arguments)
    wait_for_line(process, "step 8/12")
    process.kill()
    process.communicate()
    assert main(arguments) == 0
    assert results(home / "killed") == results(whole)


def test_eight_devices_equal_one(home: Path, whole: Path, eight_devices: EightDevices) -> None:
    assert eight_devices.run(main, run(home, home / "teacher.npz", "eight")) == 0
    one, eight = (
        [line for line in results(workdir)[0] if "train/loss" in line]
        for workdir in (whole, home / "eight")
    )
    assert len(one) == len(eight) == 12
    for key in ("train/loss", "train/agreement", "train/grad_norm"):
        values = ([line[key] for line in lines] for lines in (eight, one))
        np.testing.assert_allclose(*values, rtol=1e-5, err_msg=key)


def test_another_teacher_is_another_run(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = whole.parent / "teacher.npz"
    saved = json.loads((whole / "config.json").read_text())
    assert saved["objective"] == {"kind": "distillation", "teacher": str(teacher)}
    weights, arguments = dict(np.load(teacher)), run(whole.parent, teacher, "whole")
    kept = teacher.read_bytes()
    try:  # Even under the same name.
        np.savez(teacher, **(weights | {"head/bias": weights["head/bias"] + 1}))
        assert main(arguments) == 2
    finally:
        teacher.write_bytes(kept)
    assert "fixed arrays" in capsys.readouterr().err
