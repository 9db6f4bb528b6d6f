"""What the miniature trains, and the paper's claims that it tries.

A budget of two hours on a CPU takes few claims with three seeds: positions, shuffled patches, a ViT
beside a hybrid and a ResNet of equal cost, resolution, masked pre-training. An hour on a GPU takes
the cells of Table 8 and two sizes of the data as well.
"""

from typing import Literal, NamedTuple

from vit_jax.analysis.macs import count_macs
from vit_jax.config import load_config
from vit_jax.experiments.studies.position_forms import position_cells, position_claims
from vit_jax.experiments.studies.study import Cell, Claim, Study
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import open_training

Budget = Literal["cpu", "gpu"]
_CONFIG = "configs/miniature.py"
_TOP1, _FEW_SHOT = "test/top1", "few/top1_10_shot"
_SMALL_SHARE = 0.1
DIGITS = "digits"
VIT, HYBRID = "ViT", "hybrid"
# A fifth of the rate from scratch, as fine-tuning takes.
_TUNING = ("--config.optimizer.lr=3e-4",)
# The part of a run in which the rate rises.
_WARM_UP = 7


# Steps of a ViT from scratch; fine-tuning takes a third of them.
_STEPS = {"cpu": 700, "gpu": 10_000}


def miniature(
    data: str, budget: Budget, steps: int | None = None, changes: tuple[str, ...] = ()
) -> Study:
    """The cells and claims.

    Args:
      data: `digits`, or a folder of images of 32x32 pixels with train and test.
      steps: of a ViT from scratch; None takes those of the budget.
      changes: of each config, such as "--config.data.workers=2".
    """
    plan = _Plan(data, steps or _STEPS[budget], changes)
    cells = [*plan.positions(), *plan.families(), *plan.resolution(), *plan.masked()]
    claims = [*_CLAIMS]
    if budget == "gpu":
        cells += [*plan.forms_of_positions(), *plan.small_data()]
        # The first is among the claims of both budgets.
        claims += position_claims("ViT without positions", "ViT")[1:] + _CLAIMS_OF_SMALL_DATA
    names = {cell.name for cell in cells}
    return Study(
        "miniature",
        f"the paper in miniature on {data}",
        "sections 3 and 4, appendix D",
        tuple(cells),
        tuple(claim for claim in claims if {claim.better, claim.worse} <= names),
        notes=(
            "the models, the data and the lengths are ours; the paper's have a thousand times more "
            "multiply-adds and images",
            "models of other families take as many steps as cost what the ViT's do",
        ),
    )


_CLAIMS = (
    Claim(
        "positions make a ViT better",
        "Table 8, appendix D.4",
        better=VIT,
        worse="ViT without positions",
    ),
    Claim(
        "a ResNet relies on neighbouring pixels",
        "section 3.1, inductive bias",
        better="ResNet",
        worse="ResNet, patches shuffled",
    ),
    Claim(
        "with patches shuffled a ViT is ahead of a ResNet",
        "ours, after section 3.1",
        better="ViT, patches shuffled",
        worse="ResNet, patches shuffled",
    ),
    Claim(
        "with little data a ResNet is ahead of a ViT of equal cost",
        "section 4.3, Figures 3 and 4",
        better="ResNet",
        worse=VIT,
    ),
    Claim(
        "at small cost a hybrid is ahead of a ViT",
        "section 4.4, Figure 5",
        better=HYBRID,
        worse=VIT,
    ),
    Claim(
        "fine-tuning at a higher resolution is better",
        "section 3.2",
        better="ViT, fine-tuned at 1.5 times the resolution",
        worse="ViT, fine-tuned at the same resolution",
    ),
    Claim(
        "masked patch prediction, then fine-tuning, is better than training from scratch",
        "section 4.6",
        better="ViT after masked patches",
        worse=VIT,
    ),
    Claim(
        "it is better than training from scratch for the same cost",
        "section 4.6",
        better="ViT after masked patches",
        worse="ViT, twice the steps",
    ),
)
_CLAIMS_OF_SMALL_DATA = (
    Claim(
        "with a tenth of the data a ResNet is ahead of a ViT of equal cost",
        "section 4.3, Figure 4",
        better="ResNet, a tenth of the images",
        worse="ViT, a tenth of the images",
    ),
)


class _Plan(NamedTuple):
    data: str
    steps: int
    changes: tuple[str, ...]

    def cell(
        self,
        name: str,
        model: str,
        *changes: str,
        steps: int,
        score: str = _TOP1,
        after: str | None = None,
    ) -> Cell:
        """A cell that costs as much as so many steps of the ViT."""
        text = f"{_CONFIG}:{self.data},{model}"
        own = (*self.changes, *changes)
        share = self._cost("vit") / self._cost(model)
        total = max(2, round(steps * share))
        length = (
            f"--config.total_steps={total}",
            f"--config.optimizer.warmup_steps={total // _WARM_UP}",
        )
        return Cell(name, text, (*own, *length), score, after)

    def positions(self) -> list[Cell]:
        """A ViT with and without positions, and with patches shuffled."""
        return [
            self.cell(VIT, "vit", steps=self.steps),
            self.cell(
                "ViT without positions", "vit", "--config.model.positions=none", steps=self.steps
            ),
            self.cell("ViT, patches shuffled", "vit", self._shuffled(), steps=self.steps),
        ]

    def forms_of_positions(self) -> list[Cell]:
        """The cells of Table 8 besides none, and 1-D at the stem."""
        return position_cells(
            lambda name, value: self.cell(
                name, "vit", f"--config.model.positions={value}", steps=self.steps
            ),
            but=("none", "learned"),
        )

    def families(self) -> list[Cell]:
        """Models of equal cost."""
        return [
            self.cell("ResNet", "resnet", steps=self.steps),
            self.cell("ResNet, patches shuffled", "resnet", self._shuffled(), steps=self.steps),
            # The root of a ResNet leaves 2x2 positions of a digit.
            *([] if self.data == DIGITS else [self.cell(HYBRID, "hybrid", steps=self.steps)]),
        ]

    def resolution(self) -> list[Cell]:
        """The trained ViT, fine-tuned at its own resolution and at one and a half times that."""
        side = self._config("vit").model.input_size[0]
        return [
            self.cell(
                f"ViT, fine-tuned at {words}",
                "vit",
                *_TUNING,
                f"--config.model.image_size={size}",
                steps=max(2, self.steps // 3),
                after=VIT,
            )
            for words, size in (
                ("the same resolution", side),
                ("1.5 times the resolution", side * 3 // 2),
            )
        ]

    def masked(self) -> list[Cell]:
        """A ViT after masked patch prediction, and one from scratch of the same cost."""
        return [
            self.cell(
                "masked patches",
                "vit",
                "--config.objective.kind=masked_patches",
                "--config.model.num_classes=0",
                "--config.evals.test=none",
                steps=self.steps,
                score=_FEW_SHOT,
            ),
            self.cell("ViT after masked patches", "vit", steps=self.steps, after="masked patches"),
            self.cell("ViT, twice the steps", "vit", steps=2 * self.steps),
        ]

    def small_data(self) -> list[Cell]:
        """A ViT and a ResNet on a tenth of the images."""
        examples = len(open_training(self._config("vit").data))
        subset = f"--config.data.subset={max(1, round(_SMALL_SHARE * examples))}"
        return [
            self.cell(f"{title}, a tenth of the images", model, subset, steps=self.steps)
            for title, model in (("ViT", "vit"), ("ResNet", "resnet"))
        ]

    def _shuffled(self) -> str:
        patch = self._config("vit").model.patch_size
        return f"--config.data.dataset=shuffled_patches:{patch}/{self.data}"

    def _config(self, model: str) -> TrainConfig:
        return build(TrainConfig, load_config(f"{_CONFIG}:{self.data},{model}", self.changes))

    def _cost(self, model: str) -> int:
        """Multiply-adds of one image."""
        return sum(count_macs(self._config(model).model).values())
