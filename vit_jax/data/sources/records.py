"""What a data set is made of: labelled, still encoded images by position."""

from __future__ import annotations

from typing import NamedTuple, Protocol

# Of one record, unless a config says otherwise: far above what images are labelled with, while the
# labels of a batch stay a small part of it.
MAX_LABELS = 64


class Record(NamedTuple):
    """One example as it is stored.

    `image` holds the encoded bytes (JPEG, PNG, ...), `label` an index into the source's
    `class_names`, or of a multi-label source a tuple of any number of them, and `name` says in
    messages which record it is: the file's path, or "cifar10/train[1234]".
    """

    image: bytes
    label: int | tuple[int, ...]
    name: str


class Source(Protocol):
    """A fixed sequence of records with random access, cheap to pickle for spawned workers.

    `max_labels` is None where each record has one label, else the most that a record may have.
    """

    name: str
    class_names: tuple[str, ...]
    max_labels: int | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Returns record `index`, 0 <= index < len; raises `IndexError` for any other."""
        ...

    def fingerprint(self) -> str:
        """Tells these records in this order from others, wherever they lie; reads no image."""
        ...
