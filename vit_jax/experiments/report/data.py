"""What a report says of a run's data: counts by class and split, and sizes of images."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vit_jax.data.images.decoding import stored_size
from vit_jax.data.images.errors import ImageError
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError

# Reading a record may mean reading a file over a network.
_READ_AT_MOST = 5_000


@dataclass(frozen=True)
class SplitSummary:
    """One source.

    Attributes:
      images: number of its records.
      looked_at: number of records that were read for what follows, spread evenly.
      by_class: number of these by the name of their class; an image may have several.
      sizes: the most frequent sizes as (height, width) with their numbers.
      smallest, largest: shorter and longer side in pixels over all that could be opened; None if
        none could.
      broken: names of records that cannot be opened, and why.
    """

    name: str
    images: int
    looked_at: int
    by_class: dict[str, int]
    sizes: list[tuple[tuple[int, int], int]]
    smallest: int | None
    largest: int | None
    broken: list[tuple[str, str]]


def summarize(source: Source) -> SplitSummary:
    """Reads up to 5,000 records and the headers of their images."""
    step = -(-len(source) // _READ_AT_MOST)
    by_class: Counter[str] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    broken = []
    looked_at = range(0, len(source), step)
    for index in looked_at:
        try:
            record = source[index]
            by_class.update(_names(source, record.label))
            sizes[stored_size(record.image)] += 1
        except UserError as error:
            broken.append((f"{source.name}[{index}]", str(error)))
        except ImageError as error:
            broken.append((record.name, str(error)))
    return SplitSummary(
        name=source.name,
        images=len(source),
        looked_at=len(looked_at),
        by_class={name: by_class[name] for name in source.class_names},
        sizes=sizes.most_common(5),
        smallest=min((min(size) for size in sizes), default=None),
        largest=max((max(size) for size in sizes), default=None),
        broken=broken,
    )


def class_rows(splits: Mapping[str, SplitSummary]) -> Iterator[tuple[str, list[int]]]:
    """A row for each class: its name, and its number in each split, in order."""
    names = dict.fromkeys(name for split in splits.values() for name in split.by_class)
    for name in names:
        yield name, [split.by_class.get(name, 0) for split in splits.values()]


def _names(source: Source, label: int | tuple[int, ...]) -> Iterator[str]:
    for each in (label,) if isinstance(label, int) else label:
        if each >= 0:
            yield source.class_names[each] if source.class_names else str(each)
