"""Splits in TFDS syntax, such as `train[:98%]`, for every kind of source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vit_jax.errors import UserError


class SplitRange(NamedTuple):
    """The records `start <= i < stop` of one split."""

    split: str
    start: int
    stop: int


def split_ranges(
    spec: str, shard_lengths: Mapping[str, Sequence[int]], dataset: str
) -> tuple[SplitRange, ...]:
    """Resolves a TFDS split spec: one range for each of its terms.

    TFDS's own parser does it, so that percentages are rounded as in TFDS, also for other sources.

    Args:
      spec: such as "train[:10%]+test[5:]".
      shard_lengths: for each split, the number of records in each of its files.
      dataset: names the data set in messages.

    Raises:
      UserError: the syntax is wrong, a split does not exist, a slice passes the end, or a term has
        no record.
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
            f"{where}: not in TFDS syntax, such as train[:98%] or train[100:200]+test "
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


def split_names(spec: str) -> tuple[str, ...]:
    """The splits that a TFDS split spec names, each once: "train[:10%]+test" has train and test."""
    terms = (term.partition("[")[0].strip() for term in spec.split("+"))
    return tuple(dict.fromkeys(terms))


def locate(ranges: Sequence[SplitRange], index: int) -> tuple[str, int]:
    """Returns the split, and the position in it, of record `index` of the joined `ranges`."""
    rest = index
    for split, start, stop in ranges if index >= 0 else ():
        if rest < stop - start:
            return split, start + rest
        rest -= stop - start
    raise IndexError(f"record {index} of {sum(r.stop - r.start for r in ranges)}")


def _last_line(error: Exception) -> str:
    """What went wrong: TFDS puts it last, after a header. The caller lists the splits itself."""
    return str(error).splitlines()[-1].partition(". Should be one of")[0]
