"""Fine-tuning of pre-trained weights, by model and data set, as in Table 4 of the paper.

    python -m vit_jax train --config=configs/finetune.py:b16,cifar10,weights=WEIGHTS \\
        --workdir=runs/b16-cifar10
    python -m vit_jax train --config=configs/finetune.py:b16,./photos,weights=WEIGHTS,lr=0.003 \\
        --workdir=runs/b16-photos

WEIGHTS is a weight file, the directory of a run that has ended, or the name of a released file; the
data is one of imagenet, cifar10, cifar100, pets and flowers, any other TFDS name, or a folder of
images as in configs/pretrain.py.

Table 4 (arXiv 2010.11929): SGD with momentum 0.9, batch 512, cosine decay, no weight decay,
gradients clipped at norm 1, 384 pixels, and

    imagenet             20,000 steps   rate of 0.003, 0.01, 0.03, 0.06
    cifar10, cifar100    10,000 steps   rate of 0.001, 0.003, 0.01, 0.03
    pets, flowers           500 steps   rate of 0.001, 0.003, 0.01, 0.03
    tasks of VTAB-1k      2,500 steps   rate of 0.01

The paper chooses the rate on a held-out part of the training set (1 % of ImageNet, 2 % of CIFAR,
10 % of Pets and Flowers), then trains on all of it. The default is the rate that big_vision's
configs/transfer.py reports as chosen so for B/32; lr= sets another. All other data gets the steps
and the rate of VTAB's tasks. Not in the paper, but in its code: 500 steps of warm-up, momentum in
bfloat16. 500 steps leave room for 100 of warm-up, and 2,500 for 200, as in "How to train your ViT?"
(arXiv 2106.10270).

The paper's ResNets are fine-tuned so and as BiT's (configs/bit_hyperrule.py), and the better of the
two counts. big_vision's crops: --config.data.crop=short_side --config.data.crop_side=448.

Table 2 fine-tunes on ImageNet at a higher resolution and averages the weights:

    configs/finetune.py:l16,imagenet,size=512,average=0.9999,weights=WEIGHTS
    configs/finetune.py:h14,imagenet,size=518,average=0.9999,weights=WEIGHTS

Expected test top-1 in percent, pre-trained on ImageNet-21k, from Table 5 (384 pixels) and Table 2:

                     B/16    B/32    L/16    L/32    H/14    L/16, Table 2
    ImageNet         83.97   81.28   85.15   80.99   85.13   85.30
    CIFAR-10         98.95   98.79   99.16   99.13   99.27   99.15
    CIFAR-100        91.67   91.97   93.44   93.04   93.82   93.25
    Pets             94.43   93.02   94.73   93.09   94.82   94.67
    Flowers          99.38   99.11   99.61   99.19   99.51   99.61

Time with the paper's code on eight V100 GPUs, from the table of expected results in its README of
November 2020 (github.com/google-research/vision_transformer): B/16 7.2 h on CIFAR-10 and 17.9 h on
ImageNet, B/32 1.6 h and 4.2 h, L/16 24.7 h and 59.2 h. To fit into 16 GB each, the batch was split,
of B/16 and L/16 as with --config.optimizer.micro_batches=16 and 32.
"""

from ml_collections import ConfigDict, config_dict

from vit_jax.analysis.published import CHOSEN_RATES, TABLE_4, WARMUP_STEPS
from vit_jax.config import parse_argument
from vit_jax.data.sources.published import named


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(
        argument, "model", "data", size="384", lr=None, weights=None, average=None
    )
    dataset = named(chosen.data)
    steps, rates = TABLE_4.get(chosen.data, TABLE_4["vtab"])
    config = ConfigDict(
        {
            "init_from": config_dict.required_placeholder(str),
            "model": {"name": chosen.model, "image_size": int(chosen.size), "dtype": "bfloat16"},
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.train,
                "batch_size": 512,
                "workers": 8,
            },
            "optimizer": {
                "name": "sgd",
                "lr": float(chosen.lr or CHOSEN_RATES.get(chosen.data, rates[0])),
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
    if chosen.weights is not None:
        config.init_from = chosen.weights
    if chosen.average is not None:
        config.optimizer.average = float(chosen.average)
    return config
