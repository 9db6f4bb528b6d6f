"""Released weight files and published accuracies, as data; AugReg's are in `augreg.py`.

Sources: Dosovitskiy et al., arXiv 2010.11929 ("ViT"); the README of google-research's
vision_transformer; Chen et al., arXiv 2106.01548 (SAM); Zhuang et al., arXiv 2203.08065 (GSAM);
Tolstikhin et al., arXiv 2105.01601 (Mixer); Kolesnikov et al., arXiv 1912.11370 (BiT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vit_jax.analysis.published.results import TABLE_5
from vit_jax.data.sources.published import DATASETS
from vit_jax.weights.catalogue.download import STORAGE

# Number of classes by the TFDS name of a data set.
NUM_CLASSES = {dataset.tfds: dataset.classes for dataset in DATASETS.values()}


@dataclass(frozen=True)
class Release:
    """A released weight file."""

    name: str
    """PREFIX/STEM; the prefix is the folder in the storage, or `bit`."""
    collection: Literal["vit", "augreg", "sam", "gsam", "mixer", "bit"]
    """The publication that it belongs to."""
    model: str
    """The model's name as `create_model` takes it."""
    dataset: str
    """The data it was trained on, in this order: `imagenet21k+imagenet2012`."""
    resolution: int | None
    """Side of its training images in pixels; None if unknown."""
    num_classes: int | None
    """Classes of its head; None if unknown."""
    url: str
    """Where it is in the public storage."""
    accuracy: float | None = None
    """Published top-1 on ImageNet in percent, for this model, data and resolution. A file with
    other classes reached it after fine-tuning, and the source then says so."""
    accuracy_source: str | None = None
    """The table or page that has the accuracy."""
    pooling: Literal["token", "gap"] = "token"
    """How the model pools; the other poolings are in no released file."""
    has_pre_logits: bool = False
    """Whether the file has `pre_logits`, the tanh layer of pre-training."""


# Accuracies of models pre-trained on ImageNet-21k and fine-tuned on ImageNet at 384 pixels.
_TABLE_5 = {
    model.replace("/", "_"): TABLE_5.value(("imagenet21k", "imagenet"), model)
    for model in TABLE_5.columns
}
_ONCE_FINE_TUNED = {
    **{stem: (top1, "ViT Table 5, once fine-tuned at 384") for stem, top1 in _TABLE_5.items()},
    "R50+ViT-B_16": (85.08, "vision_transformer README, once fine-tuned"),
}


def _imagenet21k(stem: str) -> Release:
    top1, source = _ONCE_FINE_TUNED.get(stem, (None, None))
    return Release(
        name=f"imagenet21k/{stem}",
        collection="vit",
        model=stem.replace("_", "/"),
        dataset="imagenet21k",
        resolution=224,
        num_classes=NUM_CLASSES["imagenet21k"],
        url=f"{STORAGE}/vit_models/imagenet21k/{stem}.npz",
        accuracy=top1,
        accuracy_source=source,
        has_pre_logits=True,
    )


def _fine_tuned(stem: str) -> Release:
    top1 = _TABLE_5.get(stem)
    return Release(
        name=f"imagenet21k+imagenet2012/{stem}",
        collection="vit",
        model=stem.removesuffix("-224").replace("_", "/"),
        dataset="imagenet21k+imagenet2012",
        resolution=224 if stem.endswith("-224") else 384,
        num_classes=NUM_CLASSES["imagenet2012"],
        url=f"{STORAGE}/vit_models/imagenet21k+imagenet2012/{stem}.npz",
        accuracy=top1,
        accuracy_source=None if top1 is None else "ViT Table 5",
    )


def _sharpness_aware(collection: Literal["sam", "gsam"], stem: str) -> Release:
    return Release(
        name=f"{collection}/{stem}",
        collection=collection,
        model=stem.replace("_", "/"),
        dataset="imagenet2012",
        resolution=224,
        num_classes=NUM_CLASSES["imagenet2012"],
        url=f"{STORAGE}/vit_models/{collection}/{stem}.npz",
        pooling="gap" if collection == "gsam" else "token",
    )


def _mixer(folder: str, stem: str) -> Release:
    dataset = "imagenet21k" if folder == "imagenet21k" else "imagenet2012"
    return Release(
        name=f"{folder}/{stem}",
        collection="mixer",
        model=stem.replace("_", "/"),
        dataset=dataset,
        resolution=224,
        num_classes=NUM_CLASSES[dataset],
        url=f"{STORAGE}/mixer_models/{folder}/{stem}.npz",
    )


def _bit(stem: str) -> Release:
    kind, size, *fine_tuned = stem.removeprefix("BiT-").split("-")
    datasets = ["imagenet2012" if kind == "S" else "imagenet21k"]
    datasets += ["imagenet2012"] if fine_tuned else []
    return Release(
        name=f"bit/{stem}",
        collection="bit",
        model=f"BiT-{size}",
        dataset="+".join(datasets),
        resolution=None if fine_tuned else 224,
        num_classes=NUM_CLASSES[datasets[-1]],
        url=f"{STORAGE}/bit_models/{stem}.npz",
    )


_VITS_21K = (
    *("ViT-B_8", "ViT-B_16", "ViT-B_32", "ViT-L_16", "ViT-L_32", "ViT-H_14"),
    *("R26+ViT-B_32", "R50+ViT-B_16", "R50+ViT-L_32"),
)
_VITS_FINE_TUNED = (
    *("ViT-B_8", "ViT-B_16", "ViT-B_16-224", "ViT-B_32", "ViT-L_16", "ViT-L_16-224", "ViT-L_32"),
    "R50+ViT-B_16",
)
_VITS_SAM = ("ViT-S_16", "ViT-B_16", "ViT-B_32", "ViT-L_16", "ViT-L_32")
_VITS_GSAM = ("ViT-S_16", "ViT-S_32", "ViT-B_16", "ViT-B_32")
_MIXERS = {
    "imagenet1k": ("Mixer-B_16", "Mixer-L_16"),
    "imagenet21k": ("Mixer-B_16", "Mixer-L_16"),
    "sam": ("Mixer-B_16", "Mixer-B_32"),
}
_BIT_S = ("R50x1", "R50x3", "R101x1", "R101x3", "R152x4")
_BIT_M = ("R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4")

RELEASES: tuple[Release, ...] = (
    *(_imagenet21k(stem) for stem in _VITS_21K),
    *(_fine_tuned(stem) for stem in _VITS_FINE_TUNED),
    *(_sharpness_aware("sam", stem) for stem in _VITS_SAM),
    *(_sharpness_aware("gsam", stem) for stem in _VITS_GSAM),
    *(_mixer(folder, stem) for folder, stems in _MIXERS.items() for stem in stems),
    *(_bit(f"BiT-S-{size}") for size in _BIT_S),
    *(_bit(f"BiT-M-{size}") for size in _BIT_M),
    *(_bit(f"BiT-M-{size}-ILSVRC2012") for size in _BIT_M),
)
