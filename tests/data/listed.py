"""A source of given records, for tests."""

from collections.abc import Iterable, Mapping

from vit_jax.data.sources.records import Record, Source


def records_of(source: Source) -> list[Record]:
    """All records of a source in order."""
    return [source[i] for i in range(len(source))]


def label_of(record: Record) -> int:
    """The label of a record of a source whose records have one label."""
    assert isinstance(record.label, int)
    return record.label


def labels_of(record: Record) -> tuple[int, ...]:
    """The labels of a record of a source whose records have any number of labels."""
    assert isinstance(record.label, tuple)
    return record.label


class Listed:
    """A source of the given records; a mapping may lack some positions."""

    name = "listed/train"

    def __init__(
        self,
        records: Iterable[Record] | Mapping[int, Record],
        max_labels: int | None = None,
        class_names: tuple[str, ...] = (),
    ) -> None:
        self.records = records if isinstance(records, Mapping) else dict(enumerate(records))
        self.max_labels = max_labels
        self.class_names = class_names

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]

    def fingerprint(self) -> str:
        return str([(record.name, record.label) for record in self.records.values()])
