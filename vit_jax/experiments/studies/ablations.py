"""The paper's ablations on a config of one's own: heads, optimizer, positions, shape, data's size.

Each takes the text of `--config` and its values, and returns the study. Rates, sizes and shares
are relative to the config, so that a small model on small data has the paper's proportions.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from vit_jax.analysis.published.results import TABLE_7
from vit_jax.data.sources.open import open_source
from vit_jax.errors import UserError
from vit_jax.experiments.studies.position_forms import (
    position_cells,
    position_claims,
    published,
)
from vit_jax.experiments.studies.study import Cell, Claim, Study
from vit_jax.models.sizes import parse_name
from vit_jax.training.config import TrainConfig


class Base(NamedTuple):
    """What a study varies.

    Attributes:
      text: of `--config`.
      changes: of it that every cell has.
      config: what they make.
      score: EVALUATION/METRIC.
    """

    text: str
    changes: tuple[str, ...]
    config: TrainConfig
    score: str

    def cell(self, name: str, **changes: object) -> Cell:
        """A cell with further changes; `__` in a keyword is the dot of a key."""
        own = (f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items())
        return Cell(name, self.text, (*self.changes, *own), self.score)


def heads(base: Base) -> Study:
    """Class token against the mean over patches, Figure 9 (appendix D.3)."""
    rate = base.config.optimizer.lr
    lower = f"{rate * 3 / 8:.6g}"  # 8e-4 and 3e-4 in the figure.
    mean = "mean over patches"
    return Study(
        "heads",
        "class token and mean over patches",
        "Figure 9, appendix D.3",
        (
            base.cell("class token", model__pooling="token"),
            base.cell(mean, model__pooling="gap"),
            base.cell(f"{mean}, 3/8 of the rate", model__pooling="gap", optimizer__lr=lower),
        ),
        (
            Claim(
                "the mean over patches is as good as the class token once its rate is lower",
                "appendix D.3",
                better=f"{mean}, 3/8 of the rate",
                worse=mean,
            ),
        ),
        notes=("the rates of the figure, 8e-4 and 3e-4, are taken as a share of the config's",),
    )


def shape(base: Base) -> Study:
    """Depth, width, MLP and patches of a ViT one by one, Figure 8 (appendix D.2)."""
    model = base.config.model
    if model.family != "vit":
        raise UserError(f"study shape varies a ViT, and {model.name} is none; name one")
    size = model.size
    cells = [base.cell("base")]
    for factor in (0.5, 2, 4):
        cells.append(base.cell(f"depth x{factor:g}", model__depth=round(size.depth * factor)))
    for factor in (0.5, 2):
        width = round(size.width * factor)
        cells.append(base.cell(f"width x{factor:g}", model__width=width))
        mlp = round(size.mlp_dim * factor)
        cells.append(base.cell(f"MLP x{factor:g}", model__mlp_dim=mlp))
    smaller = f"ViT-{parse_name(model.name).size}/{max(1, model.patch_size // 2)}"
    cells.append(base.cell("patch x0.5", model__name=smaller))
    both = {"depth": 2 * size.depth, "width": 2 * size.width, "mlp_dim": 2 * size.mlp_dim}
    cells.append(
        base.cell(
            "all x2", model__name=smaller, **{f"model__{key}": each for key, each in both.items()}
        )
    )
    return Study(
        "shape",
        "what a larger ViT gains by depth, width, MLP and smaller patches",
        "Figure 8, appendix D.2",
        tuple(cells),
        (
            Claim("more depth helps", "appendix D.2", better="depth x2", worse="base"),
            Claim(
                "depth helps more than width", "appendix D.2", better="depth x2", worse="width x2"
            ),
            Claim("smaller patches help", "appendix D.2", better="patch x0.5", worse="base"),
        ),
        notes=("the paper does not state its points; these are factors of the config's sizes",),
    )


def optimizers(base: Base) -> Study:
    """Adam against SGD in pre-training, Table 7 (appendix D.1)."""
    rate = 0.03 * base.config.data.batch_size / 256
    cells = (
        base.cell("Adam"),
        base.cell(
            "SGD",
            optimizer__name="sgd",
            optimizer__lr=f"{rate:.6g}",
            optimizer__schedule="step",
            optimizer__milestones="(0.25,0.575,0.75,0.925)",
            optimizer__momentum=0.9,
            optimizer__weight_decay=1e-3,
            optimizer__b1="none",
            optimizer__b2="none",
        ),
    )
    return Study(
        "optimizers",
        "pre-training with Adam and with BiT's SGD",
        "Table 7, appendix D.1",
        cells,
        (Claim("Adam pre-trains better than SGD", "appendix D.1", better="Adam", worse="SGD"),),
        notes=(
            "the table's ResNets have after fine-tuning on ImageNet: "
            + ", ".join(f"{name} {TABLE_7.value(('imagenet',), name)}" for name in TABLE_7.columns),
        ),
    )


def positions(base: Base) -> Study:
    """Forms of position embeddings, and where they are added, Table 8 (appendix D.4)."""
    model = base.config.model
    if model.family not in ("vit", "hybrid"):
        raise UserError(
            f"study positions varies a ViT or a hybrid, and {model.name} is none; name one"
        )
    return Study(
        "positions",
        "position embeddings, and where they are added",
        "Table 8, appendix D.4",
        tuple(position_cells(lambda name, value: base.cell(name, model__positions=value))),
        position_claims(),
        published(),
        notes=(
            "the paper's figures are 5-shot top-1 on ImageNet of a ViT-B/16 after pre-training",
            "ours: in 2-D and relative forms the class token has no position, and each block has "
            "relative embeddings of its own; a point is hardly a difference",
        ),
    )


def subsets(base: Base) -> Study:
    """Pre-training on parts of the data, Figure 4 (section 4.3)."""
    data = base.config.data
    examples = len(open_source(data.dataset, data.train, data_dir=data.data_dir))
    # 9M, 30M and 90M of 303M images.
    shares = {"3 %": 9 / 303, "10 %": 30 / 303, "30 %": 90 / 303}
    cells = [
        base.cell(f"{name} of the images", data__subset=max(1, round(share * examples)))
        for name, share in shares.items()
    ]
    cells.append(base.cell("all images"))
    return Study(
        "subsets",
        "pre-training on random parts of the data, for the same number of steps",
        "Figure 4, section 4.3",
        tuple(cells),
        (
            Claim(
                "a ViT gains from more images",
                "section 4.3",
                better="all images",
                worse="10 % of the images",
            ),
        ),
        notes=("the paper has 9M, 30M, 90M and all 303M images of JFT-300M; these are the shares",),
    )


STUDIES: Mapping[str, Callable[[Base], Study]] = {
    "heads": heads,
    "optimizers": optimizers,
    "positions": positions,
    "shape": shape,
    "subsets": subsets,
}
