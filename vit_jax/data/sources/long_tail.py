"""A stand-in for JFT-300M, which is private: generated images with few to many labels each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vit_jax.data.sources.built_in import BuiltIn, png
from vit_jax.errors import UserError

_SIZE = 32
# Cells on a side of a class's pattern.
_CELLS = 4
_MOST_LABELS = _SIZE // _CELLS


class LongTail(BuiltIn):
    """32x32 images of classes whose frequencies follow a power law, each with 1 to 8 labels.

    Class c = 0, 1, ... is drawn with a probability in proportion to (c + 1) ** -exponent. The
    pattern of a class is a grid of 4x4 random colours. An image shows the pattern of each of its
    classes in a strip of its own, under noise. Everything follows from the arguments, which may
    stand in the name, as TFDS allows: `long_tail`, or `long_tail/classes=100,images=2000`.

    Args:
      classes: 18,291 is JFT's count, and `labels` its mean number of labels (BiT, arXiv
        1912.11370, section 3.1).
      images: number of images of the split `train`; `test` has a tenth as many.
      exponent: exponent of the power law; 0 makes all classes equally frequent.
      labels: mean number of an image's labels, from 1 to 4, before the bound of 8 labels. With the
        bound, 2 becomes 1.99, 3 becomes 2.88 and 4 becomes 3.60.
    """

    def __init__(
        self,
        *,
        classes: int = 18_291,
        images: int = 10_000,
        exponent: float = 1.0,
        labels: float = 1.26,
        seed: int = 0,
        **options: Any,
    ):
        self._classes, self._images, self._seed = int(classes), int(images), int(seed)
        self._exponent, self._labels = float(exponent), float(labels)
        if (
            min(classes - _MOST_LABELS, images - 10, seed) < 0
            or not 1 <= labels <= 4
            or not 0 <= exponent < math.inf
        ):
            raise UserError(
                f"long_tail takes at least {_MOST_LABELS} classes and 10 images, a finite exponent "
                "and a seed of at least 0, and 1 to 4 labels an image on average"
            )
        name = (
            f"classes{self._classes}-images{self._images}-exponent{self._exponent}"
            f"-labels{self._labels}-seed{self._seed}"
        )
        config = tfds.core.BuilderConfig(name=name, version=self.VERSION)
        super().__init__(config=config, **options)

    def _info(self) -> Any:
        names = [f"class_{number}" for number in range(self._classes)]
        label = tfds.features.ClassLabel(names=names)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(_SIZE, _SIZE, 3), encoding_format="png"),
                    "labels": tfds.features.Sequence(label),
                }
            ),
            supervised_keys=("image", "labels"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            "train": self._generate_examples(0, self._images),
            "test": self._generate_examples(1, self._images // 10),
        }

    def _generate_examples(self, split: int, images: int) -> Iterator[tuple[int, dict[str, Any]]]:
        draw = _Classes(self._classes, self._exponent)
        for index in range(images):
            rng = np.random.default_rng((self._seed, split, index))
            number = min(int(rng.geometric(1 / self._labels)), _MOST_LABELS)
            labels = draw(number, rng)
            yield index, {"image": png(self._draw(labels, rng)), "labels": labels}

    def _draw(self, labels: list[int], rng: np.random.Generator) -> np.ndarray:
        """The pattern of each class in its strip of columns; no value reaches 0 or 255."""
        image = rng.integers(-30, 31, (_SIZE, _SIZE, 3))
        shown = np.arange(_SIZE) * len(labels) // _SIZE
        for strip, label in enumerate(labels):
            cells = np.random.default_rng((self._seed, 2, label)).integers(
                30, 226, (_CELLS, _CELLS, 3)
            )
            pattern = cells.repeat(_SIZE // _CELLS, axis=0).repeat(_SIZE // _CELLS, axis=1)
            image[:, shown == strip] += pattern[:, shown == strip]
        return image.astype(np.uint8)


class _Classes:
    """Draws different classes by the power law, one after the other.

    Args:
      most_draws: draws for one image, repeated classes included. After them, the classes that the
        image already has are left out of the law. The result follows the same law, but drawing
        ends: with 8 classes and an exponent of 40, the last class comes once in 1e36 draws.
    """

    def __init__(self, classes: int, exponent: float, most_draws: int = 1000):
        ranks = np.arange(1, classes + 1, dtype=np.float64)
        frequencies = ranks**-exponent
        self._cumulative = np.cumsum(frequencies / frequencies.sum())
        with np.errstate(over="ignore"):
            self._logarithms = -exponent * np.log(ranks)
        self._most_draws = most_draws

    def __call__(self, number: int, rng: np.random.Generator) -> list[int]:
        """`number` different classes, counted from 0, in the order in which they were drawn."""
        labels: dict[int, None] = {}  # An ordered set.
        for _ in range(self._most_draws):
            if len(labels) == number:
                break
            drawn = int(np.searchsorted(self._cumulative, rng.random()))
            labels[min(drawn, len(self._cumulative) - 1)] = None
        while len(labels) < number:
            left = np.setdiff1d(np.arange(len(self._logarithms)), list(labels))
            # The largest sum of log frequency and Gumbel noise is a draw by frequency.
            labels[int(left[np.argmax(self._logarithms[left] + rng.gumbel(size=len(left)))])] = None
        return list(labels)
