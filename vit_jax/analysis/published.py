"""Tables of the paper (arXiv 2010.11929v2) as data; each figure stands here alone."""

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


class Table6Row(NamedTuple):
    """A pre-training run on JFT-300M: top-1 after fine-tuning in percent, and its compute."""

    model: str
    epochs: int
    imagenet: float
    imagenet_real: float
    cifar10: float
    cifar100: float
    pets: float
    flowers: float
    exaflops: float


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
# Of fine-tuning by its steps: Table 4 of "How to train your ViT?" (arXiv 2106.10270).
WARMUP_STEPS = {500: 100, 2500: 200, 10_000: 500, 20_000: 500}
# The rates of Table 4 that big_vision's configs/transfer.py reports as chosen for B/32.
CHOSEN_RATES = {
    "imagenet": 0.03,
    "cifar10": 0.003,
    "cifar100": 0.01,
    "pets": 0.003,
    "flowers": 0.003,
}

TABLE_6 = (
    Table6Row("ViT-B/32", 7, 80.73, 86.27, 98.61, 90.49, 93.40, 99.27, 55),
    Table6Row("ViT-B/16", 7, 84.15, 88.85, 99.00, 91.87, 95.80, 99.56, 224),
    Table6Row("ViT-L/32", 7, 84.37, 88.28, 99.19, 92.52, 95.83, 99.45, 196),
    Table6Row("ViT-L/16", 7, 86.30, 89.43, 99.38, 93.46, 96.81, 99.66, 783),
    Table6Row("ViT-L/16", 14, 87.12, 89.99, 99.38, 94.04, 97.11, 99.56, 1567),
    Table6Row("ViT-H/14", 14, 88.08, 90.36, 99.50, 94.71, 97.11, 99.71, 4262),
    Table6Row("BiT-R50x1", 7, 77.54, 84.56, 97.67, 86.07, 91.11, 94.26, 50),
    Table6Row("BiT-R50x2", 7, 82.12, 87.94, 98.29, 89.20, 93.43, 97.02, 199),
    Table6Row("BiT-R101x1", 7, 80.67, 87.07, 98.48, 89.17, 94.08, 95.95, 96),
    Table6Row("BiT-R152x1", 7, 81.88, 87.96, 98.82, 90.22, 94.17, 96.94, 141),
    Table6Row("BiT-R152x2", 7, 84.97, 89.69, 99.06, 92.05, 95.37, 98.62, 563),
    Table6Row("BiT-R152x2", 14, 85.56, 89.89, 99.24, 91.92, 95.75, 98.75, 1126),
    Table6Row("BiT-R200x3", 14, 87.22, 90.15, 99.34, 93.53, 96.32, 99.04, 3306),
    Table6Row("R50+ViT-B/32", 7, 84.90, 89.15, 99.01, 92.24, 95.75, 99.46, 106),
    Table6Row("R50+ViT-B/16", 7, 85.58, 89.65, 99.14, 92.63, 96.65, 99.40, 274),
    Table6Row("R50+ViT-L/32", 7, 85.68, 89.04, 99.24, 92.93, 96.97, 99.43, 246),
    Table6Row("R50+ViT-L/16", 7, 86.60, 89.72, 99.18, 93.64, 97.03, 99.40, 859),
    Table6Row("R50+ViT-L/16", 14, 87.12, 89.76, 99.31, 93.89, 97.36, 99.11, 1668),
)
