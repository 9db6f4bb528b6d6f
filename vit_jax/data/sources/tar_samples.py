"""The samples of a WebDataset tar: files that stand together and share a key.

`n01/0042.jpg`, `n01/0042.cls` and `n01/0042.json` are one sample: its key is what comes before the
first dot of the file's name (github.com/webdataset/webdataset, "The WebDataset Format").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from vit_jax.data.images.formats import SUFFIXES
from vit_jax.data.sources.forward import ForwardReader
from vit_jax.data.sources.index_file import Columns, Scanned, Shard
from vit_jax.data.sources.tar import Member, members
from vit_jax.errors import UserError

# Where a label is looked for if none is named: in a file of this ending, then under these keys.
LABEL_FILE = "cls"
LABEL_KEYS = ("label", "labels", "cls", "class")

_PARTS = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_MOST_LABEL_BYTES = 2**20
# By extension.
_Sample = dict[str, Member]


def scan_samples(shard: Shard, label: str | None) -> Scanned:
    """Finds the image and the labels of each sample of a tar.

    Args:
      label: an extension (`cls`) or a key in the sample's `.json` (`label`, `meta/species`); None
        is `.cls`, otherwise the first of `LABEL_KEYS`.

    Returns:
      `starts` and `stops` of the images, `labels` with their `label_ends`, and `is_list`, which is
      1 for a sample whose labels stand in a list.

    Raises:
      UserError: the tar is not whole, or a sample has no image, two, or a label in no known form.
    """
    reader = ForwardReader(shard)
    starts, stops, ends, lists = [], [], [], []
    labels: list[int] = []
    names: dict[str, int] = {}
    for key, sample in _samples(reader):
        image = _image(shard, key, sample)
        found = _label(reader, key, sample, label)
        for name in found if isinstance(found, list) else [found] if found is not None else []:
            labels.append(names.setdefault(name, len(names)))
        starts.append(image.start)
        stops.append(image.stop)
        ends.append(len(labels))
        lists.append(isinstance(found, list))
    columns: Columns = {
        "starts": np.array(starts, np.uint64),
        "stops": np.array(stops, np.uint64),
        "labels": np.array(labels, np.int32),
        "label_ends": np.array(ends, np.uint64),
        "is_list": np.array(lists, np.uint8),
    }
    return Scanned(len(starts), columns, tuple(names))


def _samples(reader: ForwardReader) -> Iterator[tuple[str, _Sample]]:
    key, sample = "", _Sample()
    for member in members(reader):
        match = _PARTS.fullmatch(member.name)
        # Such as __metadata__, and what systems leave: ._0042.jpg, .DS_Store.
        if match is None or member.name.rpartition("/")[2].startswith("__"):
            continue
        if match[1] != key and sample:
            yield key, sample
            sample = {}
        key, extension = match[1], match[2].lower()
        if extension in sample:
            raise UserError(
                f"{reader.shard.path}: {member.name} is in it twice; remove one, or give each "
                "sample a key of its own"
            )
        sample[extension] = member
    if sample:
        yield key, sample


def _image(shard: Shard, key: str, sample: _Sample) -> Member:
    """The image of a sample: `jpg` before `seg.png`."""
    images = [each for each in sample if f".{each}" in SUFFIXES]
    images = images or [each for each in sample if f".{each.rpartition('.')[2]}" in SUFFIXES]
    if len(images) != 1:
        has = f"has {len(images)} images" if images else "has no image"
        raise UserError(
            f"{shard.path}: sample {key} {has} (it holds {', '.join(f'.{e}' for e in sample)}); "
            "one is needed, such as .jpg or .png"
        )
    return sample[images[0]]


def _label(
    reader: ForwardReader, key: str, sample: _Sample, label: str | None
) -> str | list[str] | None:
    """The label or labels of a sample as text; None if it has none."""
    extension = LABEL_FILE if label is None else label.lower()
    if extension in sample and extension != "json":
        text = _content(reader, sample[extension])
        return _as_name(reader.shard, f"{key}.{extension}", text.strip())
    if "json" not in sample:
        return None
    where = f"{key}.json"
    try:
        about = json.loads(_content(reader, sample["json"]))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise _wrong(reader.shard, where, f"is not in JSON ({error})") from error
    for path in LABEL_KEYS if label is None else (label,):
        value = about
        for part in path.split("/"):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            where = f"{where}: {path}"
            if isinstance(value, list):
                names = [_as_name(reader.shard, where, each) for each in value]
                return list(dict.fromkeys(names))
            return _as_name(reader.shard, where, value)
    return None


def _content(reader: ForwardReader, member: Member) -> str:
    if member.stop - member.start > _MOST_LABEL_BYTES:
        raise _wrong(reader.shard, member.name, "takes more than 1 MiB")
    data = reader.read(member.start, member.stop - member.start)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong(reader.shard, member.name, "is not text in UTF-8") from error


def _as_name(shard: Shard, where: str, value: Any) -> str:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and value.strip()):
        raise _wrong(shard, where, f"is {value!r:.60}, not a name or a number")
    return str(value).strip()


def _wrong(shard: Shard, where: str, what: str) -> UserError:
    return UserError(f"{shard.path}: {where} {what}; mend the tar, or name another label")
