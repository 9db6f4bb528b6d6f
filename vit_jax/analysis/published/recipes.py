"""Models and recipes of the paper (arXiv 2010.11929v2): Tables 1, 3 and 4."""

from typing import Literal, NamedTuple


class Table1Row(NamedTuple):
    """A model of Table 1; `params` in millions, at patch side `patch` with 1,000 classes."""

    model: str
    layers: int
    width: int
    mlp_dim: int
    heads: int
    params: float


class Table3Row(NamedTuple):
    """A recipe of pre-training, with Adam, batch 4096, warm-up of 10,000 steps, at 224 pixels.

    Attributes:
      models: ViT-* is every ViT.
      data: as `vit_jax.data.sources.published` names it.
      epochs: one or two alternatives, ascending.
      lr: base rate.
      schedule: how the rate decays.
    """

    models: tuple[str, ...]
    data: str
    epochs: tuple[int, ...]
    lr: float
    schedule: Literal["linear", "cosine"]
    weight_decay: float
    dropout: float


class Table4Row(NamedTuple):
    """A recipe of fine-tuning: its steps, and the base rates that the paper chooses from."""

    steps: int
    rates: tuple[float, ...]


TABLE_1 = (
    Table1Row("ViT-B/16", 12, 768, 3072, 12, 86),
    Table1Row("ViT-L/16", 24, 1024, 4096, 16, 307),
    Table1Row("ViT-H/14", 32, 1280, 5120, 16, 632),
)

# ResNets as BiT's, whose units are pre-activation; which order these had is not in the paper.
TABLE_3 = (
    Table3Row(("ViT-B/16", "ViT-B/32"), "jft", (7,), 8e-4, "linear", 0.1, 0.0),
    Table3Row(("ViT-L/32",), "jft", (7,), 6e-4, "linear", 0.1, 0.0),
    Table3Row(("ViT-L/16",), "jft", (7, 14), 4e-4, "linear", 0.1, 0.0),
    Table3Row(("ViT-H/14",), "jft", (14,), 3e-4, "linear", 0.1, 0.0),
    Table3Row(("BiT-R50x1", "BiT-R50x2"), "jft", (7,), 1e-3, "linear", 0.1, 0.0),
    Table3Row(("BiT-R101x1",), "jft", (7,), 8e-4, "linear", 0.1, 0.0),
    Table3Row(("BiT-R152x1", "BiT-R152x2"), "jft", (7,), 6e-4, "linear", 0.1, 0.0),
    Table3Row(("R50+ViT-B/16", "R50+ViT-B/32"), "jft", (7,), 8e-4, "linear", 0.1, 0.0),
    Table3Row(("R50+ViT-L/32",), "jft", (7,), 2e-4, "linear", 0.1, 0.0),
    Table3Row(("R50+ViT-L/16",), "jft", (7, 14), 4e-4, "linear", 0.1, 0.0),
    Table3Row(("ViT-B/16", "ViT-B/32"), "imagenet21k", (90,), 1e-3, "linear", 0.03, 0.1),
    Table3Row(("ViT-L/16", "ViT-L/32"), "imagenet21k", (30, 90), 1e-3, "linear", 0.03, 0.1),
    Table3Row(("ViT-*",), "imagenet", (300,), 3e-3, "cosine", 0.3, 0.1),
)
# What all rows of Table 3 share, by keys of configs (its caption and section 4.1).
PRE_TRAINING = {
    "optimizer.name": "adamw",
    "optimizer.warmup_steps": 10_000,
    "data.batch_size": 4096,
    "model.image_size": 224,
}

_RATES = (0.001, 0.003, 0.01, 0.03)
# By data set; vtab is each task of VTAB-1k.
TABLE_4 = {
    "imagenet": Table4Row(20_000, (0.003, 0.01, 0.03, 0.06)),
    "cifar100": Table4Row(10_000, _RATES),
    "cifar10": Table4Row(10_000, _RATES),
    "pets": Table4Row(500, _RATES),
    "flowers": Table4Row(500, _RATES),
    "vtab": Table4Row(2500, (0.01,)),
}
# What all rows of Table 4 share (its caption and section B.1.1).
FINE_TUNING = {
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.schedule": "cosine",
    "optimizer.weight_decay": 0.0,
    "optimizer.clip_norm": 1.0,
    "data.batch_size": 512,
    "model.image_size": 384,
}
# Percent of train, at its end, on which the rate is chosen before the runs on all of it (appendix
# B.1.1). Table 2 states mean and deviation over three runs.
HELD_OUT = {"imagenet": 1, "cifar100": 2, "cifar10": 2, "pets": 10, "flowers": 10}
FINAL_RUNS = 3
# The rates of Table 4 that big_vision's configs/transfer.py reports as chosen for B/32.
CHOSEN_RATES = {
    "imagenet": 0.03,
    "cifar10": 0.003,
    "cifar100": 0.01,
    "pets": 0.003,
    "flowers": 0.003,
}
