"""Class weights in the loss, against the closed form and the config's checks."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tests.small_models import SMALL, refusal
from vit_jax.losses import cross_entropy
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.supervised import Supervised

WEIGHTS = (0.5, 2.0, 1.0, 4.0, 0.25)


def test_a_loss_is_its_class_weight_times_the_cross_entropy() -> None:
    logits = jax.random.normal(jax.random.key(0), (6, 5))
    labels = jnp.array([0, 1, 2, 3, 4, -1])
    batch = {"labels": labels, "weights": jnp.ones(6)}
    found = Supervised(SMALL, class_weights=WEIGHTS).label_losses(logits, batch)
    log_p = np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    wanted = [-WEIGHTS[c] * log_p[c, c] for c in range(5)]
    np.testing.assert_allclose(found[:5], wanted, rtol=1e-5)


def test_mixed_examples_weigh_both_labels() -> None:
    logits = jax.random.normal(jax.random.key(1), (2, 5))
    batch = {
        "labels": jnp.array([0, 3]),
        "partner_labels": jnp.array([1, 4]),
        "share": jnp.array([0.7, 0.6]),
    }
    objective = Supervised(SMALL, mixup=0.2, class_weights=WEIGHTS, label_smoothing=0.1)
    losses = [cross_entropy(logits, batch[k], "softmax", 0.1) for k in ("labels", "partner_labels")]
    wanted = [
        0.7 * 0.5 * losses[0][0] + 0.3 * 2.0 * losses[1][0],
        0.6 * 4.0 * losses[0][1] + 0.4 * 0.25 * losses[1][1],
    ]
    np.testing.assert_allclose(objective.label_losses(logits, batch), wanted, rtol=1e-5)


def test_a_loss_of_several_classes_takes_no_class_weights(tmp_path: Path) -> None:
    values = {
        "model": {"name": "ti16"},
        "data": {"dataset": str(tmp_path)},
        "optimizer": {},
        "total_steps": 1,
        "loss_weights": "balanced",
        "loss": "sigmoid",
    }
    assert "loss_weights='balanced' needs loss='softmax'" in refusal(build, TrainConfig, values)
