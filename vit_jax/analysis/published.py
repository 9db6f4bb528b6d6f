"""Tables of the paper (arXiv 2010.11929v2) as data; each figure stands here alone."""

from typing import NamedTuple

# Images of JFT-300M (section 4.1), by which Table 6 counts.
JFT_IMAGES = 303e6


class Table1Row(NamedTuple):
    """A model of Table 1; `params` in millions, at patch side `patch` with 1,000 classes."""

    model: str
    layers: int
    width: int
    mlp_dim: int
    heads: int
    params: float


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
