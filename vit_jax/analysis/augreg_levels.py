"""The augmentation levels of "How to train your ViT?" (AugReg, arXiv 2106.10270).

Names are the paper's. Those of its released files count the light levels from 0: by the order of
the two lists, light0 and light1 there are light1 and light2 here.
"""

from typing import NamedTuple


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
