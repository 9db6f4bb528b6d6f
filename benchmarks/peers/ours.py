"""The work by vit_jax, with its defaults, from jax, flax, optax and numpy alone."""

import dataclasses
from typing import Any

import flax
import jax
import numpy as np

from benchmarks.machine import versions
from benchmarks.peers.attention import AttentionAlone
from benchmarks.peers.case import CLIP_NORM, RATE, SHOWN, WEIGHT_DECAY, Case
from vit_jax.models.dot_product import Implementation, attend
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import Params, abstract_params, apply_model, init_params
from vit_jax.models.placement import OneDevice
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import OnMesh, replicated
from vit_jax.preprocessing import normalize
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.schedule import make_schedule
from vit_jax.training.step import init_state, make_train_step
from vit_jax.training.supervised import Supervised

OPTIMIZER = OptimizerConfig(
    lr=RATE, schedule="constant", weight_decay=WEIGHT_DECAY, clip_norm=CLIP_NORM
)
_STEPS = 10_000


def describe() -> tuple[str, str, str]:
    """Platform, device and versions."""
    return (
        jax.default_backend(),
        jax.devices()[0].device_kind,
        f"{versions()}, flax {flax.__version__}",
    )


class Training:
    """The step that `train` takes, without what feeds and watches it."""

    def __init__(self, case: Case, params: Params | None):
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        config = case.config
        optimizer = make_optimizer(
            OPTIMIZER,
            make_schedule(OPTIMIZER, _STEPS),
            abstract_params(config),
            parameter_table(config),
        )
        step = make_train_step(
            Supervised(config, OnMesh(mesh, False)),
            optimizer,
            mesh,
            micro_batches=1,
            average=None,
            seed=0,
        )

        def start(params: Params | None) -> Any:
            drawn = init_params(config, 0) if params is None else params
            return init_state(drawn, optimizer, average=False)

        images, labels = case.batch()
        batch = {"images": images, "labels": labels, "weights": np.ones(len(labels), np.float32)}
        # As `Program` has it on one device.
        everywhere = replicated(mesh)
        self._batch = jax.device_put(batch, everywhere)
        self._state = jax.jit(start, out_shardings=everywhere)(params)
        self._step = jax.jit(
            step, in_shardings=everywhere, out_shardings=everywhere, donate_argnums=0
        )

    def run(self, count: int) -> list[float]:
        """See `Work`."""
        losses = []
        for _ in range(count):
            self._state, metrics = self._step(self._state, self._batch)
            losses.append(metrics["loss"])
        jax.block_until_ready((self._state, losses))
        return [float(loss) for loss in losses]


class Forward:
    """The jitted forward pass."""

    def __init__(self, case: Case, params: Params | None):
        config, preprocessing = case.config, case.config.preprocessing
        assert preprocessing is not None
        apply = apply_model(config)
        self._forward = jax.jit(lambda params, x: apply(params, normalize(x, preprocessing)))
        if params is None:
            params = jax.jit(lambda: init_params(config, 0))()
        self._args = jax.device_put((params, case.batch()[0]))

    def run(self, count: int) -> list[float]:
        """See `Work`."""
        for _ in range(count):
            logits = self._forward(*self._args)
        jax.block_until_ready(logits)
        return np.asarray(logits)[0, :SHOWN].tolist()


def make(
    case: Case, params: Params | None, *, attention: Implementation = "xla"
) -> Training | Forward | AttentionAlone:
    """See `Contender`.

    Args:
      attention: `ModelConfig.attention`.
    """
    if case.job == "attention":
        return AttentionAlone(case, lambda q, k, v: attend(q, k, v, attention, OneDevice()))
    config = dataclasses.replace(case.config, attention=attention)
    case = dataclasses.replace(case, config=config)
    return Training(case, params) if case.job == "train" else Forward(case, params)
