"""The leaderboards' rows, each with the command that would score it."""

import dataclasses
from collections.abc import Iterable

from vit_jax.analysis.published.leaderboards import LEADERBOARDS, VIZWIZ_ALL, VIZWIZ_CLEAN
from vit_jax.experiments.paper import places
from vit_jax.experiments.paper.comparison import Comparison, compare
from vit_jax.experiments.paper.page import Page
from vit_jax.experiments.paper.scored import Result

_VIZWIZ = (
    "--dataset=./vizwiz/images --evaluator=vizwiz "
    "--evaluator.annotations=vizwiz/annotations.json --evaluator.submission=predictions.json"
)
# By row; a training scores the test split itself when it has ended.
COMMANDS: dict[tuple[str, ...], str] = {
    ("imagenet", "top-1", "ViT-H/14"): "python -m vit_jax train --config=configs/finetune.py:"
    "h14,imagenet,size=518,average=0.9999,weights=WEIGHTS --workdir=runs/h14-imagenet",
    ("imagenet", "top-1", "ViT-L/16"): "python -m vit_jax train --config=configs/finetune.py:"
    "l16,imagenet,size=512,average=0.9999,weights=WEIGHTS --workdir=runs/l16-imagenet",
    ("cifar10", "top-1", "ViT-H/14"): "python -m vit_jax train --config=configs/finetune.py:"
    "h14,cifar10,weights=WEIGHTS --workdir=runs/h14-cifar10",
    ("cifar10", "top-1", "ViT-L/16"): "python -m vit_jax train --config=configs/finetune.py:"
    "l16,cifar10,weights=WEIGHTS --workdir=runs/l16-cifar10",
    ("flowers", "top-1", "ViT-H/14"): "python -m vit_jax train --config=configs/finetune.py:"
    "h14,flowers,weights=WEIGHTS --workdir=runs/h14-flowers",
    ("objectnet", "top-5", "ViT-H/14"): "python -m vit_jax evaluate --weights=runs/h14-imagenet "
    "--dataset=./objectnet/images --evaluator=objectnet",
    VIZWIZ_ALL: "python -m vit_jax evaluate --weights=imagenet21k+imagenet2012/ViT-L_16-224 "
    f"{_VIZWIZ}",
    VIZWIZ_CLEAN: "python -m vit_jax evaluate --weights=imagenet21k+imagenet2012/ViT-B_8 "
    "--image_size=224 "
    f"{_VIZWIZ}",
}


def leaderboard(results: Iterable[Result]) -> Page:
    """The rows, ours beside them, and below them the commands."""
    page = compare(Comparison(LEADERBOARDS, places.leaderboard), results)
    commands = (f"{', '.join(row)}: {command}" for row, command in COMMANDS.items())
    records = [
        {**record, "command": COMMANDS[row]}
        for record, row in zip(page.records or (), LEADERBOARDS.rows, strict=True)
    ]
    return dataclasses.replace(page, notes=(*commands, *page.notes), records=tuple(records))
