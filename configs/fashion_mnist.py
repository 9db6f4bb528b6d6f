"""A small ViT from scratch on Fashion-MNIST, kept as a folder of images.

    python -m benchmarks.unpack fashion_mnist.npz data/fashion_mnist
    python -m vit_jax train --config=configs/fashion_mnist.py:./data/fashion_mnist \\
        --workdir=runs/fashion_mnist

Expected: 88.9 % test top-1 after 8 minutes on 2 CPU cores (benchmarks/results/fashion_mnist.md).
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument


def get_config(argument: str | None = None) -> ConfigDict:
    folder = parse_argument(argument, "folder").folder
    return ConfigDict(
        {
            "model": {
                "name": "ViT-Ti/7",
                "image_size": 28,
                "depth": 4,
                "width": 96,
                "mlp_dim": 192,
                "num_heads": 3,
                "pooling": "gap",
                "scan": False,
            },
            "data": {
                "dataset": folder,
                "batch_size": 128,
                "workers": 0,
                "crop": "none",
            },
            "optimizer": {
                "name": "adamw",
                "lr": 2e-3,
                "schedule": "cosine",
                "warmup_steps": 200,
                "weight_decay": 0.05,
                "clip_norm": 1.0,
            },
            "epochs": 12,
            "evals": {"test": {"split": "test", "every_steps": 1000}},
            "checkpoint": {"every_steps": 1000},
            "log_every": 100,
        }
    )
