"""Images of tars as a source: read in place, in an order that mixes the classes."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.data.preparation.tar_index import Index
from vit_jax.data.sources.records import Record

_ORDER = "order"
_HASHED_AT_ONCE = 2**20


class TarredImages:
    """The images of a tar that `tar_index.py` has indexed.

    They are ordered by a hash of their names, so that a slice such as `full[:51200]` has images of
    all classes, on every machine the same.

    Args:
      name: the data set's and the split's, for messages.
      directory: where the index lies.
    """

    max_labels = None

    def __init__(self, name: str, directory: Path, class_names: tuple[str, ...]) -> None:
        self.name, self.class_names = name, class_names
        self._directory = directory
        self._length = len(self._index)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        at, found = int(self._order[index]), self._index
        name, label, size = found.name(at), int(found.labels[at]), int(found.sizes[at])
        # Opened each time: there may be 20,000 class tars, more than a process may have open.
        descriptor = os.open(found.path(at), os.O_RDONLY)
        try:
            data = os.pread(descriptor, size, int(found.starts[at]))
        finally:
            os.close(descriptor)
        problem = None if len(data) == size else "cannot read the file (it ends too early)"
        return Record(data, label, name, problem)

    def labels(self) -> np.ndarray:
        """The label of each record, int32 [records]."""
        return np.asarray(self._index.labels)[self._order]

    def fingerprint(self) -> str:
        """A hash of the names, labels and sizes of the images."""
        found, digest = self._index, hashlib.blake2b(digest_size=8)
        for array in (found.names, found.ends, found.sizes, found.labels):
            for start in range(0, len(array), _HASHED_AT_ONCE):
                digest.update(array[start : start + _HASHED_AT_ONCE].tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def _index(self) -> Index:
        return Index(self._directory)

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """The place in the index of each record, uint32 [records]; written once."""
        path = self._directory / _ORDER
        if not path.exists():
            partial = path.with_name(f".{_ORDER}.{os.getpid()}")
            _hashed_order(self._index).tofile(partial)
            os.replace(partial, path)
        return np.memmap(path, "<u4", "r") if len(self._index) else np.empty(0, "<u4")

    def __getstate__(self) -> dict[str, Any]:
        # Mapped files are not pickled: a worker maps its own.
        lazy = ("_index", "_order")
        return {name: value for name, value in self.__dict__.items() if name not in lazy}


def _hashed_order(index: Index) -> np.ndarray:
    digests = np.fromiter(
        (int.from_bytes(_digest(index.name(each)), "little") for each in range(len(index))),
        np.uint64,
        len(index),
    )
    return np.argsort(digests, kind="stable").astype("<u4")


def _digest(name: str) -> bytes:
    return hashlib.blake2b(os.fsencode(name), digest_size=8, person=b"order").digest()
