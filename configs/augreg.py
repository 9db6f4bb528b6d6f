"""AugReg: pre-training and fine-tuning of "How to train your ViT?" (arXiv 2106.10270).

    python -m vit_jax train --config=configs/augreg.py:B_16,imagenet,aug=medium2 --workdir=runs/B_16
    python -m vit_jax train --config=configs/augreg.py:B_16,pets --workdir=runs/B_16-pets
    python -m vit_jax train --config=configs/augreg.py:S_16,./photos,size=224,lr=0.01 \\
        --workdir=runs/S_16-photos

aug= asks for pre-training: none, light1, light2, medium1, medium2, strong1 or strong2, which set
RandAugment and Mixup. The model is Ti_16, S_16, S_32, B_16, B_32, L_16, R_Ti_16, R26_S_32 or
R50_L_32. weight_decay= and dropout= are the other two values of the paper's sweep.

Without aug= it is fine-tuning, at 384 pixels or size=224. The first value is then a model (its best
file pre-trained on ImageNet-21k), a released file by its full name, or a path, with model=B_16 if
its name does not begin with one.

Hardware: pre-training has batch 4096; --config.optimizer.micro_batches=16 computes it in parts.
Times are not known here.

Expected top-1 in percent on ImageNet (Table 3), from scratch at 224 pixels, and fine-tuned from
ImageNet-21k at 384:

                  Ti/16   S/32    S/16    B/32    B/16    L/16    R+Ti/16  R26+S/32  R50+L/32
    from scratch  72.59   72.07   79.00   74.42   79.84   75.72   70.13    79.61     76.84
    fine-tuned    78.22   79.58   83.73   83.59   85.49   85.59   75.40    83.85     85.99

docs/recipes.md has the values of both recipes, their sources, and what the papers leave open.
"""

import re
from pathlib import Path
from types import SimpleNamespace

from ml_collections import ConfigDict

from vit_jax.analysis.published.augreg import AUGREG, WARMUP_STEPS, AugRegLevel
from vit_jax.analysis.published.recipes import CHOSEN_RATES, TABLE_4
from vit_jax.config import parse_argument
from vit_jax.data.sources.published import named
from vit_jax.errors import UserError
from vit_jax.spelling import nearest
from vit_jax.weights.catalogue.augreg import MODELS, rate_on_imagenet


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(
        argument,
        "weights",
        **dict.fromkeys(("data", "size", "lr", "model", "aug", "weight_decay", "dropout")),
    )
    if chosen.aug is None:
        _refuse(
            chosen,
            *("weight_decay", "dropout"),
            because="it is of pre-training, which aug=LEVEL asks for; add that, or leave it out",
        )
        return _fine_tuning(chosen)
    _refuse(
        chosen,
        *("size", "lr", "model"),
        because="it is of fine-tuning, and aug= asks for pre-training; leave it out",
    )
    return _pretraining(chosen)


def _refuse(chosen: SimpleNamespace, *names: str, because: str) -> None:
    for name in names:
        if getattr(chosen, name) is not None:
            raise UserError(f"{name}= would be ignored: {because}")


def _pretraining(chosen: SimpleNamespace) -> ConfigDict:
    level = _level(chosen.aug)
    if chosen.weights not in MODELS:
        raise UserError(
            f"{chosen.weights!r} is no model of AugReg's{nearest(chosen.weights, MODELS)}"
        )
    if chosen.data is None:
        raise UserError(
            "aug= asks for pre-training, which needs data after the model, such as "
            f"{chosen.weights},imagenet,aug={chosen.aug}; without aug= it is fine-tuning"
        )
    dataset = named(chosen.data)
    dropout = float(chosen.dropout or 0)
    config = ConfigDict(
        {
            "model": {
                "name": _model_of(chosen.weights),
                "image_size": 224,
                "head_bias": -10.0 if chosen.data == "imagenet21k" else -6.9,
                "dropout": dropout,
                "stochastic_depth": dropout,
                "dtype": "bfloat16",
                "preprocessing": {"resize": "short_side", "short_side": 256},
            },
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.pretrain,
                "batch_size": 4096,
                "workers": 8,
                "mixup": level.mixup,
            },
            "optimizer": {
                "name": "adamw",
                "lr": 1e-3,
                "schedule": "cosine",
                "warmup_steps": 10_000,
                "weight_decay": float(chosen.weight_decay or 0.1),
                "clip_norm": 1.0,
                "momentum_dtype": "bfloat16",
            },
            "loss": "sigmoid",
            "epochs": 300,
            "evals": {
                name: {"split": split, "every_steps": 5000}
                for name, split in dataset.held_out.items()
            },
            "checkpoint": {"every_steps": 1000},
        }
    )
    if config.optimizer.weight_decay:
        config.optimizer.decay_mask = "kernels"
    if level.layers:
        config.data.randaugment = {
            "layers": level.layers,
            "magnitude": level.magnitude,
            "original_faults": True,
        }
    return config


def _level(name: str) -> AugRegLevel:
    if name == "light0":
        raise UserError(
            "aug=light0 is a name of AugReg's files, which count the light levels from 0; write "
            "aug=light1, as the paper names it"
        )
    if name not in AUGREG:
        raise UserError(f"aug={name} is no level of AugReg's{nearest(name, AUGREG)}")
    return AUGREG[name]


def _fine_tuning(chosen: SimpleNamespace) -> ConfigDict:
    data, model = chosen.data or "pets", chosen.model or _model_of(chosen.weights)
    dataset = named(data)
    steps = TABLE_4.get(data, TABLE_4["vtab"]).steps
    is_path = "/" in chosen.weights or Path(chosen.weights).exists()
    return ConfigDict(
        {
            "init_from": chosen.weights if is_path else f"augreg/{chosen.weights}",
            "model": {
                "name": model,
                "image_size": int(chosen.size or 384),
                "dtype": "bfloat16",
            },
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.train,
                "batch_size": 512,
                "workers": 8,
            },
            "optimizer": {
                "name": "sgd",
                "lr": float(chosen.lr or _rate(data, model)),
                "schedule": "cosine",
                "warmup_steps": WARMUP_STEPS[steps],
                "momentum": 0.9,
                "momentum_dtype": "bfloat16",
                "clip_norm": 1.0,
            },
            "total_steps": steps,
            "evals": {"test": {"split": dataset.test, "every_steps": max(100, steps // 20)}},
            "checkpoint": {"every_steps": 500},
        }
    )


def _rate(data: str, model: str) -> float:
    rate = rate_on_imagenet(model) if data == "imagenet" else None
    return rate or CHOSEN_RATES.get(data, 0.003)


def _model_of(weights: str) -> str:
    """`R50+ViT-L/32` of R50_L_32-i21k-…, as AugReg's files are named."""
    match = re.match(r"(?:(R\d*)_)?(Ti|S|B|L)_(\d+)\b", Path(weights).name)
    if match is None:
        raise UserError(
            f"{weights!r} does not begin with a model, such as B_16; add model=B_16 to the argument"
        )
    stem, size, patch = match.groups()
    return f"{stem}+ViT-{size}/{patch}" if stem else f"ViT-{size}/{patch}"
