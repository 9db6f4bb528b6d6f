"""Ours beside plain Flax and timm: inference and training, interleaved in one run."""
