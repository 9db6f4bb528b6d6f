"""Pre-training of the largest sizes as in "Scaling Vision Transformers" (arXiv 2106.04560).

    python -m vit_jax train --config=configs/scaling_vit.py:G14,imagenet21k --workdir=runs/G14 \\
        --config.mesh.fsdp=64
    python -m vit_jax train --config=configs/scaling_vit.py:g14,./images --workdir=runs/g14
    python -m vit_jax describe --config=configs/scaling_vit.py:g14,jft

The argument is MODEL,DATA: a model such as g14 (1.0 billion parameters) or G14 (1.8 billion), and
imagenet, imagenet21k, jft, a TFDS name or a folder. Adafactor with its first moment in bfloat16,
the inverse square root of the step with a cool-down, attention pooling, and a hundred times as much
weight decay for the head as for the body.

Hardware: batch 16384 at 224 pixels; docs/distributed.md has the bytes of a device on TPU v5p, and
--config.optimizer.micro_batches= computes the batch in parts. Expected: the paper's G/14, trained
on the private JFT-3B, has 90.45 % top-1 on ImageNet after fine-tuning. Not run here.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument
from vit_jax.data.sources.published import named


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, "model", "data")
    dataset = named(chosen.data)
    return ConfigDict(
        {
            "model": {
                "name": chosen.model,
                "image_size": 224,
                "pooling": "attention",
                "head_bias": -10.0,
                "dtype": "bfloat16",
                "remat": "block",
                "preprocessing": {"resize": "short_side", "short_side": 256},
            },
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.pretrain,
                "batch_size": 4 * 4096,
                "workers": 8,
            },
            "optimizer": {
                "name": "adafactor",
                "momentum_dtype": "bfloat16",
                "lr": 8e-4,
                "schedule": "rsqrt",
                "timescale": 10_000,
                "warmup_steps": 10_000,
                "cooldown_steps": 50_000,
                "weight_decay": 0.03,
                "decay_mask": "kernels",
                "decays": (("head/kernel", 100.0),),
                "clip_norm": 1.0,
            },
            "loss": "sigmoid",
            "total_steps": 1_000_000,
            "evals": {
                name: {"split": split, "every_steps": 10_000}
                for name, split in dataset.held_out.items()
            },
            "checkpoint": {"every_steps": 1000},
        }
    )
