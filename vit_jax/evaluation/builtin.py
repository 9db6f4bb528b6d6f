"""The kinds of evaluation that come with the package; importing this module registers them."""

from vit_jax.evaluation import (
    classification,
    few_shot,
    k_nearest,
    linear_probe,
    mean_average_precision,
    per_class,
)
from vit_jax.evaluation.label_sets import folders, objectnet, real, vizwiz

__all__ = [
    "classification",
    "few_shot",
    "folders",
    "k_nearest",
    "linear_probe",
    "mean_average_precision",
    "objectnet",
    "per_class",
    "real",
    "vizwiz",
]
