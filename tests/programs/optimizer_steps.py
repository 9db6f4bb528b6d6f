"""Steps of one optimizer on two meshes of eight devices and on one, and a checkpoint between."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vit_jax.data.config import DataConfig
from vit_jax.models.config import ModelConfig
from vit_jax.parallel import sharding
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parameters import path_of
from vit_jax.runs.checkpoints import CheckpointConfig, Checkpoints
from vit_jax.training.config import TrainConfig
from vit_jax.training.optimizer import OptimizerConfig
from vit_jax.training.program import Program, make_program
from vit_jax.training.step import TrainState

# Arrays of this many elements are split here, so that rows and columns of a small model are too.
LARGE = 256
_MODEL = ModelConfig(
    "ViT-B/8", image_size=16, num_classes=16, depth=2, width=64, mlp_dim=256, num_heads=2
)


class Steps(NamedTuple):
    """What two steps give.

    Attributes:
      losses: of both.
      moments: the optimizer's arrays by their paths.
      parts: into how many parts each of them is split.
    """

    losses: list[float]
    moments: dict[str, np.ndarray]
    parts: dict[str, int]


def take_steps(config: OptimizerConfig, mesh: MeshConfig, devices: int) -> Steps:
    """Takes two steps from the same parameters along the same batch."""
    program = _program(config, mesh, devices)
    state, losses = program.start(), []
    for _ in range(2):
        state, loss = _step(program, state)
        losses.append(loss)
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    return Steps(
        losses,
        {path_of(path): np.asarray(leaf, np.float32) for path, leaf in leaves},
        {path_of(path): leaf.size // leaf.addressable_shards[0].data.size for path, leaf in leaves},
    )


def check_resume(directory: Path, config: OptimizerConfig) -> None:
    """A checkpoint of one mesh is restored on another bit for bit, and there on its own goes on."""
    one, other = (_program(config, mesh, 8) for mesh in (MeshConfig(1, 4, 2), MeshConfig(1, 2, 4)))
    state, _ = _step(one, one.start())
    saved = jax.device_get(state)
    with Checkpoints(directory, CheckpointConfig()) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.wait()
        after, loss = _step(one, state)
        for program in (other, one):
            restored = checkpoints.restore(program.state)
            assert restored is not None
            _assert_same_bits(restored.state, saved)
            shardings = [
                jax.tree.leaves(jax.tree.map(lambda x: x.sharding, tree))
                for tree in (restored.state, program.state)
            ]
            assert shardings[0] == shardings[1]
    again, same_loss = _step(one, restored.state)
    assert loss == same_loss
    _assert_same_bits(again, after)


def _program(config: OptimizerConfig, mesh: MeshConfig, devices: int) -> Program:
    small, sharding._SMALL = sharding._SMALL, LARGE
    try:
        train = TrainConfig(
            _MODEL.completed(), DataConfig("synthetic", batch_size=16), config, total_steps=10
        )
        program = make_program(train, 10, make_mesh(mesh, jax.devices()[:devices]))
        _ = program.state  # Its places are chosen now.
        return program
    finally:
        sharding._SMALL = small


def _step(program: Program, state: TrainState) -> tuple[TrainState, float]:
    rng = np.random.default_rng(0)
    batch = {
        "images": rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
        "labels": rng.integers(0, 16, 16, np.int32),
        "weights": np.ones(16, np.float32),
    }
    placed = {name: jax.device_put(batch[name], x.sharding) for name, x in program.batch.items()}
    with jax.default_matmul_precision("highest"):
        state, metrics = program.step()(state, placed, ())
    return state, float(metrics["loss"])


def _assert_same_bits(actual: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b), actual, expected)
