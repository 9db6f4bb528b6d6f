"""Labelled, still encoded images by position: one interface for folders and TFDS data sets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from vit_jax.errors import UserError


class Record(NamedTuple):
    """One example as it is stored.

    `image` holds the encoded bytes (JPEG, PNG, ...), `label` an index into the source's
    `class_names` (-1 where a data set hides its labels), and `name` says in messages which record
    it is: the file's path, or "cifar10/train[1234]".
    """

    image: bytes
    label: int
    name: str


class Source(Protocol):
    """A fixed sequence of records with random access, cheap to pickle for spawned workers."""

    name: str
    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Returns record `index`, 0 <= index < len; raises `IndexError` for any other."""
        ...


def open_source(
    dataset: str,
    split: str,
    *,
    data_dir: str | None = None,
    test_fraction: float | None = None,
) -> Source:
    """Opens part of a data set.

    Args:
        dataset: a folder of images (see `is_folder` for what counts as one and `folder.py` for its
            layouts), or a TFDS name such as "cifar10" or "imagenet_v2/matched-frequency:3.0.0".
        split: in TFDS syntax: "train", "train[:98%]", "train[100:200]+test", "all".
        data_dir: where TFDS keeps its data sets; None is TFDS's default (`TFDS_DATA_DIR`, else
            ~/tensorflow_datasets). Folders do not read it.
        test_fraction: the share of each class, above 0 and below 1, that becomes the split "test"
            of a folder which has no splits of its own.

    Raises:
        UserError: if there is no such data set or split, or no record in it, or if `test_fraction`
            would be ignored.
    """
    if is_folder(dataset):
        from vit_jax.data.folder import FolderSource

        return FolderSource(dataset, split, test_fraction)
    if test_fraction is not None:
        raise UserError(
            f"test_fraction={test_fraction} would be ignored: data set {dataset!r} is not a folder "
            "of classes; leave it out and slice a split instead, such as train[:90%]"
        )
    from vit_jax.data.tfds_source import open_tfds

    return open_tfds(dataset, split, data_dir)


def is_folder(dataset: str) -> bool:
    """Whether `dataset` names a folder: it starts with "/", "./", "../" or "~"."""
    return dataset.startswith(("/", "./", "../", "~"))


class SplitRange(NamedTuple):
    """The records `start <= i < stop` of one split."""

    split: str
    start: int
    stop: int


def split_ranges(
    spec: str, shard_lengths: Mapping[str, Sequence[int]], dataset: str
) -> tuple[SplitRange, ...]:
    """Resolves a TFDS split spec, one range for each of its terms.

    TFDS's own parser does it, so that percentages round here as they do there, for folders too.

    Args:
        spec: such as "train[:10%]+test[5:]".
        shard_lengths: for each split, the number of records in each of its files.
        dataset: the data set's name, for messages.

    Raises:
        UserError: for bad syntax, unknown splits, slices past the end and terms without a record.
    """
    import tensorflow_datasets as tfds

    infos = {
        split: tfds.core.SplitInfo(name=split, shard_lengths=list(lengths), num_bytes=0)
        for split, lengths in shard_lengths.items()
    }
    sizes = ", ".join(f"{split} ({info.num_examples})" for split, info in infos.items())
    where = f"split {spec!r} of data set {dataset!r}"
    try:
        instruction = tfds.core.ReadInstruction.from_spec(spec)
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f"{where}: not in TFDS's syntax, such as train[:98%] or train[100:200]+test "
            f"({_last_line(error)}); splits: {sizes}"
        ) from None
    try:
        terms = instruction.to_absolute(infos)
    except ValueError as error:
        raise UserError(f"{where}: {_last_line(error)}; splits: {sizes}") from None
    ranges = tuple(
        SplitRange(
            term.splitname,
            term.from_ or 0,
            infos[term.splitname].num_examples if term.to is None else term.to,
        )
        for term in terms
    )
    for split, start, stop in ranges:
        if start >= stop:
            raise UserError(
                f"{where}: {split}[{start}:{stop}] holds no record; widen it; splits: {sizes}"
            )
    return ranges


def locate(ranges: Sequence[SplitRange], index: int) -> tuple[str, int]:
    """Returns the split, and the position in it, of record `index` of the joined `ranges`."""
    rest = index
    for split, start, stop in ranges if index >= 0 else ():
        if rest < stop - start:
            return split, start + rest
        rest -= stop - start
    raise IndexError(f"record {index} of {sum(r.stop - r.start for r in ranges)}")


def absolute_path(path: str) -> str:
    """Expands "~" and the current directory, which worker processes may not share."""
    return os.path.abspath(os.path.expanduser(path))


def _last_line(error: Exception) -> str:
    """TFDS puts what went wrong last, after a header; the splits are listed by the caller."""
    return str(error).splitlines()[-1].partition(". Should be one of")[0]
