"""Fine-tuning on a folder with few images a class.

    python -m benchmarks.few_images cifar10_jpeg.tar.xz data/few --train=10 --test=100
    python -m vit_jax train --config=configs/few_images.py:ti16,./data/few,WEIGHTS \\
        --workdir=runs/few
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, "model", "folder", weights=None)
    config = ConfigDict(
        {
            "model": {"name": chosen.model, "image_size": 224},
            "data": {
                "dataset": chosen.folder,
                "batch_size": 20,
                "workers": 0,
                "crop_area": (0.5, 1.0),
            },
            "optimizer": {
                "name": "adamw",
                "lr": 5e-5,
                "schedule": "cosine",
                "warmup_steps": 5,
                "clip_norm": 1.0,
                # A head of zeros has further to go than a trained encoder.
                "rates": (("head/.*", 100.0),),
            },
            "epochs": 14,
            "evals": {"test": {"split": "test"}},
            "log_every": 10,
        }
    )
    if chosen.weights is not None:
        config.init_from = chosen.weights
    return config
