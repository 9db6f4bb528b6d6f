"""What a prepared data set is made from: kept beside it, so that another start makes the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.images.decoding import decode
from vit_jax.data.images.errors import ImageError
from vit_jax.data.preparation.shrink import JPEG_QUALITY, shrink
from vit_jax.data.sources.labelled_files import LabelledFiles
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError

# Records that are looked at to know how large the data set will be.
_SAMPLED = 64


class Options(NamedTuple):
    """What becomes of the images.

    Attributes:
      short_side: to which larger images are reduced, in pixels; None leaves them as they are.
      exclude: test sets, as DATASET/SPLIT, whose images are left out.
    """

    short_side: int | None = None
    exclude: tuple[str, ...] = ()

    def __str__(self) -> str:
        side = "no --short_side" if self.short_side is None else f"--short_side={self.short_side}"
        return f"{side}, " + (
            f"--exclude={','.join(self.exclude)}" if self.exclude else "no --exclude"
        )


class Plan(NamedTuple):
    """What is written.

    Attributes:
      fingerprints: of the source of each split, and of each test set.
      lengths: records of each split, before any is left out.
      shards: files of each split.
    """

    options: Options
    fingerprints: dict[str, str]
    lengths: dict[str, int]
    shards: dict[str, int]

    def to_json(self) -> bytes:
        """As it is kept beside the shards."""
        options = {**self.options._asdict(), "jpeg_quality": JPEG_QUALITY}
        return json.dumps({**self._asdict(), "options": options}, indent=1).encode()


def options_of(text: bytes, where: object) -> Options:
    """The options in what `Plan.to_json` has written.

    Raises:
      UserError: it is something else.
    """
    return _plan(text, where).options


def require_same(text: bytes, plan: Plan, where: object) -> Plan:
    """The plan of a former start, if the input and the options are the same.

    Args:
      text: what it has written.
      where: the data set's directory.

    Raises:
      UserError: they are not.
    """
    before = _plan(text, where)
    if before.options != plan.options:
        raise UserError(
            f"{where}: a preparation with {before.options} was begun here; finish it with the same "
            f"flags, choose another --data_dir, or remove {where} to begin again"
        )
    if before._replace(shards=plan.shards) != plan:
        different = sorted(
            name
            for name in before.fingerprints.keys() | plan.fingerprints.keys()
            if before.fingerprints.get(name) != plan.fingerprints.get(name)
        )
        raise UserError(
            f"{where}: {', '.join(different)} differs from what a preparation was begun with here; "
            f"restore that, choose another --data_dir, or remove {where} to begin again"
        )
    return before


def require_same_input(text: bytes, splits: Mapping[str, Source], where: object) -> None:
    """Refuses to take a data set that is prepared for that of other images with the same name.

    Args:
      text: what `Plan.to_json` has written.
      splits: the input now.
      where: the data set's directory.

    Raises:
      UserError: it was prepared from other images.
    """
    before = _plan(text, where).fingerprints
    if any(before.get(name) != fingerprint_of(source) for name, source in splits.items()):
        raise UserError(
            f"{where} was prepared from other images, or from fewer; choose another --name or "
            f"--data_dir, or remove {where}"
        )


def fingerprint_of(source: Source) -> str:
    """What tells a source from others: that of files also by their sizes, if these are at hand."""
    found = source.fingerprint()
    if not isinstance(source, LabelledFiles) or not source.has_sizes():
        return found
    digest = hashlib.blake2b(found.encode(), digest_size=8)
    for each in sorted(source.listing().items()):
        digest.update(repr(each).encode())
    return digest.hexdigest()


def shard_counts(
    splits: Mapping[str, Source], short_side: int | None, shard_bytes: int
) -> dict[str, int]:
    """How many shards of about `shard_bytes` each split gets, from a sample of its records."""
    return {
        name: max(round(len(source) * _mean_bytes(source, short_side) / shard_bytes), 1)
        for name, source in splits.items()
    }


def _mean_bytes(source: Source, short_side: int | None) -> float:
    positions: Sequence[int] = np.unique(
        np.linspace(0, len(source) - 1, min(_SAMPLED, len(source))).astype(int)
    ).tolist()
    return float(np.mean([_stored_bytes(source, each, short_side) for each in positions]))


def _stored_bytes(source: Source, position: int, short_side: int | None) -> int:
    data = source[position].image
    if short_side is None:
        return len(data)
    try:
        return len(shrink(data, decode(data), short_side))
    except ImageError:
        return 0


def _plan(text: bytes, where: object) -> Plan:
    try:
        values: dict[str, Any] = json.loads(text)
        options = values.pop("options")
        return Plan(Options(options["short_side"], tuple(options["exclude"])), **values)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{where}: the plan of its preparation is damaged; remove {where} to begin again"
        ) from error
