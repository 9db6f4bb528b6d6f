"""Reads a whole source once, as the loader of a training run does."""

from collections import Counter
from typing import Any, Literal, cast

import numpy as np


def read_images(source: Any, data: Any, mode: str, side: int) -> Counter[bytes]:
    """How often each image occurs, by its pixels and label; unreadable ones are left out.

    Args:
      source: a `Source`.
      data: its `DataConfig`, which says how images are cropped.
      mode: what an unreadable image does, `stop` or `skip`.
      side: of the images, in pixels.
    """
    import jax

    from vit_jax.data.batches import Chunks
    from vit_jax.data.images.transforms import make_transform
    from vit_jax.data.loader import Loader
    from vit_jax.models.config import ModelConfig
    from vit_jax.parallel.mesh import MeshConfig, make_mesh
    from vit_jax.parallel.sharding import batch_sharding

    preprocessing = ModelConfig("ViT-Ti/2", image_size=side).completed().preprocessing
    assert preprocessing is not None
    chunks = Chunks(
        source,
        make_transform((side, side), preprocessing, data),
        size=(side, side),
        rows=np.arange(len(source)),
        batch_size=len(source),
        seed=0,
        shuffle=False,
    )
    sharding = batch_sharding(make_mesh(MeshConfig(), jax.devices()))
    on_error = cast(Literal["stop", "skip"], mode)
    with Loader(chunks, sharding, start=0, stop=1, workers=0, on_error=on_error) as loader:
        batch = next(loader)
    rows = zip(*(np.asarray(batch[key]) for key in ("images", "labels", "weights")), strict=True)
    return Counter(row_key(image, int(label)) for image, label, weight in rows if weight)


def row_key(image: np.ndarray, label: int) -> bytes:
    """One image, uint8 [height, width, 3], and its label."""
    return image.tobytes() + bytes([label])
