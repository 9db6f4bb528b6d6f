"""Where this user's downloads and indexes of data lie."""

import os
from pathlib import Path


def user_cache() -> Path:
    """`$VIT_JAX_CACHE`, by default `~/.cache/vit_jax`."""
    return Path(os.environ.get("VIT_JAX_CACHE") or "~/.cache/vit_jax").expanduser()
