"""ReaL: ImageNet's validation images with reassessed labels (arXiv 2006.07159).

An image has any number of labels, and any of them is right. An image without labels is not counted:
the raters found none that fits. The file of labels is a list of 50,000 lists of class numbers; list
i belongs to the i-th image by name, which is `ILSVRC2012_val_` with the number i + 1.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.sources.files import FileSource
from vit_jax.data.sources.listing import list_images, subfolders
from vit_jax.data.sources.open import is_folder
from vit_jax.data.sources.records import Source, file_paths
from vit_jax.errors import UserError
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import Opener
from vit_jax.evaluation.evaluator import Evaluator, Scores
from vit_jax.evaluation.label_sets.classes import (
    count_not_finite,
    head_logits,
    require_finite,
    shortened,
)
from vit_jax.inference.requests import Answer, Arrays, Request
from vit_jax.reading import read_text
from vit_jax.weights.catalogue.download import fetch_pinned, sha256_of
from vit_jax.weights.classes import imagenet_synsets

URL = (
    "https://raw.githubusercontent.com/google-research/reassessed-imagenet/"
    "bcd006fe12e929f055e0ec7fe39dbf4d64a6881a/real.json"
)
# Also that of timm 1.0's copy, timm/data/_info/imagenet_real_labels.json.
SHA256 = "d83e9bff374c631aae8439eb064c7019acc56e1b3bc3f56b8380c2a710b0220b"
IMAGES = 50_000
_CACHED = "label_sets/imagenet_real_labels.json"
_NAME = re.compile(r"ILSVRC2012_val_([0-9]{8})\.\w+")


@EvalConfig.kinds.register("imagenet_real")
@dataclass(frozen=True)
class ImageNetRealConfig(EvalConfig):
    """Top-1 and top-5 on ImageNet's validation images with reassessed labels, ReaL."""

    labels: str | None = None
    """The file of labels, `real.json` of google-research/reassessed-imagenet. None downloads it."""

    def beyond_reading(self) -> Mapping[str, str]:
        """It downloads the labels if none are given."""
        return {} if self.labels is not None else {"labels": "may download ReaL's labels"}

    def make(self, opener: Opener) -> Evaluator:
        """Opens images and labels, and finds ImageNet's classes in the head."""
        where = f"evaluation {opener.name}"
        logits = head_logits(opener, imagenet_synsets(), "ImageNet")
        source = _open(opener, self.split, self.dataset)
        numbers = image_numbers(source, where)
        if self.labels is None:
            try:
                file = fetch_pinned(URL, _CACHED, SHA256)
            except UserError as error:
                option = opener.option("labels")
                raise UserError(f"{where}: {error}; or give {option}=FILE") from error
        else:
            file = Path(self.labels).expanduser()
        labels = read_labels(file)
        ids = np.full(opener.model.num_classes or 0, -1, np.int32)
        ids[list(logits)] = np.arange(len(logits))
        return ReassessedLabels(source, [labels[number - 1] for number in numbers], ids, where)


def _open(opener: Opener, split: str, dataset: str | None) -> Source:
    """The images, in a folder for each class or, as in ImageNet's own archive, all in one."""
    folder = dataset or opener.context.dataset or ""
    root = os.path.abspath(os.path.expanduser(folder))
    if split != "all" or not is_folder(folder) or not os.path.isdir(root) or subfolders(root):
        return opener.source(split, dataset)
    return FileSource(list_images(root), f"{folder}/all")


def image_numbers(source: Source, where: str) -> list[int]:
    """The number of each validation image, from 1 to 50,000, which its name ends with.

    Args:
      where: the evaluation, for messages.

    Raises:
      UserError: an image has another name, or there are no names or no images.
    """
    paths = file_paths(source)
    if paths is None:
        raise UserError(
            f"{where}: the images of {source.name} have no file names, which tell their labels; "
            "name a folder, or --dataset=imagenet2012_real --label=real_label "
            "--evaluator=classification for TFDS"
        )
    found = [_NAME.fullmatch(os.path.basename(path)) for path in paths]
    others = [path for path, match in zip(paths, found, strict=True) if match is None]
    numbers = [int(match[1]) for match in found if match is not None]
    others += [str(number) for number in numbers if not 1 <= number <= IMAGES]
    twice = [number for number, count in Counter(numbers).items() if count > 1]
    if twice:
        raise UserError(
            f"{where}: {source.name} holds validation image {twice[0]} more than once "
            f"(numbers that are there twice: {len(twice):,}); remove the copies"
        )
    if others or not paths:
        what = f"{shortened(others)} is not called so" if others else "it holds no images"
        raise UserError(
            f"{where}: {source.name} must hold ImageNet's validation images, "
            f"ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_{IMAGES:08}.JPEG: {what}"
        )
    return numbers


def read_labels(file: Path) -> list[list[int]]:
    """The right classes of each validation image, by number less 1; some have none.

    Raises:
      UserError: the file cannot be read, has another length or another content.
    """
    remedy = f"give real.json of google-research/reassessed-imagenet, SHA-256 {SHA256}"
    try:
        lists = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: cannot be read as ReaL's labels ({reason}); {remedy}") from error
    if not isinstance(lists, list) or len(lists) != IMAGES:
        held = f"{len(lists):,} lists" if isinstance(lists, list) else "no list"
        raise UserError(f"{file}: holds {held} and not {IMAGES:,}; {remedy}")
    if (found := sha256_of(file)) != SHA256:
        raise UserError(f"{file}: its SHA-256 is {found}, so these are other labels; {remedy}")
    return lists


class ReassessedLabels:
    """The evaluator of images with their labels.

    Args:
      labels: the right classes of each record, in ImageNet's numbers.
      ids: int32 [logits], the class of each logit in ImageNet's numbers, or -1.
      where: the evaluation, for messages.
    """

    score_names = ("top1", "top5", "examples")
    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self, source: Source, labels: Sequence[Sequence[int]], ids: np.ndarray, where: str
    ):
        self.requests = {
            "test": Request(
                source,
                sums=lambda batch: {"not_finite": count_not_finite(batch)},
                rows=self._best,
            )
        }
        self._labels, self._ids, self._where = labels, ids, where

    def _best(self, batch: Arrays) -> Arrays:
        best = jax.lax.top_k(batch["logits"], min(5, len(self._ids)))[1]
        return {"best": jnp.asarray(self._ids)[best]}

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """Shares `top1` and `top5` of the `examples` that have labels."""
        answer = answers["test"]
        require_finite(answer.sums["not_finite"], self._where)
        labels = [self._labels[record] for record in answer.positions]
        pairs = zip(answer.rows["best"].tolist(), labels, strict=True)
        hits = np.array([[each in right for each in best] for best, right in pairs if right], bool)
        if not len(hits):
            raise UserError(f"{self._where}: no image can be read and has a label")
        values = {
            "top1": float(hits[:, 0].mean()),
            "top5": float(hits.any(axis=1).mean()),
            "examples": float(len(hits)),
        }
        line = (
            f"top-1 {values['top1']:.2%}, top-5 {values['top5']:.2%} on {len(hits):,} examples; "
            f"right if any of an image's labels is, over all {len(self._ids):,} logits; "
            f"images without labels, not counted: {len(labels) - len(hits):,}"
        )
        return Scores(values, line)
