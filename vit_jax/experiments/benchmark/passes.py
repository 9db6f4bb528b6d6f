"""A model's forward pass, from images of 8 bits to logits, on made-up images on the devices."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from vit_jax.experiments.synthetic import random_batch
from vit_jax.models.functional import apply_model, init_params
from vit_jax.parallel.sharding import OnMesh, batch_sharding
from vit_jax.preprocessing import normalize
from vit_jax.training.program import Program

# For each multiply-add.
FLOPS = 2


@dataclass(frozen=True)
class ForwardPass:
    """What `evaluate` and `predict` run: images to the model's value range, then the model.

    Attributes:
      program: the training step of the same model, which knows where parameters lie.
    """

    program: Program

    def lower(self) -> jax.stages.Lowered:
        """The pass, traced."""
        program, config = self.program, self.program.config
        preprocessing, apply = config.model.preprocessing, apply_model(config.model)
        assert preprocessing is not None
        placement = OnMesh(program.mesh, config.mesh.sequence)

        def forward(params: Any, images: Array) -> Array:
            return apply(params, normalize(images, preprocessing), placement=placement)

        passes = jax.jit(forward, out_shardings=batch_sharding(program.mesh))
        return passes.lower(program.model_params, program.batch["images"])

    def start(self, compiled: jax.stages.Compiled) -> Callable[[int], object]:
        """Puts parameters and images on the devices; returns what makes so many passes."""
        config = self.program.config
        shardings = jax.tree.map(lambda x: x.sharding, self.program.model_params)
        init = jax.jit(lambda: init_params(config.model, config.seed), out_shardings=shardings)
        params, images = init(), random_batch(self.program)["images"]
        # A CPU may run several passes at once, and would share its cores among them.
        one_by_one = self.program.mesh.devices.flat[0].platform == "cpu"

        def run(passes: int) -> None:
            logits = None
            for _ in range(passes):
                before, logits = logits, compiled(params, images)
                # No more than two wait on the devices, so that their outputs do not pile up.
                jax.block_until_ready(logits if one_by_one else before)
            jax.block_until_ready(logits)

        return run
