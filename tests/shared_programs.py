"""One training step for all runs of equal configs in a process."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vit_jax.training import setup
from vit_jax.training.program import Program, make_program


@contextmanager
def sharing() -> Iterator[None]:
    """Runs of equal configs trace and compile their step once.

    Not for objectives with fixed arrays, which a config only names.
    """
    programs: dict[str, Program] = {}
    steps: dict[int, Any] = {}
    jitted = Program.step

    def shared(config: Any, *of_data: Any) -> Program:
        same = dataclasses.replace(config, on_non_finite="stop", max_rewinds=None)
        key = f"{same} {of_data}"
        if key not in programs:
            programs[key] = make_program(config, *of_data)
        return programs[key]

    def step(self: Program) -> Any:
        if id(self) not in steps:
            steps[id(self)] = jitted(self)
        return steps[id(self)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "make_program", shared)
        patch.setattr(Program, "step", step)
        yield
