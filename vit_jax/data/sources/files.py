"""Image files as a source: no labels, no classes, in the order in which they are given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vit_jax.data.images.errors import ImageError
from vit_jax.data.sources.reading import read_image_file
from vit_jax.data.sources.records import Record


class FileSource:
    """A record for each file. One that cannot be read says why, and has no bytes."""

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
            return Record(read_image_file(file), -1, file)
        except ImageError as error:
            return Record(b"", -1, file, problem=str(error))

    def paths(self) -> list[str]:
        """The path of each record's file."""
        return list(self.files)

    def fingerprint(self) -> str:
        """A hash of the paths."""
        paths = "\0".join(self.files).encode(errors="surrogateescape")
        return hashlib.blake2b(paths, digest_size=8).hexdigest()
