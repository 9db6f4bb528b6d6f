"""AugReg, "How to train your ViT?" (arXiv 2106.10270): augmentation levels, Tables 3 and 4.

Names of levels are the paper's. Those of its released files count the light levels from 0: by the
order of the two lists, light0 and light1 there are light1 and light2 here.
"""

from typing import NamedTuple

from vit_jax.analysis.published.grid import Grid, figures


class AugRegLevel(NamedTuple):
    """`layers` and `magnitude` of `data.randaugment` (0 layers: none at all), and `data.mixup`."""

    layers: int
    magnitude: int
    mixup: float


# From the weakest to the strongest. light1 is no void: see `randaugment` on magnitude 0.
AUGREG = {
    "none": AugRegLevel(0, 0, 0.0),
    "light1": AugRegLevel(2, 0, 0.0),
    "light2": AugRegLevel(2, 10, 0.2),
    "medium1": AugRegLevel(2, 15, 0.2),
    "medium2": AugRegLevel(2, 15, 0.5),
    "strong1": AugRegLevel(2, 20, 0.5),
    "strong2": AugRegLevel(2, 20, 0.8),
}

# Table 4: warm-up of fine-tuning by its steps.
WARMUP_STEPS = {500: 100, 2500: 200, 10_000: 500, 20_000: 500}


class AugRegColumn(NamedTuple):
    """A column of Table 3.

    Attributes:
      data: what was pre-trained on.
      epochs: of pre-training.
      size: pixels a side of the images that are scored.
      fine_tuned: whether the model was fine-tuned on ImageNet in between.
    """

    data: str
    epochs: int
    size: int
    fine_tuned: bool = True


FROM_SCRATCH, BEST_ON_V2 = "1k as is, 224", "21k by v2, 384"
FINE_TUNED_384 = "21k 300, 384"
# The column BEST_ON_V2 is no run of one setting, so it is not listed.
TABLE_3_COLUMNS = {
    FROM_SCRATCH: AugRegColumn("imagenet", 300, 224, fine_tuned=False),
    "1k 300, 224": AugRegColumn("imagenet", 300, 224),
    "21k 30, 224": AugRegColumn("imagenet21k", 30, 224),
    "21k 300, 224": AugRegColumn("imagenet21k", 300, 224),
    "1k 300, 384": AugRegColumn("imagenet", 300, 384),
    "21k 30, 384": AugRegColumn("imagenet21k", 30, 384),
    FINE_TUNED_384: AugRegColumn("imagenet21k", 300, 384),
}
TABLE_3 = Grid(
    "top-1 in percent on ImageNet: data and epochs of pre-training, and pixels",
    "arXiv 2106.10270, Table 3",
    ("model",),
    (*TABLE_3_COLUMNS, BEST_ON_V2),
    {
        ("ViT-L/16",): figures(75.72, 74.01, 82.05, 83.98, 77.21, 84.48, 85.59, 87.08),
        ("ViT-B/16",): figures(79.84, 78.73, 80.42, 83.96, 81.63, 83.46, 85.49, 86.15),
        ("ViT-S/16",): figures(79.00, 77.51, 76.04, 80.46, 80.70, 80.22, 83.73, 83.15),
        ("R50+ViT-L/32",): figures(76.84, 74.17, 80.26, 82.74, 76.71, 83.19, 85.99, 86.21),
        ("R26+ViT-S/32",): figures(79.61, 78.20, 77.42, 80.81, 81.55, 81.11, 83.85, 83.80),
        ("ViT-Ti/16",): figures(72.59, 69.56, 68.89, 73.75, 74.64, 74.20, 78.22, 77.83),
        ("ViT-B/32",): figures(74.42, 71.38, 72.24, 79.13, 76.60, 78.65, 83.59, 83.59),
        ("ViT-S/32",): figures(72.07, 69.19, 68.49, 73.47, 75.65, 75.74, 79.58, 80.01),
        ("R+ViT-Ti/16",): figures(70.13, 67.30, 65.65, 69.69, 73.48, 71.97, 75.40, 75.33),
    },
    (
        f"{FROM_SCRATCH!r} is the best of the sweep without fine-tuning; all else is fine-tuned on "
        "ImageNet",
        f"{BEST_ON_V2!r}: the file with the best score on ImageNet-V2",
    ),
)
