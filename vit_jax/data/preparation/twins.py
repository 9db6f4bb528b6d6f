"""Finds images of test sets among others, by a perceptual hash.

The paper removes the images of its test sets from its pre-training data, as BiT does (arXiv
1912.11370, section 3.1). Two images are twins here if their hashes differ in at most 16 of 256
bits. The hash is ImageHash's pHash with `hash_size=16`: which of the 16x16 lowest cosine
frequencies of the grey image lie above their median. A copy that was encoded again, made smaller,
or squeezed to another aspect is found; one that was cropped or turned is not (docs/data.md has the
figures).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vit_jax.data.images.decoding import decode
from vit_jax.data.images.errors import ImageError
from vit_jax.data.preparation.processes import each_piece
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError

# Bits of 256 in which the hashes of twins differ at most.
THRESHOLD = 16
_SIDE, _WORDS = 16, 4
_IMAGES_AT_ONCE = 256

_log = logging.getLogger(__name__)


class Twin(NamedTuple):
    """An image of a test set.

    Attributes:
      name: its record.
      distance: bits in which the two hashes differ.
    """

    name: str
    distance: int


def perceptual_hash(image: Image.Image) -> np.ndarray:
    """The hash of an image, uint64 [4].

    Raises:
      UserError: ImageHash is not installed.
    """
    try:
        from imagehash import phash
    except ImportError as error:
        raise UserError(
            "--exclude needs the package ImageHash; run: pip install 'vit_jax[duplicates]'"
        ) from error

    bits = phash(image, hash_size=_SIDE).hash
    return np.packbits(bits.reshape(-1)).view(np.uint64)


class TestSets:
    """The hashes of all images of some test sets.

    Args:
      hashes: uint64 [images, 4].
      ends: how many images there are up to the end of each set.
      names: of the sets.
    """

    __test__ = False  # pytest would take the class for tests.

    def __init__(self, hashes: np.ndarray, ends: Sequence[int], names: Sequence[str]) -> None:
        # By columns: nearly all images are told apart by the first.
        self._columns = np.ascontiguousarray(hashes.T)
        self._ends, self._names = list(ends), list(names)

    def __len__(self) -> int:
        return self._columns.shape[1]

    def twin(self, image: Image.Image) -> Twin | None:
        """The image of the test sets that is nearest, if it is a twin."""
        found = nearest(self._columns, perceptual_hash(image))
        if found is None:
            return None
        index, distance = found
        which = int(np.searchsorted(self._ends, index, side="right"))
        start = self._ends[which - 1] if which else 0
        return Twin(f"{self._names[which]}[{index - start}]", distance)


def nearest(columns: np.ndarray, wanted: np.ndarray) -> tuple[int, int] | None:
    """The index and distance of the nearest hash within the threshold; the first if several are.

    Args:
      columns: uint64 [4, hashes].
      wanted: a hash, uint64 [4].
    """
    # No search structure is faster here: it takes 30 microseconds for 50,000 hashes, and to decode
    # an image takes a thousand.
    near = np.flatnonzero(np.bitwise_count(columns[0] ^ wanted[0]) <= THRESHOLD)
    if not len(near):
        return None
    distances = np.bitwise_count(columns[:, near] ^ wanted[:, None]).sum(0, dtype=np.int64)
    best = int(np.argmin(distances))
    distance = int(distances[best])
    return (int(near[best]), distance) if distance <= THRESHOLD else None


def hash_test_sets(sources: Sequence[Source], path: Path, workers: int) -> TestSets:
    """Hashes the images of test sets, unless `path` holds their hashes.

    Images that cannot be read are left out of the comparison, and named.

    Args:
      path: where the hashes are kept, `.npy`.
      workers: processes; 0 is this one.
    """
    ends = np.cumsum([len(source) for source in sources])
    if not path.exists():
        parts = [_hashes(source, workers) for source in sources]
        partial = path.with_name(f".{path.name}.tmp.npy")
        np.save(partial, np.concatenate(parts))
        partial.replace(path)
    return TestSets(np.load(path), ends.tolist(), [source.name for source in sources])


class _Hashing:
    """Hashes some images at a time; a worker's task."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return math.ceil(len(self._source) / _IMAGES_AT_ONCE)

    def __getitem__(self, index: int) -> dict[str, Any]:
        start = index * _IMAGES_AT_ONCE
        stop = min(start + _IMAGES_AT_ONCE, len(self._source))
        hashes, broken = np.zeros((stop - start, _WORDS), np.uint64), []
        for row, position in enumerate(range(start, stop)):
            record = self._source[position]
            try:
                if record.problem is not None:
                    raise ImageError(record.problem)
                hashes[row] = perceptual_hash(decode(record.image))
            except ImageError as error:
                broken.append(f"{record.name}: {error}")
        return {"hashes": hashes, "broken": broken}


def _hashes(source: Source, workers: int) -> np.ndarray:
    task = _Hashing(source)
    hashes = []
    for part in each_piece(task, len(task), workers):
        hashes.append(part["hashes"])
        for line in part["broken"]:
            _log.warning("%s; no image is compared with it", line)
    return np.concatenate(hashes)
