"""Masked patch prediction: pre-training without labels (arXiv 2010.11929, sections 4.6 and B.1.2).

    python -m vit_jax train --config=configs/masked_patches.py:ti16,images:./photos --workdir=runs/m
    python -m vit_jax train --config=configs/masked_patches.py:b16,jft --workdir=runs/masked_b16
    python -m vit_jax train --config=configs/finetune.py:b16,imagenet,weights=runs/masked_b16 \\
        --workdir=runs/masked_b16_imagenet

The argument is MODEL,DATA. images:FOLDER takes all images of a folder and reads no labels. Data
with labels is scored during training by few-shot accuracy on frozen features; --config.evals=none
turns that off. imagenet, imagenet21k and jft take the paper's setting, other data a modest one for
a single machine. target=downsized and target=pixels are the paper's other two targets.

Hardware of the paper's run: B/16 on JFT-300M, 1M steps of batch 4096, on TPUv3.
Expected: 79.9 % on ImageNet after fine-tuning, 77.9 % from scratch (section 4.6, Table 5).

The paper states batch, steps, Adam's base rate of 2e-4, warm-up of 10,000 steps and the cosine
decay. The rest is ours: weight decay 0.1 and no dropout, as its rows for JFT-300M have (Table 3).
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_argument
from vit_jax.data.sources.published import DATASETS, named

_AS_IN_PAPER = ("imagenet", "imagenet21k", "jft")


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, *("model", "data"), target="mean_colour")
    dataset = named(chosen.data)
    as_in_paper = chosen.data in _AS_IN_PAPER
    config = ConfigDict(
        {
            # No head: nothing would train it.
            "model": {
                "name": chosen.model,
                "image_size": 224,
                "num_classes": 0,
                "dtype": "bfloat16",
            },
            "objective": {"kind": "masked_patches", "target": chosen.target},
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.pretrain if as_in_paper else dataset.train,
                "batch_size": 4096 if as_in_paper else 128,
                "workers": 8 if as_in_paper else 2,
            },
            "optimizer": {
                "name": "adamw",
                "lr": 2e-4 if as_in_paper else 1e-3,
                "schedule": "cosine",
                "warmup_steps": 10_000 if as_in_paper else 500,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "total_steps": 1_000_000 if as_in_paper else 10_000,
            "checkpoint": {"every_steps": 1000},
        }
    )
    if not chosen.data.startswith("images:"):
        config.evals = {
            "few_shot": {
                "kind": "few_shot",
                **_scored_on(chosen.data),
                "every_steps": 50_000 if as_in_paper else 1000,
            }
        }
    return config


def _scored_on(data: str) -> dict[str, object]:
    """Where few-shot accuracy comes from: ImageNet for data of the paper, otherwise the data."""
    if data in _AS_IN_PAPER:
        imagenet = DATASETS["imagenet"]
        return {
            "dataset": imagenet.tfds,
            # What public code takes of it.
            "train_split": "train[:65000]",
            "split": imagenet.test,
        }
    return {"split": named(data).test}
