"""A config that trains on a data source of your own: images in a NumPy file.

python -m vit_jax train --config=examples/own_source.py:images.npz --workdir=runs/own_source

The file has `SPLIT_images`, uint8 [n, height, width, 3], and `SPLIT_labels`, int [n], for each
split, such as `train_images`.
"""

import hashlib
import io

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from vit_jax.data.sources.open import register_source
from vit_jax.data.sources.records import Record


@register_source("arrays")
class ArraySource:
    """The images of one split; `--config.data.dataset=arrays:FILE` opens it."""

    max_labels = None  # each image has one label

    def __init__(self, file: str, split: str, data_dir: str | None) -> None:
        arrays = np.load(file)
        self.images, self.labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        self.name = f"arrays:{file}/{split}"
        self.class_names = tuple(str(label) for label in range(self.labels.max() + 1))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        png = io.BytesIO()
        Image.fromarray(self.images[index]).save(png, "PNG")
        return Record(png.getvalue(), int(self.labels[index]), f"{self.name}[{index}]")

    def fingerprint(self) -> str:
        """Equal for equal data: a run resumes with the same images only."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()


def get_config(argument: str = "images.npz") -> ConfigDict:
    return ConfigDict(
        {
            "model": {"name": "ViT-Ti/4", "image_size": 32},
            "data": {"dataset": f"arrays:{argument}", "batch_size": 64},
            "optimizer": {"lr": 1e-3, "warmup_steps": 100},
            "epochs": 20,
            "evals": {"test": {"split": "test"}},
        }
    )
