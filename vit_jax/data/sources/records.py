"""What a data set is made of: labelled, still encoded images by position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

# Default for the most labels of one record. Far above what images are labelled with, and the
# labels of a batch stay a small part of it.
MAX_LABELS = 64


class Record(NamedTuple):
    """One example as it is stored.

    Attributes:
      image: the encoded bytes (JPEG, PNG, ...).
      label: index into the source's `class_names`; -1 for no label. In a source whose records may
        have several labels, a tuple of any number of them.
      name: names the record in messages: the path of its file, or "cifar10/train[1234]".
      problem: why the image cannot be read; None if nothing is known against it.
    """

    image: bytes
    label: int | tuple[int, ...]
    name: str
    problem: str | None = None


class Source(Protocol):
    """A fixed sequence of records with random access. Data workers get a pickled copy.

    `name`, `class_names` and `max_labels` are attributes or properties.
    """

    @property
    def name(self) -> str:
        """Names the source in messages, such as "cifar10/train[:98%]"."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the labels; () if the records have no labels."""
        ...

    @property
    def max_labels(self) -> int | None:
        """None if each record has one label; otherwise the most labels that a record may have."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Returns record `index`, 0 <= index < len; raises `IndexError` for any other."""
        ...

    def fingerprint(self) -> str:
        """Text that is equal for the same records in the same order, and different otherwise.

        It does not depend on where the data lies. For files no image should be read.
        """
        ...


def fetch(source: Source, indices: Sequence[int]) -> Iterator[Record]:
    """The records at some indices, in that order.

    A source may have a method `fetch` that returns them, and that reads those to come while one is
    used. Otherwise they are read one after the other.
    """
    own = getattr(source, "fetch", None)
    return (source[index] for index in indices) if own is None else own(indices)


def reads_pieces(source: Source) -> bool:
    """Whether a source reads pieces of shards, and so may keep them in a cache.

    Such a source has a true attribute `reads_pieces`.
    """
    return getattr(source, "reads_pieces", False)


def listing(source: Source) -> dict[str, str]:
    """What a source is made of: its files or shards, with what tells whether one has changed.

    A source may have a method `listing` that returns this: for each file of a folder its label and
    size, for each shard its size. Otherwise its fingerprint is all that is known.
    """
    own = getattr(source, "listing", None)
    return {"records": source.fingerprint()} if own is None else own()


def file_paths(source: Source) -> list[str] | None:
    """The paths of a source's files, in record order; None for a source of another kind.

    A source of files has a method `paths` that returns them.
    """
    own = getattr(source, "paths", None)
    return None if own is None else own()
