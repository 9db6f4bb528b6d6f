"""One task of VTAB-1k: fine-tuning on 1,000 examples (arXiv 2010.11929, Table 4 and B.1.1).

    python -m vit_jax train --config=configs/vtab.py:b16,clevr_count,weights=WEIGHTS \\
        --workdir=runs/clevr_count
    python -m vit_jax train --workdir=runs/pets-hyperrule \\
        --config=configs/vtab.py:b16,pets,recipe=hyperrule,weights=WEIGHTS
    python -m vit_jax train --workdir=runs/pets-val \\
        --config=configs/vtab.py:b16,pets,split=val,weights=WEIGHTS

WEIGHTS is a weight file, a finished run's directory, or the name of a released file. docs/vtab.md
lists the tasks; `python -m vit_jax vtab` runs all 19 with this config.

recipe=paper is the paper's one setting: SGD with momentum 0.9, batch 512, rate 0.01, 2,500 steps,
cosine decay, 384 pixels. recipe=hyperrule is the BiT-HyperRule for 1,000 examples: rate 0.003, 500
steps, a tenth of it from 30, 60 and 90 % on. Images are resized to 448 pixels, cropped to 384 and
mirrored at random, except where that changes the label (BiT, arXiv 1912.11370, appendix F).

A model learns from 800 examples of train and 200 held out, and is scored on the task's test split.
split=val learns from the 800 and scores on the 200, to choose a recipe by.

Hardware and times are not known here. Expected: Table 9 of the paper, in docs/vtab.md.
"""

from typing import Any

from ml_collections import ConfigDict, config_dict

from vit_jax.analysis.published.augreg import WARMUP_STEPS
from vit_jax.analysis.published.recipes import TABLE_4
from vit_jax.config import parse_argument
from vit_jax.data.sources.vtab import task_named
from vit_jax.errors import UserError

_PAPER_STEPS, (_PAPER_RATE,) = TABLE_4["vtab"]
_PAPER = {
    "total_steps": _PAPER_STEPS,
    "optimizer": {
        "name": "sgd",
        "lr": _PAPER_RATE,
        "schedule": "cosine",
        "warmup_steps": WARMUP_STEPS[_PAPER_STEPS],
        "momentum": 0.9,
        "momentum_dtype": "bfloat16",
        "clip_norm": 1.0,
    },
}
_HYPERRULE = {
    "total_steps": 500,
    "optimizer": {
        "name": "sgd",
        "lr": 0.003,
        "schedule": "step",
        "warmup_steps": WARMUP_STEPS[500],
        "momentum": 0.9,
    },
}
_RECIPES: dict[str, dict[str, Any]] = {"paper": _PAPER, "hyperrule": _HYPERRULE}
# The splits to train and to score on, by the name of the evaluation.
_SPLITS = {"test": ("train800val200", "test"), "val": ("train800", "val200")}


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(argument, "model", "task", weights=None, recipe="paper", split="test")
    task = task_named(chosen.task)
    for key, known in (("recipe", _RECIPES), ("split", _SPLITS)):
        if getattr(chosen, key) not in known:
            raise UserError(f"{key}={getattr(chosen, key)}: write one of {', '.join(known)}")
    train, scored = _SPLITS[chosen.split]
    crop = {"crop": "resize", "crop_side": 448} if task.crops else {"crop": "none"}
    config = ConfigDict(
        {
            "init_from": config_dict.required_placeholder(str),
            "model": {"name": chosen.model, "image_size": 384, "dtype": "bfloat16"},
            "data": {
                "dataset": f"vtab:{chosen.task}",
                "train": train,
                "batch_size": 512,
                "workers": 8,
                "flip": task.flips,
                **crop,
            },
            **_RECIPES[chosen.recipe],
            "evals": {chosen.split: {"split": scored}},
            "checkpoint": {"every_steps": 500},
        }
    )
    if chosen.weights is not None:
        config.init_from = chosen.weights
    return config
