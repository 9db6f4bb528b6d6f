"""The state before the first step, and where the step leaves the next one."""

import dataclasses
import warnings

import jax
import numpy as np
import pytest

from tests.small_models import SMALL, random_params
from vit_jax.data.config import DataConfig
from vit_jax.models.families import parameter_table
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import state_shardings
from vit_jax.training.config import TrainConfig
from vit_jax.training.optimizer import OptimizerConfig
from vit_jax.training.program import make_program

CONFIG = TrainConfig(
    SMALL, DataConfig("digits", batch_size=4), OptimizerConfig(warmup_steps=1), total_steps=4
)


@pytest.mark.parametrize("average", [None, 0.9])
def test_the_state_takes_the_memory_of_the_parameters_to_start_from(average: float | None) -> None:
    config = dataclasses.replace(
        CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, average=average)
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    stored, kept = random_params(SMALL), random_params(SMALL)
    params = jax.device_put(stored, state_shardings(stored, parameter_table(SMALL), mesh))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # JAX warns of what it cannot take.
        state = make_program(config, 4, mesh).start(params)
    assert all(array.is_deleted() for array in jax.tree.leaves(params))
    starts = [state.params] if average is None else [state.params, state.averaged]
    for tree in (stored, *starts):
        jax.tree.map(np.testing.assert_array_equal, tree, kept)


def test_the_next_state_lies_as_the_one_before() -> None:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    program = make_program(CONFIG, 4, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, program.state)
    assert jax.tree.map(lambda x: x.sharding, program.start()) == shardings
    assert program.compile().output_shardings[0] == shardings


@pytest.mark.parametrize(("max_labels", "shape"), [(None, (4,)), (7, (4, 7))])
def test_the_batch_has_room_for_the_labels_of_the_data(
    max_labels: int | None, shape: tuple[int, ...]
) -> None:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    program = make_program(CONFIG, 4, mesh, max_labels)
    assert program.batch["labels"].shape == shape
    program.compile()
