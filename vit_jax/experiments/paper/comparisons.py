"""The tables of figures that our results are compared with."""

from collections.abc import Mapping, Sequence

from vit_jax.analysis.macs import exaflops
from vit_jax.analysis.published import augreg
from vit_jax.analysis.published.grid import Figure, Grid
from vit_jax.analysis.published.results import (
    AVERAGE_5,
    CORE_DAYS,
    EXAFLOPS,
    TABLE_2,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    TABLE_9,
    VTAB,
    VTAB_GROUPS,
)
from vit_jax.analysis.published.timm import TIMM
from vit_jax.data.sources.published import DATASETS
from vit_jax.experiments.paper import places
from vit_jax.experiments.paper.comparison import Cell, Comparison
from vit_jax.models.config import ModelConfig

_AVERAGE, _MEAN = "Average-5", "mean"
Means = Mapping[Cell, Sequence[Cell]]
# Rows that are means of others.
MeanRows = Mapping[tuple[str, ...], Sequence[tuple[str, ...]]]


def _with_rows(grid: Grid, rows: MeanRows) -> Grid:
    """The grid with rows that are means of others, each below all of its group."""
    found = dict(grid.rows)
    for name, members in rows.items():
        figures = zip(*(grid.rows[member] for member in members), strict=True)
        found[name] = tuple(map(_mean, figures))
    order = [*grid.rows]
    for name, members in rows.items():
        group = {*members, *(mean for mean in rows if {*rows[mean]} < {*members})}
        last = [row for row in order if row in group or row[:-1] == name[:-1]][-1]
        order.insert(order.index(last) + 1, name)
    return grid._replace(rows={name: found[name] for name in order})


def _mean(figures: Sequence[Figure | None]) -> Figure | None:
    values = [figure.value for figure in figures if figure is not None]
    return Figure(sum(values) / len(values)) if len(values) == len(figures) else None


def _in_each_column(grid: Grid, rows: MeanRows) -> Means:
    return {
        (name, column): [(member, column) for member in members]
        for name, members in rows.items()
        for column in grid.columns
    }


def _table_6() -> tuple[Grid, Means]:
    """Table 6 with a column of averages before the last."""
    *scores, last = TABLE_6.columns
    rows = {}
    for key, row in TABLE_6.rows.items():
        figures = [TABLE_6.figure(key, name) for name in AVERAGE_5]
        rows[key] = (*row[:-1], _mean(figures), row[-1])
    grid = TABLE_6._replace(columns=(*scores, _AVERAGE, last), rows=rows)
    return grid, {(key, _AVERAGE): [(key, name) for name in AVERAGE_5] for key in rows}


def _counted() -> dict[Cell, float]:
    """exaFLOPs by our own multiply-adds: six times these times images."""
    images = DATASETS["jft"].sizes["train"]
    return {
        ((model, epochs), EXAFLOPS): exaflops(
            ModelConfig(name=model, num_classes=0), int(epochs) * images
        )
        for model, epochs in TABLE_6.rows
    }


_AVERAGES_5: MeanRows = {
    (data, _AVERAGE): [(data, name) for name in AVERAGE_5]
    for data in dict.fromkeys(data for data, _ in TABLE_5.rows)
}
_AVERAGES_7: MeanRows = {(_AVERAGE,): [(name,) for name in AVERAGE_5]}
_GROUPS: MeanRows = {
    **{(group, _MEAN): [(group, t) for t in tasks] for group, tasks in VTAB_GROUPS.items()},
    ("all", _MEAN): [*TABLE_9.rows],
}
_TASKS: MeanRows = {(VTAB,): [(task,) for tasks in VTAB_GROUPS.values() for task in tasks]}
_GRID_6, _MEANS_6 = _table_6()

COMPARISONS = {
    "2": Comparison(TABLE_2, places.table_2, _in_each_column(TABLE_2, _TASKS), counts=(CORE_DAYS,)),
    "5": Comparison(
        _with_rows(TABLE_5, _AVERAGES_5), places.table_5, _in_each_column(TABLE_5, _AVERAGES_5)
    ),
    "6": Comparison(_GRID_6, places.table_6, _MEANS_6, counts=(EXAFLOPS,), computed=_counted),
    "7": Comparison(
        _with_rows(TABLE_7, _AVERAGES_7), places.table_7, _in_each_column(TABLE_7, _AVERAGES_7)
    ),
    "8": Comparison(TABLE_8, places.table_8, decimals=5),
    "9": Comparison(
        _with_rows(TABLE_9, _GROUPS),
        places.table_9,
        _in_each_column(TABLE_9, _GROUPS),
        decimals=1,
    ),
    "augreg": Comparison(augreg.TABLE_3, places.augreg_table_3),
    "timm": Comparison(TIMM, places.timm),
}
