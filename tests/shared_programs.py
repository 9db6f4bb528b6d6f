"""One training step for all runs in a process whose configs ask for the same one."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vit_jax.runs.checkpoints import CheckpointConfig
from vit_jax.training import setup
from vit_jax.training.config import TrainConfig
from vit_jax.training.program import Program, make_program


def _without_the_loops(config: TrainConfig) -> TrainConfig:
    """The config without what the step does not read: start, loop, and how the host loads data."""
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data, dataset="digits", data_dir=None, workers=0, on_error="stop"
        ),
        init_from=None,
        init_head=None,
        position_resize="aligned",
        max_minutes=None,
        evals={},
        early_stop=None,
        log_every=1,
        checkpoint=CheckpointConfig(),
        on_non_finite="stop",
        on_spike="ignore",
        spike_multiple=None,
        max_rewinds=None,
        callbacks=(),
    )


@contextmanager
def sharing() -> Iterator[None]:
    """Runs trace and compile their step once, if their configs differ in nothing that it reads.

    Not for objectives with fixed arrays, which a config only names.
    """
    programs: dict[str, Program] = {}
    steps: dict[int, Any] = {}
    jitted = Program.step

    def shared(config: TrainConfig, *of_data: Any) -> Program:
        key = f"{_without_the_loops(config)} {of_data}"
        if key not in programs:
            program = programs[key] = make_program(config, *of_data)
            # JAX knows a traced function again by its object, and a method is a new one each time.
            vars(program)["_init"] = program._init
        return programs[key]

    def step(self: Program) -> Any:
        if id(self) not in steps:
            steps[id(self)] = jitted(self)
        return steps[id(self)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "make_program", shared)
        patch.setattr(Program, "step", step)
        yield
