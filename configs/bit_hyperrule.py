"""Fine-tuning by the BiT-HyperRule ("Big Transfer", arXiv 1912.11370, section 3.3).

    python -m vit_jax train --config=configs/bit_hyperrule.py:BiT-R50x1,cifar10,weights=WEIGHTS \\
        --workdir=runs/R50x1-cifar10
    python -m vit_jax train --workdir=runs/R50x1-photos \\
        --config=configs/bit_hyperrule.py:BiT-R50x1,./photos,examples=3000,side=500,weights=WEIGHTS

WEIGHTS is a weight file, a finished run's directory, or the name of a released file, such as
bit/BiT-M-R50x1. The data is imagenet, cifar10, cifar100, pets, flowers or resisc45; or a TFDS name
or folder with examples=, the number of training examples, and side=, the side of its images in
pixels, if they are small. lr= replaces the rate of 0.003.

The rule chooses steps and Mixup by the number of examples, and resolution by the size of images.

Hardware: BiT's README has eight V100 GPUs (--config.optimizer.micro_batches=4). Times are not known
here.

Expected top-1 in percent, pre-trained on ImageNet-21k (README of big_transfer): on ImageNet
BiT-M-R50x1 80.68 and R152x2 85.15; on CIFAR-10 and CIFAR-100 R50x1 97.3 and 86.4. docs/recipes.md
has the rule, more results, and where BiT's code differs from its paper.
"""

from ml_collections import ConfigDict, config_dict

from vit_jax.analysis.published.augreg import WARMUP_STEPS
from vit_jax.config import parse_argument
from vit_jax.data.sources.published import Dataset, named
from vit_jax.errors import UserError
from vit_jax.models.sizes import parse_name


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(
        argument, "model", "data", weights=None, lr="0.003", examples=None, side=None
    )
    dataset = named(chosen.data)
    examples = _examples(dataset, chosen.examples)
    steps = 500 if examples < 20_000 else 10_000 if examples < 500_000 else 20_000
    crop_side, image_size = _resolution(chosen.model, int(chosen.side or dataset.side or 224))
    config = ConfigDict(
        {
            "init_from": config_dict.required_placeholder(str),
            "model": {"name": chosen.model, "image_size": image_size, "dtype": "bfloat16"},
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.train,
                "batch_size": 512,
                "workers": 8,
                "crop": "resize",
                "crop_side": crop_side,
                "mixup": 0.1 if steps > 500 else 0.0,
            },
            "optimizer": {
                "name": "sgd",
                "lr": float(chosen.lr),
                "schedule": "step",
                "warmup_steps": WARMUP_STEPS[steps],
                "momentum": 0.9,
            },
            "total_steps": steps,
            "evals": {"test": {"split": dataset.test, "every_steps": max(100, steps // 20)}},
            "checkpoint": {"every_steps": 500},
        }
    )
    if chosen.weights is not None:
        config.init_from = chosen.weights
    return config


def _examples(dataset: Dataset, given: str | None) -> int:
    """Training examples, which the rule goes by."""
    if given is not None:
        if int(given) < 1:
            raise UserError(f"examples={given}: the number of training examples must be at least 1")
        return int(given)
    if not dataset.sizes:
        raise UserError(
            f"the rule goes by the number of training examples; say that of {dataset.tfds} with "
            "examples=NUMBER in the argument"
        )
    split, _, _ = dataset.train.partition("[")
    return dataset.sizes[split]


def _resolution(model: str, side: int) -> tuple[int, int]:
    """Sides in pixels to which images are resized, and then cropped."""
    if side < 96:
        return 160, 128
    name = parse_name(model)
    is_r152x4 = name == parse_name("R152x4") or name == parse_name("BiT-R152x4")
    return (512, 480) if is_r152x4 else (448, 384)
