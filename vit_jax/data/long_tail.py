"""A stand-in for JFT-300M, which is private: generated images with few to many labels each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vit_jax.data.built_in import BuiltIn, png
from vit_jax.errors import UserError

_SIZE = 32
# A class is a pattern of so many cells a side.
_CELLS = 4
_MOST_LABELS = _SIZE // _CELLS


class LongTail(BuiltIn):
    """32x32 images of classes whose frequencies follow a power law, each with 1 to 8 labels.

    Class c, from 0, is drawn with a probability in proportion to (c + 1) ** -exponent. An image
    shows the pattern of each of its classes, a grid of 4x4 random colours, in a strip of its own,
    under noise. All of it follows from the arguments, which a name may give as TFDS has them:
    `long_tail`, or `long_tail/classes=100,images=2000`.

    Args:
      classes: 18,291 is JFT's count, and `labels` its mean number of labels (BiT, arXiv
        1912.11370, section 3.1).
      images: of the split `train`; `test` has a tenth as many.
      labels: mean number of an image's labels, at least 1.
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
        if min(classes - _MOST_LABELS, images - 10, exponent, seed) < 0 or not 1 <= labels <= 4:
            raise UserError(
                f"long_tail takes at least {_MOST_LABELS} classes and 10 images, an exponent and a "
                "seed of at least 0, and 1 to 4 labels an image on average"
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
        frequencies = np.arange(1, self._classes + 1, dtype=np.float64) ** -self._exponent
        cumulative = np.cumsum(frequencies / frequencies.sum())
        for index in range(images):
            rng = np.random.default_rng((self._seed, split, index))
            number = min(int(rng.geometric(1 / self._labels)), _MOST_LABELS)
            labels: dict[int, None] = {}  # A set that keeps the order.
            while len(labels) < number:
                drawn = int(np.searchsorted(cumulative, rng.random()))
                labels[min(drawn, self._classes - 1)] = None
            yield index, {"image": png(self._draw(list(labels), rng)), "labels": list(labels)}

    def _draw(self, labels: list[int], rng: np.random.Generator) -> np.ndarray:
        """The pattern of each class in its part of the columns; values away from 0 and 255."""
        image = rng.integers(-30, 31, (_SIZE, _SIZE, 3))
        shown = np.arange(_SIZE) * len(labels) // _SIZE
        for strip, label in enumerate(labels):
            cells = np.random.default_rng((self._seed, 2, label)).integers(
                30, 226, (_CELLS, _CELLS, 3)
            )
            pattern = cells.repeat(_SIZE // _CELLS, axis=0).repeat(_SIZE // _CELLS, axis=1)
            image[:, shown == strip] += pattern[:, shown == strip]
        return image.astype(np.uint8)
