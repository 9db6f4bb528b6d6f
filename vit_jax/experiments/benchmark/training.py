"""The training step that a config describes, on made-up images that lie on the devices."""

from collections.abc import Callable
from dataclasses import dataclass

import jax

from vit_jax.experiments.synthetic import random_batch
from vit_jax.training.program import Program
from vit_jax.weights.placing import place

# For each multiply-add of a forward pass: forward, and backward to inputs and parameters.
FLOPS = 6


@dataclass(frozen=True)
class TrainingStep:
    """The step that `train` runs: forward, backward and update."""

    program: Program

    def lower(self) -> jax.stages.Lowered:
        """The step, traced."""
        program = self.program
        return program.step().lower(program.state, program.batch, program.fixed)

    def start(self, compiled: jax.stages.Compiled) -> Callable[[int], object]:
        """Puts state and batch on the devices; returns what takes so many steps."""
        program = self.program
        state = program.start()
        batch = random_batch(program)
        fixed = place(program.objective.fixed, program.fixed)

        def run(steps: int) -> None:
            nonlocal state
            for _ in range(steps):
                state, scalars = compiled(state, batch, fixed)
            jax.block_until_ready(scalars)

        return run
