"""VizWiz-Classification: images by blind photographers with 200 of ImageNet's classes.

The 200 logits of its classes compete, and an image is right if the best of them is one of its
labels. Its labels are not public, so what comes of it is a file for its server, EvalAI's challenge
1999: a JSON object from image to class. Images are resized so that the crop keeps 7/8 of the short
side, 256 to 224 pixels.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath

from vit_jax.data.sources.files import FileSource
from vit_jax.errors import StorageError, UserError
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
from vit_jax.preprocessing import central_crop
from vit_jax.reading import read_text
from vit_jax.storage import objects
from vit_jax.storage.paths import given_path, is_bucket

_CROP_SHARE = 224 / 256


@EvalConfig.kinds.register("vizwiz")
@dataclass(frozen=True)
class VizWizConfig(EvalConfig):
    """Predictions for VizWiz-Classification's server; top-1 where a file of labels is given."""

    annotations: str | None = None
    """Its file `annotations.json`, which lists the images and the 200 classes. Required."""
    submission: str | None = None
    """The JSON file to write for the server, `{image: class}`."""
    labels: str | None = None
    """A JSON file of labels to score with, which are not public: `{image: [class, ...]}`, or
    `{image: {"labels": [class, ...], "flaws": [name, ...]}}`."""

    def beyond_reading(self) -> Mapping[str, str]:
        """It writes the file for the server."""
        return {key: f"writes {file}" for key, file in self.output_files().items()}

    def output_files(self) -> Mapping[str, str]:
        """The file for the server."""
        return {} if self.submission is None else {"submission": self.submission}

    def make(self, opener: Opener) -> Evaluator:
        """Finds the images and the 200 classes in the head."""
        where = f"evaluation {opener.name}"
        if self.split != "all":
            raise UserError(
                f"{where}: {opener.option('split')}={self.split} would be ignored: all images that "
                "the annotations list are taken; give all"
            )
        if self.annotations is None:
            raise UserError(f"{where}: give {opener.option('annotations')}=annotations.json")
        if self.submission is None and self.labels is None:
            raise UserError(
                f"{where}: VizWiz's labels are not public: give {opener.option('submission')}=FILE "
                f"to write predictions to, or {opener.option('labels')}=FILE to score with"
            )
        names, classes = _read_annotations(Path(self.annotations).expanduser())
        folder = self.dataset or opener.context.dataset or ""
        images = _find(names, folder, where)
        labels = None if self.labels is None else _read_labels(self.labels, names)
        logits = head_logits(opener, [c.synset for c in classes], "VizWiz-Classification")
        side = min(opener.model.input_size)
        assert opener.model.preprocessing is not None
        preprocessing = dataclasses.replace(
            opener.model.preprocessing, **({"crop_share": None} | central_crop(side, _CROP_SHARE))
        )
        return VizWiz(
            Request(FileSource(images, f"{folder}/all"), preprocessing=preprocessing),
            names=names,
            logits=np.array(logits),
            classes=np.array([each.number for each in classes]),
            labels=labels,
            submission=_writable(self.submission, where),
            where=where,
        )


class _Class(NamedTuple):
    number: int
    synset: str


class Labels(NamedTuple):
    """What is known of an image.

    Attributes:
      classes: the right ones, in ImageNet's numbers.
      flaws: of its quality, by name.
    """

    classes: frozenset[int]
    flaws: tuple[str, ...]


def _read_json(file: Path, what: str) -> Any:
    try:
        return json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: cannot be read as {what} ({reason})") from error


def _read_annotations(file: Path) -> tuple[list[str], list[_Class]]:
    """Names of the images, and the classes."""
    content = _read_json(file, "VizWiz's annotations")
    try:
        names = [os.fspath(name) for name in content["images"]]
        classes = [_Class(int(c["id"]), str(c["wordnet_id"])) for c in content["categories"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        names, classes = [], []
    if not names or not classes:
        raise UserError(
            f"{file}: lists no images and categories with id and wordnet_id; give the "
            "annotations.json of VizWiz-Classification"
        )
    return names, classes


def _find(names: Sequence[str], folder: str, where: str) -> list[str]:
    root = os.path.abspath(os.path.expanduser(folder))
    try:
        there = set(os.listdir(root))
    except OSError as error:
        raise UserError(
            f"{where}: {folder or 'no folder'}: {error.strerror}; name the folder of VizWiz's "
            "images in --dataset"
        ) from error
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(
            f"{where}: {folder} lacks {len(missing):,} of the {len(names):,} images that the "
            f"annotations list ({shortened(missing)}); unpack all of them there"
        )
    return [os.path.join(root, name) for name in names]


def _read_labels(path: str, names: Sequence[str]) -> list[Labels]:
    file = Path(path).expanduser()
    content = _read_json(file, "labels")
    if not isinstance(content, dict) or set(content) != set(names):
        held = len(content) if isinstance(content, dict) else 0
        raise UserError(
            f"{file}: has labels of {held:,} images, which are not the {len(names):,} of the "
            "annotations; give an entry for each of them"
        )
    try:
        return [_labels(content[name]) for name in names]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(
            f"{file}: an entry must be a list of classes, or an object with 'labels' and 'flaws'"
        ) from None


def _labels(entry: Any) -> Labels:
    classes, flaws = entry, []
    if isinstance(entry, dict):
        classes, flaws = entry["labels"], entry.get("flaws", [])
    if not (isinstance(classes, list) and isinstance(flaws, list)):
        raise TypeError("a text would be taken letter by letter")
    return Labels(frozenset(map(int, classes)), tuple(map(str, flaws)))


def _writable(submission: str | None, where: str) -> epath.Path | None:
    """Checks now what a pass over all images would end with."""
    if submission is None:
        return None
    path = given_path(submission)
    if is_bucket(path):
        objects.require_writable(path)
        return path
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{where}: submission={submission}: name a file in a folder that exists")
    return path


class VizWiz:
    """The evaluator of VizWiz's images.

    Args:
      request: of the images; what is taken of their logits is added.
      names: of the images.
      logits: int [200], those that compete.
      classes: int [200], what the server calls them: ImageNet's numbers.
      labels: of each image, if they are known.
      submission: the file to write.
      where: the evaluation, for messages.
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        request: Request,
        *,
        names: Sequence[str],
        logits: np.ndarray,
        classes: np.ndarray,
        labels: Sequence[Labels] | None,
        submission: epath.Path | None,
        where: str,
    ):
        self.requests = {
            "test": dataclasses.replace(
                request,
                sums=lambda batch: {"not_finite": count_not_finite(batch)},
                rows=self._best,
            )
        }
        self._names, self._logits, self._classes = names, logits, classes
        self._labels, self._submission, self._where = labels, submission, where
        flaws = {flaw for each in labels or () for flaw in each.flaws}
        self._columns = ("clean", "corrupted", *sorted(flaws)) if flaws else ()
        scores = ("top1", *(f"top1/{column}" for column in self._columns))
        self.score_names = ("examples",) if labels is None else (*scores, "examples")

    def _best(self, batch: Arrays) -> Arrays:
        return {"best": batch["logits"][:, self._logits].argmax(axis=-1).astype(jnp.int32)}

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """Writes the file; `top1` and `top1/COLUMN` where labels are known, and `examples`."""
        answer = answers["test"]
        require_finite(answer.sums["not_finite"], self._where)
        best = self._classes[answer.rows["best"]]
        values, lines = {}, []
        if self._labels is not None:
            values = self._score(best, [self._labels[record] for record in answer.positions])
            lines.append(f"top-1 {values['top1']:.2%}")
        if self._submission is not None:
            names = [self._names[record] for record in answer.positions]
            self._write(dict(zip(names, best.tolist(), strict=True)))
            lines.append(f"predictions in {self._submission}")
        line = (
            f"{', '.join(lines)} on {len(best):,} examples; right if the best of its "
            f"{len(self._logits)} logits is one of an image's labels"
        )
        return Scores(values | {"examples": float(len(best))}, line)

    def _score(self, best: np.ndarray, labels: Sequence[Labels]) -> dict[str, float]:
        hits = np.array([int(b) in each.classes for b, each in zip(best, labels, strict=True)])
        members = {
            "clean": [not each.flaws for each in labels],
            "corrupted": [bool(each.flaws) for each in labels],
        }
        values = {"top1": float(hits.mean())}
        for column in self._columns:
            chosen = np.array(members.get(column) or [column in each.flaws for each in labels])
            values[f"top1/{column}"] = float(hits[chosen].mean()) if chosen.any() else float("nan")
        return values

    def _write(self, predictions: Mapping[str, int]) -> None:
        assert self._submission is not None
        try:
            objects.write_bytes(self._submission, json.dumps(predictions).encode())
        except StorageError:
            raise
        except OSError as error:
            raise UserError(
                f"{self._where}: submission={self._submission}: {error.strerror}; choose another "
                "file"
            ) from error
