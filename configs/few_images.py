"""Fine-tuning on a folder with few images a class, on a CPU.

    python -m vit_jax train --config=configs/few_images.py:ti16,./photos,WEIGHTS --workdir=runs/few

WEIGHTS is a weight file, a finished run's directory, or the name of a released file. Without it the
same recipe trains from scratch. The folder is as in configs/pretrain.py.

Expected with DeiT-Ti on ten images a class of CIFAR-10-JPEG: 70.4 % test top-1, and 24.9 % from
scratch, within ten minutes on 2 CPU cores (benchmarks/results/few_images.md).
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
