"""The cells of Table 8 (appendix D.4): forms of position embeddings, and where they are added."""

from collections.abc import Callable

from vit_jax.analysis.published.results import TABLE_8, TABLE_8_CELLS
from vit_jax.experiments.studies.study import Cell, Claim

# What counts as hardly, as a share: a point. In the table forms differ by 0.33 points at most, and
# positions gain 2.6 or more.
_HARDLY = 0.01
_SOURCE = "Table 8, appendix D.4"


def cell_name(positions: str) -> str:
    """The name of a cell, such as "2-D positions, every layer"."""
    row, column = TABLE_8_CELLS[positions]
    if row == "none":
        return "no positions"
    return f"{row} positions" if row == "relative" else f"{row} positions, {column}"


def position_cells(make: Callable[[str, str], Cell], *, but: tuple[str, ...] = ()) -> list[Cell]:
    """The cells, by a function of a cell's name and of the value of `model.positions`.

    Args:
      but: values of `model.positions` that are left out.
    """
    return [make(cell_name(value), value) for value in TABLE_8_CELLS if value not in but]


def position_claims(
    none: str = cell_name("none"), one: str = cell_name("learned")
) -> tuple[Claim, ...]:
    """What the paper says of the table.

    Args:
      none, one: the names of the cells without positions and with 1-D ones at the stem.
    """
    claims = [Claim("positions make a ViT better", _SOURCE, better=one, worse=none)]
    two = cell_name("learned2d")
    for value, form in (("learned2d", "2-D"), ("relative", "relative")):
        claims += [
            Claim(f"{form} positions are better than none", _SOURCE, cell_name(value), none),
            _alike(f"1-D and {form} positions", one, cell_name(value)),
        ]
    for form, stem, value in (("1-D", one, "learned"), ("2-D", two, "learned2d")):
        for place in ("layers", "shared"):
            other = f"{value}_{place}"
            words = f"{form} positions at the stem and in {TABLE_8_CELLS[other][1]}"
            claims.append(_alike(words, stem, cell_name(other)))
    return tuple(claims)


def _alike(words: str, first: str, second: str) -> Claim:
    text = f"{words} hardly differ (by less than {100 * _HARDLY:g} point)"
    return Claim(text, _SOURCE, first, second, within=_HARDLY)


def published() -> dict[str, float]:
    """The figures of Table 8 by the names of the cells: 5-shot top-1 on ImageNet, as shares."""
    return {
        cell_name(value): TABLE_8.value((row,), column)
        for value, (row, column) in TABLE_8_CELLS.items()
    }
