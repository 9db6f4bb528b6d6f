"""Scikit-learn's handwritten digits as a TFDS data set: real images without a download."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vit_jax.errors import UserError

_TEST_IMAGES = 360


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 grey 8x8 images of the digits 0 to 9: 1,437 to train on, 360 to test on.

    Source: `sklearn.datasets.load_digits`, the test part of UCI's "Optical Recognition of
    Handwritten Digits". Its values 0..16 are scaled to 0..255.
    """

    VERSION = tfds.core.Version("1.0.0")
    # TFDS looks beside the code for the checksums of downloads. There are none, and the search
    # imports a package that TFDS does not install (importlib_resources).
    code_path = None

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
        # Shuffled, because the file is ordered by writer: its end is not a sample of the whole.
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
            yield index, {"image": _png(pixels), "label": int(digits.target[index])}


def prepare_digits(builder: Digits) -> None:
    """Writes the digits as ArrayRecord, in silence, unless they are there.

    Safe if several processes do it at once: TFDS writes beside the final directory and renames,
    so that the first one wins.

    Raises:
      UserError: if the directory cannot be written.
    """
    if builder.is_prepared():
        return
    silence = io.StringIO()
    try:
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            builder.download_and_prepare(file_format=tfds.core.FileFormat.ARRAY_RECORD)
    except OSError as error:
        if builder.is_prepared():  # by another process, between our look and our rename
            return
        raise UserError(
            f"cannot write data set 'digits' to {builder.data_dir}: {error}; "
            "choose another data_dir"
        ) from error


def _png(pixels: np.ndarray) -> bytes:
    """Encodes an image; from an array, TFDS would do it with TensorFlow."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
