"""ViT-S/16 from scratch on ImageNet: "Better plain ViT baselines" (arXiv 2205.01580).

    python -m vit_jax train --config=configs/plain_vit_s16.py --workdir=runs/s16
    python -m vit_jax train --config=configs/plain_vit_s16.py:300 --workdir=runs/s16-300

The argument is the number of epochs: 90 (the default), 150 or 300.

Hardware: 90 epochs take about 6.5 hours on a TPUv3-8 with the authors' code (the paper).
--config.optimizer.micro_batches=4 computes the batch of 1024 in parts.

Expected top-1 on ImageNet's validation split in percent (the paper's table): 76.5 after 90 epochs,
78.5 after 150, 80.0 after 300. docs/recipes.md has the table with one part changed at a time, and
the sources of the values.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument
from vit_jax.data.sources.published import named


def get_config(argument: str | None = None) -> ConfigDict:
    epochs = parse_argument(argument, epochs="90").epochs
    dataset = named("imagenet")
    return ConfigDict(
        {
            "model": {
                "name": "ViT-S/16",
                "image_size": 224,
                "positions": "sincos2d",
                "pooling": "gap",
                "representation_size": 384,
                "dtype": "bfloat16",
                "preprocessing": {"resize": "short_side", "short_side": 256},
            },
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.pretrain,
                "batch_size": 1024,
                "workers": 8,
                "randaugment": {"layers": 2, "magnitude": 10, "original_faults": True},
                "mixup": 0.2,
            },
            "optimizer": {
                "name": "adamw",
                "lr": 1e-3,
                "schedule": "cosine",
                "warmup_steps": 10_000,
                "weight_decay": 0.1,
                "decay_mask": "kernels",
                "clip_norm": 1.0,
                "momentum_dtype": "bfloat16",
            },
            "epochs": int(epochs),
            "evals": {
                name: {"split": split, "every_steps": 2500}
                for name, split in dataset.held_out.items()
            },
            "checkpoint": {"every_steps": 1000},
        }
    )
