"""What was scored, on what and how well, whether a run or a file of scores tells it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vit_jax.data.sources.published import DATASETS
from vit_jax.experiments.paper.lineage import Stage, dataset_named

# Kinds of evaluations that are data sets of their own, whatever their images are called.
LABEL_SETS = (
    *("imagenet_real", "imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r"),
    *("imagenet_a_clean", "imagenet_r_clean", "objectnet", "vizwiz"),
)
# The data set of what a run took: `core_days` on TPUv3, and `exaflops`.
COST = "cost"
# Those that are published over the logits of their own classes; over all they are others.
OWN_LOGITS = ("imagenet_a", "imagenet_r")


@dataclass(frozen=True)
class Scored:
    """The scores of one model in one evaluation.

    Attributes:
      weights: as the user named them.
      model: the name of the model; None if nothing tells it.
      changes: what is not as in the named model, such as `depth=1`.
      positions: as `model.positions`; None if nothing tells it.
      image_size: pixels a side; None if unknown or not square.
      stages: what it was trained on; empty if nothing tells that.
      unknown: why `stages` is empty.
      dataset: in the words of configs, the kind of a label set, or `COST`.
      split: in TFDS syntax; that of a label set does not matter.
      values: by name, such as `top1`, from 0 to 1; costs by their units.
    """

    weights: str
    model: str | None
    changes: tuple[str, ...]
    positions: str | None
    image_size: int | None
    stages: tuple[Stage, ...]
    unknown: str
    dataset: str
    split: str
    values: Mapping[str, float]

    def on(self, kind: str, dataset: str, split: str, values: Mapping[str, float]) -> "Scored":
        """The same model in another evaluation.

        A folder is ImageNet's validation split if it is called so, as `imagenet_val` or
        `imagenet/val`, and has as many images; the same holds for the other published data sets.

        Args:
          kind: of the evaluation.
          dataset: as in a config.
        """
        name = kind if kind in LABEL_SETS else dataset_named(dataset)
        if name == dataset and name not in DATASETS:
            for known, each in DATASETS.items():
                whole = each.sizes.get(each.test)
                if _is_called(dataset, (known, each.tfds)) and values.get("examples") == whole:
                    name, split = known, each.test
        if name in OWN_LOGITS and kind != name:  # TFDS has them by the same names.
            name = f"{name} over all logits"
        if "inverse_penalty" in values:
            name = f"{name} by a linear probe"
        return replace(self, dataset=name, split=split, values=values)


def _is_called(folder: str, names: Iterable[str]) -> bool:
    *_, above, last = ("", *Path(folder.lower()).parts)
    pattern = rf"({'|'.join(names)})([-_]?(val|validation|test))?"
    return any(re.fullmatch(pattern, words) for words in (last, f"{above}_{last}"))


@dataclass(frozen=True)
class Result:
    """A run, or weights in a file of scores: what to look up in a table.

    Attributes:
      name: the directory of the run, or the file and the weights.
      scored: its evaluations, and its cost.
      nothing: why there are no evaluations; empty if there are.
    """

    name: str
    scored: tuple[Scored, ...]
    nothing: str = ""
