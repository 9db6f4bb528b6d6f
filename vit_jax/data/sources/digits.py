"""Scikit-learn's handwritten digits as a TFDS data set: real images without a download."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vit_jax.data.sources.built_in import BuiltIn, png

_TEST_IMAGES = 360


class Digits(BuiltIn):
    """1,797 grey images of 8x8 pixels, of the digits 0 to 9: 1,437 in train, 360 in test.

    Source: `sklearn.datasets.load_digits`, the test part of UCI's "Optical Recognition of
    Handwritten Digits". Its values 0..16 are scaled to 0..255.
    """

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        # Shuffled, because the file is ordered by writer, and its end is not a sample of the whole.
        train, test = train_test_split(
            np.arange(len(digits.target)),
            test_size=_TEST_IMAGES,
            stratify=digits.target,
            random_state=0,
        )
        return {
            "train": self._generate_examples(digits, train),
            "test": self._generate_examples(digits, test),
        }

    def _generate_examples(
        self, digits: Any, indices: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in map(int, indices):
            pixels = np.rint(digits.images[index] * (255 / 16)).astype(np.uint8)
            yield index, {"image": png(pixels), "label": int(digits.target[index])}
