"""A head to start from: a logistic regression on the features that it will see."""

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.data.sources.labels import refuse_several_labels
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.evaluation.linear_probe import fit_probe
from vit_jax.inference.features import FeatureConfig
from vit_jax.inference.passes import Pass
from vit_jax.inference.requests import Arrays, Request
from vit_jax.models.functional import Params
from vit_jax.training.setup import Setup
from vit_jax.weights.placing import place

_HEAD = ("kernel", "bias")


def with_probe_head(setup: Setup, params: Params) -> tuple[Params, str]:
    """Replaces the head of a model by a linear probe of its features of the training images.

    Features are computed once, of each image as evaluations see it. The fit's penalty is chosen by
    cross-validation within the training images; see `evaluation.linear_probe.fit_probe`. With
    `loss_weights` or `sampling` balanced, all classes count alike in the fit too.

    Args:
      params: the model's, on the mesh.

    Returns:
      The parameters, and a line that says what was done.

    Raises:
      UserError: records have several labels, an image cannot be read, or the model has no head.
    """
    source, model, config = setup.source, setup.model, setup.config
    _check(source, params)
    taken = FeatureConfig()

    def rows(batch: Arrays) -> Arrays:
        return {"features": taken.select(batch, model), "labels": batch["labels"]}

    with Pass(
        model,
        setup.mesh,
        {"probe": Request(source, outputs=taken.outputs, rows=rows)},
        batch_size=None,
        workers=config.data.workers,
        on_error=config.data.on_error,
    ) as each:
        found = each.run(params)["probe"].rows
    head = {name: np.zeros(params["head"][name].shape, np.float32) for name in _HEAD}
    chosen = np.zeros((), np.float32)
    if jax.process_index() == 0:
        labelled = found["labels"] >= 0
        balanced = config.loss_weights is not None or config.data.sampling == "balanced"
        probe = fit_probe(
            found["features"][labelled],
            found["labels"][labelled],
            head["bias"].shape[-1],
            seed=config.seed,
            balanced=balanced,
        )
        head = {"kernel": probe.kernel, "bias": probe.bias}
        chosen = np.asarray(probe.inverse_penalty, np.float32)
    head, chosen = multihost_utils.broadcast_one_to_all((head, chosen))
    placed = place(head, {name: params["head"][name] for name in _HEAD})
    line = (
        f"head: a linear probe on the features of {len(source):,} training images (C = "
        f"{float(chosen):g})"
    )
    return {**params, "head": placed}, line


def _check(source: Source, params: Params) -> None:
    refuse_several_labels(source, "config.init_head='probe'")
    if set(params.get("head", {})) != set(_HEAD):
        raise UserError("config.init_head='probe': the model has no head; leave it out")
