"""What a preparation left out, as a file beside the data set and in a few lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vit_jax.data.preparation.examples import Written
from vit_jax.data.preparation.shards import LeftOut
from vit_jax.data.sources.labels import labels_at_hand
from vit_jax.data.sources.records import Source
from vit_jax.plain import cell

LEFT_OUT = "left_out.csv"
_LISTED_AT_MOST = 8


def table(left_out: Mapping[str, Sequence[LeftOut]], class_names: Sequence[str]) -> bytes:
    """The list of all records that were left out, as CSV: split, name, class, reason, twin."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", "name", "class", "reason", "twin"])
    for split, records in left_out.items():
        for each in records:
            labels = each.label if isinstance(each.label, tuple | list) else (each.label,)
            names = "|".join(class_names[label] for label in labels if label >= 0)
            writer.writerow(map(cell, (split, each.name, names, each.reason, each.twin)))
    return text.getvalue().encode()


def summary(
    directory: object,
    splits: Mapping[str, Source],
    written: Mapping[str, Written],
    left_out: Mapping[str, Sequence[LeftOut]],
) -> Iterator[str]:
    """Lines on what was written, what was left out, and which classes have no image left."""
    classes = next(iter(splits.values())).class_names
    images = ", ".join(f"{name} {sum(each.records):,}" for name, each in written.items())
    size = sum(each.image_bytes for each in written.values())
    files = sum(len(each.records) for each in written.values())
    yield (
        f"{directory}: images: {images}; {len(classes):,} classes; {size / 1e9:,.2f} GB in "
        f"{files:,} shards"
    )
    everything = [each for some in left_out.values() for each in some]
    if everything:
        twins = sum(bool(each.twin) for each in everything)
        yield (
            f"left out {len(everything):,} images, {len(everything) - twins:,} that cannot be used "
            f"and {twins:,} that show a test image; they are listed in {directory}/{LEFT_OUT}"
        )
    for name, source in splits.items():
        before = set(without_images(source))
        if lost := [c for c in without_images(source, left_out[name]) if c not in before]:
            yield f"{name}: without what was left out, {classes_without(lost)}"


def classes_without(names: Sequence[str]) -> str:
    """Such as `2 classes have no image: n00000001, n00000008`."""
    more = ", …" if len(names) > _LISTED_AT_MOST else ""
    verb = "class has" if len(names) == 1 else "classes have"
    return f"{len(names):,} {verb} no image: {', '.join(names[:_LISTED_AT_MOST])}{more}"


def without_images(source: Source, left_out: Sequence[LeftOut] = ()) -> list[str]:
    """The classes without an image, if the source knows its labels."""
    if source.max_labels is not None or (labels := labels_at_hand(source)) is None:
        return []
    counts = np.bincount(labels[labels >= 0], minlength=len(source.class_names))
    for each in left_out:
        if isinstance(each.label, int) and each.label >= 0:
            counts[each.label] -= 1
    return [source.class_names[label] for label in np.flatnonzero(counts == 0)]
