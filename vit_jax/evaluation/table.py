"""Scores of several models and evaluations, as a table and as files."""

import csv
import io
import json
from collections.abc import Sequence
from typing import NamedTuple

from vit_jax.evaluation.evaluator import Scores
from vit_jax.plain import cell, plain


class Row(NamedTuple):
    """The scores of one evaluation of one weight file.

    Attributes:
      weights: as the user named them.
      evaluation: its name.
      data: the names of its sources.
      image_size: height and width of the images in pixels.
    """

    weights: str
    evaluation: str
    data: str
    scores: Scores
    image_size: tuple[int, int]


def as_text(rows: Sequence[Row]) -> str:
    """Lines for a person, with a column for each score that a row has.

    Scores of single classes (`recall/NAME`) are in the evaluation's own lines and in files.
    """
    names = [name for name in _score_names(rows) if "/" not in name]
    cells = [["weights", "evaluation", "data", *map(plain, names)]]
    for row in rows:
        scores = [as_number(row.scores.values.get(name)) for name in names]
        cells.append([plain(row.weights), plain(row.evaluation), plain(row.data), *scores])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        padded = [
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def as_json(rows: Sequence[Row]) -> str:
    """A list of objects: `weights`, `evaluation`, `data`, `scores` by name, `image_size`, `text`.

    The size is [height, width] in pixels.
    """
    values = [
        {
            "weights": row.weights,
            "evaluation": row.evaluation,
            "data": row.data,
            "scores": row.scores.values,
            "image_size": row.image_size,
            "text": row.scores.line,
        }
        for row in rows
    ]
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """A line for each row, after a heading, with a column for each score that a row has."""
    names = _score_names(rows)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["weights", "evaluation", "data", *map(cell, names)])
    for row in rows:
        scores = [row.scores.values.get(name, "") for name in names]
        writer.writerow([cell(row.weights), cell(row.evaluation), cell(row.data), *scores])
    return file.getvalue()


def _score_names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.scores.values))


def as_number(value: float | None) -> str:
    """Counts as integers, all else with four decimals."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value.is_integer() and abs(value) > 1 else f"{value:.4f}"
