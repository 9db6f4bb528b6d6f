"""Pre-training from scratch, by model and data set, as in Table 3 of the paper (arXiv 2010.11929).

    python -m vit_jax train --config=configs/pretrain.py:b16,imagenet --workdir=runs/b16
    python -m vit_jax train --config=configs/pretrain.py:l16,./images,recipe=imagenet21k \\
        --workdir=runs/l16
    python -m vit_jax train --config=configs/pretrain.py:ti16,./photos --workdir=runs/photos
    python -m vit_jax describe --config=configs/pretrain.py:h14,jft

imagenet, imagenet21k and jft follow the table's rows of their data; recipe=NAME gives those rows to
any other TFDS data set or folder. ImageNet-21k is not in TFDS: imagenet21k is the name of the
authors' own builder, with one split `full`. JFT-300M is private: jft_300m, with splits train and
test, is a name for yours.

Other data without recipe= gets a modest recipe for a single machine. Folders are
DATA/{train,test}/CLASS/*.jpg, or DATA/CLASS/*.jpg, of which a tenth becomes the test split.

Batch 4096 at 224 pixels: --config.optimizer.micro_batches=16 for less memory. Of two numbers of
epochs in a row the default is the larger, that of L/16 on JFT-300M in Table 5 and, by its cost, on
ImageNet-21k in Table 2; the other is --config.epochs=7 for L/16 and R50+ViT-L/16 on JFT-300M, and
--config.epochs=30 for L/16 and L/32 on ImageNet-21k.

What the paper says elsewhere, or leaves open, and what stands here:

- Loss: sigmoid cross-entropy summed over classes, head bias -10, linear decay that ends at 1e-5, a
  hidden tanh layer as wide as the encoder: the authors (github.com/google-research/
  vision_transformer, issues 2, 34 and 62). A ResNet has no such layer and no dropout.
- Clipping at norm 1: Table 3's caption, for ImageNet. Nothing is said of the others: none.
- Weight decay: of every parameter and times the rate, as in the Adam of Flax then.
- Label smoothing: tuned for the smaller data (section 4.3), no value printed. 1e-4 on ImageNet,
  from a note in Scenic's config of that run; none on ImageNet-21k, where the same would put targets
  of 2.2 in sum on wrong classes, and none on JFT-300M.
- Crops of 5 to 100 % of the area and flips: the authors' code. Splits: those of their code.
- Evaluation: which crop the paper takes is open. The whole image, squashed to 224x224 pixels, as
  the authors' code does after fine-tuning.
- Units of ResNets: R50x1 has those of the hybrids, BiT-R50x1 those of BiT; both take the same row.
- R152x2 for 14 epochs (Table 6) has no row: its own of 7 with --config.epochs=14. Nor has R200x3,
  which takes R152x2's rate for the 14 epochs of Table 6; nor H/14 on ImageNet-21k, which takes
  ViT-L's row. Hybrids on ImageNet and ImageNet-21k take their ViT's row (appendix B.1).

Figure 3 tunes weight decay, dropout and label smoothing for ImageNet and ImageNet-21k. Printed are
the values chosen, in Table 3: weight decay 0.03, 0.1 and 0.3, dropout 0 and 0.1. Which others were
tried is not, nor any label smoothing. weight_decay=, dropout= and label_smoothing= set them:

    recipe=configs/pretrain.py:b16,imagenet21k,label_smoothing=0.0001
    for decay in 0.03 0.1 0.3; do for dropout in 0.0 0.1; do
        python -m vit_jax train --workdir=runs/b16-$decay-$dropout \\
            --config=$recipe,weight_decay=$decay,dropout=$dropout
    done; done

Figure 4 pre-trains on random subsets of 9M, 30M and 90M images of JFT-300M, and on all of it:

    for subset in 9000000 30000000 90000000; do
        python -m vit_jax train --config=configs/pretrain.py:b32,jft --workdir=runs/b32-$subset \\
            --config.data.subset=$subset --config.epochs=none --config.total_steps=517822 \\
            --config.early_stop.eval=test
    done

so too L/16, L/32, BiT-R50x1 and BiT-R152x2, and ViT-b/32, which is B/32 with

    --config.model.width=384 --config.model.mlp_dim=1536 --config.model.representation_size=384

All sizes have the same hyper-parameters, no more regularisation, and early stopping: the best
validation accuracy that training achieves is the result (section 4.3). What it leaves open:

- Rates: those of Table 3, of ViT-b/32 that of B/32.
- Heads of ViT-b/32: only hidden dimensions are halved, so the 12 of B/32.
- Length: for all, L/16 too, the 517,822 steps of 7 epochs of the whole. Of 7 epochs of 9M images,
  which are 15,381 steps, warm-up takes 10,000, and early stopping has nothing to do in them.
- When to stop: never. --config.early_stop.patience=10 ends a run after ten evaluations, which are
  50,000 steps, without a new best.
- Validation images: the split `test`. The figure's 5-shot accuracies are not printed, and not
  computed here.

Table 7 pre-trains ResNets on JFT-300M with BiT's SGD too: R50x1,jft,optimizer=sgd. Rate 0.03 for
256 images, which follows --config.data.batch_size, momentum 0.9, warm-up of 5,000 steps (arXiv
1912.11370). Its weight decay of 1e-4 is of a gradient that momentum makes ten times as large, and
1e-3 here, where decay stays out of momentum; so it is in big_vision's configs/bit_i1k.py. The rate
falls at 10, 23, 30 and 37 of BiT's 40 epochs. How the paper put them into 7 it does not say: here
at the same shares.

Expected top-1 in percent before any fine-tuning, from the authors (issue 62 there; for the L models
from scratch it names 90 epochs too, against Table 3), and on ImageNet fine-tuned at 384 (Table 5):

                                   B/16    B/32    L/16    L/32    H/14
    ImageNet, from scratch         74.79   69.19   72.59   66.90
    ImageNet, then at 384          77.91   73.38   76.53   71.16
    ImageNet-21k, validation       47.88   44.04   49.90   45.42   49.06

After fine-tuning: configs/finetune.py for ImageNet-21k; for JFT-300M, TABLE_6 in
vit_jax/analysis/published.py, and Table 7's SGD: ImageNet 78.24 (R50x1), 84.37 (R152x2).

Time in TPUv3-core-days (Table 2): H/14 on JFT-300M 2,500, L/16 680, L/16 on ImageNet-21k 230, which
is 30 days on 8 cores. Of other runs the paper prints exaFLOPs (`vit_jax paper --table=6`).
"""

from ml_collections import ConfigDict, FieldReference

from vit_jax.analysis.published import TABLE_3, Table3Row
from vit_jax.config import parse_argument
from vit_jax.data.sources.published import named
from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.sizes import Name, parse_name

_RECIPES = ("imagenet", "imagenet21k", "jft")
# Runs of Tables 5 and 6 that Table 3 has no row for: see above.
_OPEN = (
    Table3Row(("BiT-R200x3",), "jft", (14,), 6e-4, "linear", 0.1, 0.0),
    Table3Row(("ViT-H/14",), "imagenet21k", (90,), 1e-3, "linear", 0.03, 0.1),
)
# Epochs of 40 after which the rate falls.
_BIT_MILESTONES = tuple(epoch / 40 for epoch in (10, 23, 30, 37))


def get_config(argument: str | None = None) -> ConfigDict:
    chosen = parse_argument(
        argument,
        *("model", "data"),
        recipe=None,
        optimizer="adamw",
        weight_decay=None,
        dropout=None,
        label_smoothing=None,
    )
    recipe = chosen.recipe or (chosen.data if chosen.data in _RECIPES else None)
    if recipe is None:
        config = _single_machine(chosen.model, chosen.data)
    elif recipe in _RECIPES:
        config = _table_3(chosen.model, chosen.data, recipe)
    else:
        raise UserError(f"no recipe {recipe!r}; write one of {', '.join(_RECIPES)}")
    if (
        chosen.optimizer == "sgd"
        and recipe == "jft"
        and ModelConfig(chosen.model).family == "resnet"
    ):
        config.optimizer = _table_7(config.data.get_ref("batch_size"))
    elif chosen.optimizer != "adamw":
        raise UserError(
            f"optimizer={chosen.optimizer} is not of this recipe; sgd is that of Table 7, for a "
            "ResNet with recipe=jft"
        )
    if chosen.weight_decay is not None:
        config.optimizer.weight_decay = float(chosen.weight_decay)
    if chosen.dropout is not None:
        config.model.dropout = float(chosen.dropout)
    if chosen.label_smoothing is not None:
        config.label_smoothing = float(chosen.label_smoothing)
    return config


def _table_3(model: str, data: str, recipe: str) -> ConfigDict:
    row, dataset = _row(model, recipe), named(data)
    config = ConfigDict(
        {
            "model": {"name": model, "image_size": 224, "head_bias": -10.0, "dtype": "bfloat16"},
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.pretrain,
                "batch_size": 4096,
                "workers": 8,
            },
            "optimizer": {
                "name": "adamw",
                "lr": row.lr,
                "schedule": row.schedule,
                "warmup_steps": 10_000,
                "weight_decay": row.weight_decay,
            },
            "loss": "sigmoid",
            "epochs": row.epochs[-1],
            "evals": {
                name: {"split": split, "every_steps": 5000}
                for name, split in dataset.held_out.items()
            },
            "checkpoint": {"every_steps": 1000},
        }
    )
    if ModelConfig(model).family != "resnet":
        config.model.dropout = row.dropout
        config.model.representation_size = ModelConfig(model).size.width
    if recipe == "imagenet":
        config.optimizer.clip_norm = 1.0
        config.label_smoothing = 1e-4
    return config


def _row(model: str, recipe: str) -> Table3Row:
    name = parse_name(model)
    if name.family == "hybrid" and recipe != "jft":
        name = Name("vit", name.size, name.patch_size)
    rows = [row for row in (*TABLE_3, *_OPEN) if row.data == recipe]
    for row in rows:
        if any(_stands_for(listed, name) for listed in row.models):
            return row
    models = ", ".join(model for row in rows for model in row.models)
    raise UserError(
        f"Table 3 has no row for {model} on {recipe}; it has {models} (recipe= takes the rows of "
        "other data; configs/augreg.py has recipes for more ViTs and hybrids)"
    )


def _stands_for(listed: str, name: Name) -> bool:
    if listed == "ViT-*":
        return name.family == "vit"
    return parse_name(listed) == name or parse_name(listed) == name._replace(order="pre")


def _table_7(batch_size: FieldReference) -> ConfigDict:
    return ConfigDict(
        {
            "name": "sgd",
            "lr": 0.03 / 256 * batch_size,
            "schedule": "step",
            "milestones": _BIT_MILESTONES,
            "warmup_steps": 5000,
            "momentum": 0.9,
            "weight_decay": 1e-3,
        }
    )


def _single_machine(model: str, data: str) -> ConfigDict:
    dataset = named(data)
    config = ConfigDict(
        {
            "model": {"name": model, "image_size": 224, "dtype": "bfloat16"},
            "data": {
                "dataset": dataset.tfds,
                "train": dataset.train,
                "batch_size": 128,
                "workers": 2,
            },
            "optimizer": {
                "name": "adamw",
                "lr": 1e-3,
                "schedule": "cosine",
                "warmup_steps": 500,
                "weight_decay": 0.1,
                "clip_norm": 1.0,
            },
            "total_steps": 10_000,
            "evals": {"test": {"split": dataset.test, "every_steps": 1000}},
            "checkpoint": {"every_steps": 1000},
        }
    )
    if ModelConfig(model).family in ("vit", "hybrid"):
        config.model.dropout = 0.1
    return config
