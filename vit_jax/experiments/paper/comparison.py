"""A published table with our results beside its figures."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vit_jax.analysis.published.grid import Figure, Grid
from vit_jax.experiments.paper.page import Page
from vit_jax.experiments.paper.scored import COST, Result, Scored

# A row of a grid and one of its columns.
Cell = tuple[tuple[str, ...], str]


class NoRowError(Exception):
    """A table has no figure like a score; the message says why."""


@dataclass(frozen=True)
class Comparison:
    """How a published table takes our results.

    Attributes:
      grid: the table, with the rows and columns of `means`.
      place: the cell of a score, and its value in the unit of the table; raises `NoRowError`.
      means: cells that are means of others, which need not be in the grid.
      decimals: of the figures; `counts` has rows and columns that hold counts instead of scores.
      computed: what we know without a run.
    """

    grid: Grid
    place: Callable[[Scored], tuple[Cell, float]]
    means: Mapping[Cell, Sequence[Cell]] = field(default_factory=dict)
    decimals: int = 2
    counts: tuple[str, ...] = ()
    computed: Callable[[], dict[Cell, float]] = dict


class _Ours:
    """Our values by cell."""

    def __init__(self, values: Mapping[Cell, float]):
        self._values = {cell: [value] for cell, value in values.items()}
        self._given: dict[Cell, list[float]] = {}

    def add(self, cell: Cell, value: float) -> None:
        """Adds a run's value; it comes before what is known without a run."""
        self._given.setdefault(cell, []).append(value)

    def fill(self, means: Mapping[Cell, Sequence[Cell]]) -> None:
        """Adds the means of cells that all have values."""
        for cell, members in means.items():
            values = [self.get(member) for member in members]
            if all(value is not None for value in values):
                self._values[cell] = [statistics.fmean(v.value for v in values if v is not None)]

    def get(self, cell: Cell) -> Figure | None:
        """The mean over the runs of a cell; with several runs their standard deviation too."""
        values = self._given.get(cell) or self._values.get(cell)
        if not values:
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return Figure(statistics.fmean(values), deviation)

    def runs(self, cell: Cell) -> int:
        """The number of runs of a cell."""
        return len(self._given.get(cell, ()))


def compare(table: Comparison, results: Iterable[Result]) -> Page:
    """The table with the published figures, ours where there are any, and the difference."""
    ours = _Ours(table.computed())
    notes = [_enter(table, result, ours) for result in results]
    ours.fill(table.means)
    grid = table.grid
    has_ours = [any(ours.get((row, column)) for row in grid.rows) for column in grid.columns]
    heading: list[str] = [*grid.keys]
    for column, beside in zip(grid.columns, has_ours, strict=True):
        heading += [column, "ours", "diff"] if beside else [column]
    rows, records = [], []
    for row, published in grid.rows.items():
        texts = [*row]
        for column, figure, beside in zip(grid.columns, published, has_ours, strict=True):
            cell = (row, column)
            is_count = bool({*row, column} & {*table.counts})
            texts += _texts(figure, ours.get(cell), beside, table.decimals, is_count)
            records.append(_record(grid, cell, figure, ours))
        rows.append(tuple(texts))
    return Page(
        title=grid.title,
        source=grid.source,
        heading=tuple(heading),
        rows=tuple(rows),
        notes=(*grid.notes, *notes),
        records=tuple(records),
        left=len(grid.keys),
    )


def _enter(table: Comparison, result: Result, ours: _Ours) -> str:
    """Enters the scores of a result; returns a line that says where, or why nowhere."""
    placed: list[str] = []
    reasons = [result.nothing] if result.nothing else []
    parts = {part for members in table.means.values() for part in members}
    for scored in result.scored:
        try:
            cell, value = table.place(scored)
            if cell not in parts and table.grid.figure(*cell) is None:
                raise NoRowError(f"no figure is published for {', '.join((*cell[0], cell[1]))}")
        except NoRowError as error:
            if scored.dataset != COST:  # Most tables have none.
                reasons.append(str(error))
        else:
            words = ", ".join((*cell[0], cell[1]))
            if words not in placed:  # Several evaluations may give one score.
                ours.add(cell, value)
                placed.append(words)
    if placed:
        return f"{result.name}: {'; '.join(placed)}"
    return f"{result.name} has no row: {'; '.join(dict.fromkeys(reasons))}"


def _texts(
    figure: Figure | None, ours: Figure | None, beside: bool, decimals: int, is_count: bool
) -> list[str]:
    """The cells of a figure, of ours and of the difference."""
    texts = ["-" if figure is None else _text(figure, 0 if is_count else decimals)]
    if not beside:
        return texts
    if figure is None or ours is None:
        return [*texts, "", ""]
    difference = ours.value - figure.value
    if is_count:
        return [*texts, _text(ours, 1), f"{difference / figure.value:+.1%}"]
    return [*texts, _text(ours, decimals), f"{difference:+.{decimals}f}"]


def _text(figure: Figure, decimals: int) -> str:
    text = f"{figure.value:,.{decimals}f}"
    return text if figure.deviation is None else f"{text}±{figure.deviation:.{decimals}f}"


def _record(grid: Grid, cell: Cell, figure: Figure | None, ours: _Ours) -> dict[str, object]:
    row, column = cell
    own = ours.get(cell)
    return {
        **dict(zip(grid.keys, row, strict=True)),
        "column": column,
        "published": figure and figure.value,
        "published_deviation": figure and figure.deviation,
        "ours": own and own.value,
        "ours_deviation": own and own.deviation,
        "runs": ours.runs(cell),
        "difference": own and figure and own.value - figure.value,
    }
