"""The kinds of evaluation that come with the package; importing this module registers them."""

from vit_jax.evaluation import classification, few_shot, k_nearest, linear_probe, per_class

__all__ = ["classification", "few_shot", "k_nearest", "linear_probe", "per_class"]
