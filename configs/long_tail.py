"""The paper's pre-training on JFT-300M in small, on a stand-in with as many classes.

    python -m vit_jax train --config=configs/long_tail.py --workdir=runs/long_tail
    python -m vit_jax train --config=configs/long_tail.py:1000 --workdir=runs/long_tail_1000
    python -m vit_jax train --config=configs/long_tail.py:3000 --workdir=runs/long_tail_3000

JFT-300M is private. `long_tail` is generated on first use: 10,000 images of 18,291 classes whose
frequencies follow a power law, with 1.26 labels each on average. As on JFT, the loss is a sigmoid
for each class whose bias begins at -10, and the rate decays linearly. The argument is the size of a
random subset; smaller subsets lie within larger ones, as in Figure 4. All sizes have the same
hyper-parameters and stop early (section 4.3).

Expected validation top-1, where any of an image's labels is right: 45.3 % on 1,000 images, 55.5 %
on 3,000, 55.8 % on all, each in about two minutes on 2 CPU cores. The most common class alone has
9.6 % of all first labels.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument


def get_config(argument: str | None = None) -> ConfigDict:
    subset = parse_argument(argument, subset=None).subset
    return ConfigDict(
        {
            "model": {
                "name": "ViT-Ti/8",
                "image_size": 32,
                "depth": 2,
                "width": 128,
                "mlp_dim": 256,
                "num_heads": 4,
                "pooling": "gap",
                "head_bias": -10.0,
                "scan": False,
            },
            "data": {
                "dataset": "long_tail",
                "subset": None if subset is None else int(subset),
                "max_labels": 8,
                "batch_size": 64,
                "workers": 0,
                "crop": "none",
                "flip": False,
            },
            "loss": "sigmoid",
            "optimizer": {
                "name": "adamw",
                "lr": 2e-3,
                "schedule": "linear",
                "warmup_steps": 100,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "total_steps": 1000,
            "evals": {"val": {"split": "test", "every_steps": 100}},
            "early_stop": {"eval": "val", "patience": 3},
            "log_every": 50,
        }
    )
