"""Image files as a source: no labels, no classes, in the order in which they are given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vit_jax.data.sources.records import Record


class FileSource:
    """A record for each file. A file that cannot be read has no bytes, and so is no image."""

    class_names: tuple[str, ...] = ()
    max_labels: int | None = None

    def __init__(self, files: Sequence[str], name: str = "images") -> None:
        self.name = name
        self.files = tuple(files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        file = self.files[index]
        try:
            with open(file, "rb") as opened:
                image = opened.read()
        except OSError:
            image = b""
        return Record(image, -1, file)

    def fingerprint(self) -> str:
        """A hash of the paths."""
        paths = "\0".join(self.files).encode(errors="surrogateescape")
        return hashlib.blake2b(paths, digest_size=8).hexdigest()
