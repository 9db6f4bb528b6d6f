"""A small ViT from scratch on Fashion-MNIST, kept as a folder of images.

    python -m benchmarks.unpack fashion_mnist.npz data/fashion_mnist
    python -m vit_jax train --config=configs/fashion_mnist.py:./data/fashion_mnist \\
        --workdir=runs/fashion_mnist

Expected: at least 88 % test top-1 within 10 minutes on 2 CPU cores; the measured run is in
benchmarks/results/fashion_mnist.md.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument


def get_config(argument: str | None = None) -> ConfigDict:
    folder = parse_argument(argument, "folder").folder
    return ConfigDict(
        {
            "model": {
                "name": "ViT-Ti/4",
                "image_size": 28,
                "depth": 4,
                "width": 64,
                "mlp_dim": 128,
                "num_heads": 2,
                "pooling": "gap",
                "scan": False,
            },
            "data": {
                "dataset": folder,
                "batch_size": 128,
                "workers": 0,
                "crop_area": (0.6, 1.0),
            },
            "optimizer": {
                "name": "adamw",
                "lr": 2e-3,
                "schedule": "cosine",
                "warmup_steps": 200,
                "weight_decay": 0.05,
                "clip_norm": 1.0,
            },
            "epochs": 6,
            "evals": {"test": {"split": "test", "every_steps": 1000}},
            "checkpoint": {"every_steps": 1000},
            "log_every": 100,
        }
    )
