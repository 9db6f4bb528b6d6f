"""The kinds of evaluation that come with the package; importing this module registers them."""

from vit_jax.evaluation import classification, linear_probe, per_class

__all__ = ["classification", "linear_probe", "per_class"]
