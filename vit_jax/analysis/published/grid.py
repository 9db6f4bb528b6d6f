"""The form of a published table of figures."""

from collections.abc import Mapping
from typing import NamedTuple


class Figure(NamedTuple):
    """A published number, and its standard deviation over runs if that is published too."""

    value: float
    deviation: float | None = None


class Grid(NamedTuple):
    """A published table.

    Attributes:
      title: what the figures are, with their unit.
      source: the paper with its version and table, or the repository with its commit.
      keys: what identifies a row, such as the data that a model was pre-trained on.
      columns: names of the columns; those of models are as `parse_name` reads them.
      rows: by the values of `keys`, a figure for each column; None where none is published.
      notes: what the source leaves open, a line each.
    """

    title: str
    source: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Mapping[tuple[str, ...], tuple[Figure | None, ...]]
    notes: tuple[str, ...] = ()

    def figure(self, row: tuple[str, ...], column: str) -> Figure | None:
        """The figure of a row and a column; None if none is published."""
        return self.rows[row][self.columns.index(column)]

    def value(self, row: tuple[str, ...], column: str) -> float:
        """The number of a row and a column.

        Raises:
          KeyError: none is published.
        """
        figure = self.figure(row, column)
        if figure is None:
            raise KeyError(f"{self.source} has no figure for {row}, {column}")
        return figure.value


def figures(*values: float | tuple[float, float] | None) -> tuple[Figure | None, ...]:
    """A row of figures: numbers, or pairs of a number and its deviation."""
    return tuple(
        None if value is None else Figure(*value) if isinstance(value, tuple) else Figure(value)
        for value in values
    )
