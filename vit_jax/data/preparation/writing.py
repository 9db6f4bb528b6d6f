"""Writes a data set as ArrayRecord in TFDS's layout, by several processes, through kills."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from vit_jax.data.images.decoding import decode
from vit_jax.data.images.errors import ImageError
from vit_jax.data.preparation.examples import Form, Written, description_files
from vit_jax.data.preparation.left_out import (
    LEFT_OUT,
    classes_without,
    summary,
    table,
    without_images,
)
from vit_jax.data.preparation.plan import (
    Options,
    Plan,
    fingerprint_of,
    require_same,
    shard_counts,
)
from vit_jax.data.preparation.processes import each_piece
from vit_jax.data.preparation.progress import Counts, shown
from vit_jax.data.preparation.shards import (
    LeftOut,
    Receipt,
    Shard,
    assign,
    file_hash,
    write_shard,
)
from vit_jax.data.preparation.shrink import shrink
from vit_jax.data.preparation.target import PLAN, STATE, Input, Target
from vit_jax.data.preparation.twins import TestSets, hash_test_sets
from vit_jax.data.sources.records import Record, Source
from vit_jax.errors import UserError
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket

_PIECE = 2**24

_log = logging.getLogger(__name__)


def write(
    target: Target,
    found: Input,
    options: Options,
    test_sets: Mapping[str, Source],
    *,
    workers: int,
    shard_bytes: int,
) -> None:
    """Writes all shards that are not there yet, then what describes them.

    Args:
      test_sets: the sources of `options.exclude`, by the same names.
      workers: processes; 0 is this one.
      shard_bytes: about how large a shard becomes.

    Raises:
      UserError: no image of a split can be written, the disk is full, or a former start wrote from
        another input or with other options.
    """
    plan = _plan(target, found, options, test_sets, shard_bytes)
    for name, source in found.splits.items():
        if without := without_images(source):
            _log.warning("%s/%s: %s", target.dataset, name, classes_without(without))
    shards = assign(plan.lengths, plan.shards)
    hashes = None
    if test_sets:
        hashes = hash_test_sets(list(test_sets.values()), target.work / "test_sets.npy", workers)
    shutil.rmtree(target.work / "partial", ignore_errors=True)
    (target.work / "partial").mkdir()
    (target.work / "counts").unlink(missing_ok=True)
    sources = list(found.splits.values())
    form = Form(sources[0].class_names, has_several=sources[0].max_labels is not None)
    task = _Task(target, found, options, shards, hashes, form)
    with shown(task.counts, sum(plan.lengths.values())):
        receipts = [piece["receipt"] for piece in each_piece(task, len(shards), workers)]
    _finish(target, found, options, form, shards, receipts)


def _plan(
    target: Target,
    found: Input,
    options: Options,
    test_sets: Mapping[str, Source],
    shard_bytes: int,
) -> Plan:
    """The plan of this preparation, or the equal one of a former start."""
    for name, source in found.splits.items():
        if not len(source):
            raise UserError(f"{target.dataset}: split {name} has no image")
    sources = {**found.splits, **test_sets}
    fingerprints = {name: fingerprint_of(source) for name, source in sources.items()}
    lengths = {name: len(source) for name, source in found.splits.items()}
    plan = Plan(options, fingerprints, lengths, {})
    path = target.directory / PLAN
    if objects.exists(path):
        before = objects.read_bytes(path)
        return require_same(before, plan, target.directory)
    plan = plan._replace(shards=shard_counts(found.splits, options.short_side, shard_bytes))
    objects.write_bytes(path, plan.to_json())
    return plan


class _Task:
    """Writes one shard after the other, in a worker or in this process."""

    def __init__(
        self,
        target: Target,
        found: Input,
        options: Options,
        shards: list[Shard],
        test_sets: TestSets | None,
        form: Form,
    ) -> None:
        self._target, self._found, self._options = target, found, options
        self._shards, self._test_sets, self._form = shards, test_sets, form
        self.counts = self._open_counts()

    def __getitem__(self, index: int) -> dict[str, Any]:
        shard = self._shards[index]
        name = shard.file_name(self._target.dataset)
        receipt = self._finished(name)
        if receipt is not None:
            self.counts.set_found(index, shard.stop - shard.start)
            return {"receipt": receipt}
        partial = self._target.work / "partial" / name
        receipt = write_shard(
            partial,
            self._found.splits[shard.split],
            shard,
            self._stored,
            lambda records: self.counts.set(index, records),
        )
        self._put_in_place(partial, receipt)
        objects.write_bytes(self._receipt(name), receipt.to_json())
        return {"receipt": receipt}

    def _stored(self, record: Record) -> tuple[bytes, int] | LeftOut:
        name = record.name.removeprefix(self._found.root)
        if record.problem is not None:
            return LeftOut(name, record.label, record.problem)
        if record.label == -1:
            return LeftOut(name, record.label, "has no label")
        try:
            image = decode(record.image)
        except ImageError as error:
            return LeftOut(name, record.label, str(error))
        if self._test_sets is not None and (twin := self._test_sets.twin(image)) is not None:
            reason = f"shows a test image ({twin.distance} of 256 bits differ)"
            return LeftOut(name, record.label, reason, twin.name)
        data = record.image
        if self._options.short_side is not None:
            data = shrink(data, image, self._options.short_side)
        return self._form.serialize(data, record.label, name), len(data)

    def _finished(self, name: str) -> Receipt | None:
        """The receipt of a shard that a former start has finished, if the shard is still so."""
        try:
            receipt = Receipt.from_json(objects.read_bytes(self._receipt(name)))
            path = self._target.directory / name
            if objects.size(path) != receipt.size:
                return None
            # What was written to a bucket was read back then, and objects do not change.
            is_same = is_bucket(path) or file_hash(Path(path)) == receipt.digest
            return receipt if is_same else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _put_in_place(self, partial: Path, receipt: Receipt) -> None:
        path = self._target.directory / receipt.file
        if not is_bucket(path):
            os.replace(partial, path)
            return
        objects.write_bytes(path, partial.read_bytes())
        partial.unlink()
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, receipt.size, _PIECE):
            stop = min(start + _PIECE, receipt.size)
            digest.update(objects.read_bytes(path, start, stop))
        if digest.hexdigest() != receipt.digest:
            raise UserError(
                f"{path}: the bucket returns something else than was written; run the same command "
                "again"
            )

    def _receipt(self, name: str) -> epath.Path:
        return self._target.directory / STATE / "receipts" / f"{name}.json"

    def _open_counts(self) -> Counts:
        return Counts(self._target.work / "counts", len(self._shards))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "counts"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.counts = self._open_counts()


def _finish(
    target: Target,
    found: Input,
    options: Options,
    form: Form,
    shards: list[Shard],
    receipts: list[Receipt],
) -> None:
    """Writes what describes the shards, and removes what only other starts would need."""
    by_split: dict[str, list[Receipt]] = {name: [] for name in found.splits}
    for shard, receipt in zip(shards, receipts, strict=True):
        by_split[shard.split].append(receipt)
    written = {
        name: Written([r.records for r in some], sum(r.image_bytes for r in some))
        for name, some in by_split.items()
    }
    left_out = {
        name: [each for r in some for each in r.left_out] for name, some in by_split.items()
    }
    for name, each in written.items():
        if not sum(each.records):
            raise UserError(
                f"{target.dataset}: no image of split {name} can be used; the first is "
                f"{left_out[name][0].name}: {left_out[name][0].reason}"
            )
    if any(left_out.values()):
        objects.write_bytes(target.directory / LEFT_OUT, table(left_out, form.class_names))
    text = f"Written by python -m vit_jax prepare, with {options}."
    files = description_files(target.dataset, target.version, form, written, text)
    for file, data in files.items():
        objects.write_bytes(target.directory / file, data)
    target.clear()
    for text in summary(target.directory, found.splits, written, left_out):
        _log.info("%s", text)
