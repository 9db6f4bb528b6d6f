"""A config file with a source of its own: grey squares on black, whose label is their place."""

import io

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from vit_jax.data.sources.open import register_source
from vit_jax.data.sources.records import Record
from vit_jax.errors import UserError

CLASSES = ("left", "right")
SIZES = {"train": 24, "test": 8}


def draw(index: int) -> bytes:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:6, 4 * (index % 2) : 4 * (index % 2) + 4] = 100 + index
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@register_source("squares")
class Squares:
    class_names, max_labels = CLASSES, None

    def __init__(self, rest: str, split: str, data_dir: str | None) -> None:
        if split not in SIZES:
            raise UserError(f"squares have no split {split!r}, only {', '.join(SIZES)}")
        self.name, self.count = f"squares:{rest}/{split}", int(rest) * SIZES[split]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        return Record(draw(index), index % 2, f"{self.name}[{index}]")

    def fingerprint(self) -> str:
        return self.name


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "model": {
                "name": "ViT-Ti/4",
                "image_size": 8,
                "depth": 1,
                "width": 16,
                "mlp_dim": 32,
                "num_heads": 2,
            },
            "data": {
                "dataset": "squares:1",
                "train": "train[:75%]",
                "batch_size": 4,
                "workers": 2,
                "crop": "none",
                "flip": False,
            },
            "optimizer": {"lr": 0.01, "warmup_steps": 1},
            "total_steps": 4,
            "log_every": 1,
            "checkpoint": {"every_steps": 2},
        }
    )
