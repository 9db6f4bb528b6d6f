"""`shuffled_patches:SIDE/DATA`: the images of a data set with their patches in another order.

One order, drawn once, holds for all images. A ViT that learns its positions sees the same problem
as before; a convolution loses its neighbours (arXiv 2010.11929, section 3.1, inductive bias).
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from vit_jax.data.images.decoding import decode
from vit_jax.data.sources.labels import labels_of_source
from vit_jax.data.sources.open import open_source, register_source
from vit_jax.data.sources.records import Record, Source, listing
from vit_jax.errors import UserError

_SEED = 0


@register_source("shuffled_patches")
class ShuffledPatches:
    """A source whose images are cut into squares that change places.

    Raises:
      UserError: the text is not SIDE/DATA.
    """

    def __init__(self, rest: str, split: str, data_dir: str | None) -> None:
        side, slash, dataset = rest.partition("/")
        if not side.isdecimal() or not int(side) or not slash or not dataset:
            raise UserError(
                f"data set 'shuffled_patches:{rest}': write shuffled_patches:SIDE/DATA, with the "
                "side of a patch in pixels, such as shuffled_patches:4/./photos"
            )
        self._side = int(side)
        self._source: Source = open_source(dataset, split, data_dir=data_dir)
        self.name = f"shuffled_patches:{side}/{self._source.name}"
        self.class_names, self.max_labels = self._source.class_names, self._source.max_labels

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        if record.problem is not None:
            return record
        pixels = shuffle_patches(np.asarray(decode(record.image)), self._side)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=0)
        return record._replace(image=file.getvalue())

    def labels(self) -> np.ndarray:
        """The label of each record, int32 [records]."""
        return labels_of_source(self._source)

    def fingerprint(self) -> str:
        """The side of a patch, and the fingerprint of the data set."""
        return f"patches of {self._side} in another order of {self._source.fingerprint()}"

    def listing(self) -> dict[str, str]:
        """That of the data set."""
        return listing(self._source)


def shuffle_patches(pixels: np.ndarray, side: int) -> np.ndarray:
    """Puts the whole patches of an image in another order, the same for all images of a size.

    Args:
      pixels: [height, width, 3].
      side: of a patch in pixels.

    Returns:
      An array of the same shape. What is left over at the bottom and right stays.
    """
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    order = np.random.default_rng(_SEED).permutation(rows * columns)
    whole = pixels[: rows * side, : columns * side]
    patches = whole.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    moved = patches.reshape(rows * columns, side, side, 3)[order]
    shuffled = pixels.copy()
    shuffled[: rows * side, : columns * side] = (
        moved.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(whole.shape)
    )
    return shuffled
