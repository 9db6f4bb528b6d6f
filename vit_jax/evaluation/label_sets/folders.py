"""Sets whose folders name ImageNet's classes: ImageNetV2, -A, -R and -Sketch.

They differ in which classes count and which logits compete. A and R have 200 classes of their own;
their authors let those 200 logits compete alone, while others score over all 1,000. The clean
counterparts are ImageNet's validation images of the same 200 classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.evaluation.class_map import ClassMap
from vit_jax.evaluation.classification import Classification
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import Opener
from vit_jax.evaluation.evaluator import Evaluator, Scores
from vit_jax.evaluation.label_sets.classes import (
    count_not_finite,
    folder_ids,
    head_logits,
    read_list,
    require_finite,
    require_images_of,
    shortened,
)
from vit_jax.inference.requests import Answer, Arrays, Request
from vit_jax.losses import Loss
from vit_jax.weights.classes import imagenet_synsets


@dataclass(frozen=True)
class _FolderSetConfig(EvalConfig):
    """A set whose images lie in a folder for each class."""

    title: ClassVar[str]
    is_clean: ClassVar[bool] = False

    @classmethod
    def synsets(cls) -> tuple[str, ...]:
        """WordNet ids of the classes that count."""
        return imagenet_synsets()

    def own_only(self) -> bool:
        """Whether only the logits of these classes compete."""
        return False

    def make(self, opener: Opener) -> Evaluator:
        """Opens the images and finds their classes in the head."""
        source, where = opener.source(self.split, self.dataset), f"evaluation {opener.name}"
        wanted = self.synsets()
        logits = dict(zip(wanted, head_logits(opener, wanted, self.title), strict=True))
        found = [imagenet_synsets()[number] for number in folder_ids(source, where)]
        require_images_of(wanted, found, source=source, where=where, title=self.title)
        others = [synset for synset in found if synset not in logits]
        if others and not self.is_clean:
            raise UserError(
                f"{where}: {source.name} has {len(others):,} classes that {self.title} has not "
                f"({shortened(others)}); name {self.title}'s own folder; the evaluator "
                f"{self.kind}_clean scores ImageNet's validation images of the same classes"
            )
        num_classes = opener.model.num_classes or 0
        classes = ClassMap(tuple(logits.get(synset, -1) for synset in found), num_classes)
        over = f"over all {num_classes:,} logits"
        if self.own_only():
            classes, over = classes.subset(), f"over the {len(wanted)} logits of its classes alone"
        of = f"validation images of the {len(wanted)} classes of " if self.is_clean else ""
        rule = f"{of}{self.title}, {over}"
        return _SetClassification(source, classes, opener.context.loss, rule, where)


@dataclass(frozen=True)
class _OwnClassesConfig(_FolderSetConfig):
    """A set with 200 of ImageNet's classes."""

    classes: Literal["subset", "all"] = "subset"
    """`subset` lets the logits of the set's 200 classes compete alone, as its authors do. `all`
    lets all of the model's logits compete."""
    list_file: ClassVar[str]

    @classmethod
    def synsets(cls) -> tuple[str, ...]:
        """WordNet ids of the set's 200 classes."""
        return tuple(read_list(cls.list_file).split())

    def own_only(self) -> bool:
        """Whether only the logits of the 200 classes compete."""
        return self.classes == "subset"


@EvalConfig.kinds.register("imagenet_v2")
@dataclass(frozen=True)
class ImageNetV2Config(_FolderSetConfig):
    """Top-1, top-5 and loss on ImageNetV2 (arXiv 1902.10811), whose folders are called 0 to 999."""

    title = "ImageNetV2"


@EvalConfig.kinds.register("imagenet_sketch")
@dataclass(frozen=True)
class ImageNetSketchConfig(_FolderSetConfig):
    """Top-1, top-5 and loss on ImageNet-Sketch (arXiv 1905.13549)."""

    title = "ImageNet-Sketch"


@EvalConfig.kinds.register("imagenet_a")
@dataclass(frozen=True)
class ImageNetAConfig(_OwnClassesConfig):
    """Top-1, top-5 and loss on ImageNet-A (arXiv 1907.07174)."""

    title, list_file = "ImageNet-A", "imagenet_a_synsets.txt"


@EvalConfig.kinds.register("imagenet_a_clean")
@dataclass(frozen=True)
class ImageNetACleanConfig(ImageNetAConfig):
    """Top-1, top-5 and loss on ImageNet's validation images of ImageNet-A's 200 classes."""

    is_clean = True


@EvalConfig.kinds.register("imagenet_r")
@dataclass(frozen=True)
class ImageNetRConfig(_OwnClassesConfig):
    """Top-1, top-5 and loss on ImageNet-R (arXiv 2006.16241)."""

    title, list_file = "ImageNet-R", "imagenet_r_synsets.txt"


@EvalConfig.kinds.register("imagenet_r_clean")
@dataclass(frozen=True)
class ImageNetRCleanConfig(ImageNetRConfig):
    """Top-1, top-5 and loss on ImageNet's validation images of ImageNet-R's 200 classes."""

    is_clean = True


class _SetClassification(Classification):
    """Classification whose line says the rule, and which refuses logits that are not finite."""

    def __init__(self, source: Source, classes: ClassMap, loss: Loss, rule: str, where: str):
        super().__init__(source, classes, loss)
        self.requests = {"test": Request(source, sums=self._count_finite)}
        self._rule, self._where = rule, where

    def _count_finite(self, batch: Arrays) -> Arrays:
        return self._count(batch) | {"not_finite": count_not_finite(batch)}

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """As `Classification`; the line ends with the rule."""
        sums = dict(answers["test"].sums)
        require_finite(sums.pop("not_finite"), self._where)
        found = super().scores({"test": answers["test"]._replace(sums=sums)})
        return Scores(found.values, f"{found.line}; {self._rule}")

    def scope(self) -> str:
        """Nothing: the rule says it."""
        return ""
