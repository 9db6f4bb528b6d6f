"""Published figures against what the sources print elsewhere, and what their own rules give."""

import statistics

import pytest

from vit_jax.analysis.published import augreg, results, timm
from vit_jax.analysis.published.grid import Grid
from vit_jax.models.sizes import parse_name
from vit_jax.weights.catalogue.names import find

GRIDS = [
    *(results.TABLE_2, results.TABLE_5, results.TABLE_6, results.TABLE_7, results.TABLE_8),
    *(results.TABLE_9, results.UPSTREAM, augreg.TABLE_3, timm.TIMM),
]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.source)
def test_each_row_has_a_figure_or_none_for_each_column(grid: Grid) -> None:
    assert grid.source and len(set(grid.columns)) == len(grid.columns)
    for key, row in grid.rows.items():
        assert (len(key), len(row)) == (len(grid.keys), len(grid.columns)), key


def average_5(grid: Grid, column: str) -> float:
    return statistics.mean(grid.value((name,), column) for name in results.AVERAGE_5)


def test_average_5_is_the_last_row_of_table_7() -> None:
    # As Table 7 prints them, to a hundredth.
    printed = {"BiT-R50x1 Adam": 89.33, "BiT-R50x1 SGD": 88.79}
    printed |= {"BiT-R152x2 Adam": 94.01, "BiT-R152x2 SGD": 93.72}
    assert tuple(printed) == results.TABLE_7.columns
    for column, average in printed.items():
        assert average_5(results.TABLE_7, column) == pytest.approx(average, abs=0.0051)


def test_the_means_of_table_9_are_those_that_it_and_table_2_print() -> None:
    printed = {results.H14_JFT: 77.6, results.L16_JFT: 76.3, results.L16_IMAGENET21K: 72.7}
    for column, mean in printed.items():
        tasks = [results.TABLE_9.value(row, column) for row in results.TABLE_9.rows]
        assert len(tasks) == 19
        assert round(statistics.mean(tasks), 1) == mean
        # Table 2 averages before it rounds, so only some hundredths differ.
        in_table_2 = results.TABLE_2.value(("vtab",), column)
        assert statistics.mean(tasks) == pytest.approx(in_table_2, abs=0.02)


def test_the_groups_of_vtab() -> None:
    assert {name: len(tasks) for name, tasks in results.VTAB_GROUPS.items()} == {
        "natural": 7,
        "specialized": 4,
        "structured": 8,
    }


@pytest.mark.parametrize(
    ("model", "epochs"),
    [("ViT-B/32", "7"), ("ViT-B/16", "7"), ("ViT-L/32", "7"), ("ViT-L/16", "14")],
)
def test_tables_5_and_6_print_the_same_runs(model: str, epochs: str) -> None:
    for dataset in (*results.AVERAGE_5, "imagenet_real"):
        in_table_5 = results.TABLE_5.value(("jft", dataset), model)
        assert in_table_5 == results.TABLE_6.value((model, epochs), dataset)


def test_the_paper_counts_its_runs() -> None:
    """7 ResNets, 6 ViTs and 5 hybrids (section 4.4)."""
    families = [parse_name(model).family for model, _ in results.TABLE_6.rows]
    counts = [families.count(name) for name in ("resnet", "vit", "hybrid")]
    assert counts == [7, 6, 5]


def test_models_have_names_that_this_package_reads() -> None:
    names = [model for model, _ in results.TABLE_6.rows]
    names += [*results.TABLE_5.columns, *(model for (model,) in augreg.TABLE_3.rows)]
    for name in names:
        parse_name(name)


def test_the_released_files_behind_timm_s_weights() -> None:
    for name, released in timm.RELEASED.items():
        assert (name,) in timm.TIMM.rows
        release = find(released)
        assert release.name == released
        assert release.dataset == "imagenet21k+imagenet2012"
        # timm writes the side of the images into the name.
        assert str(release.resolution) == name.partition(".")[0].rpartition("_")[2]
