"""A table to read: as text, Markdown, CSV or JSON."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vit_jax.plain import cell, plain


@dataclass(frozen=True)
class Page:
    """A table in words.

    Attributes:
      source: where its figures are published.
      title: what they are.
      heading: names of the columns.
      rows: texts, one for each column.
      notes: lines below it.
      records: what CSV and JSON hold, an object for each figure; None takes the rows.
      left: number of columns that are text and begin at the left.
    """

    source: str
    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    records: tuple[Mapping[str, object], ...] | None = None
    left: int = 1


def as_text(page: Page) -> str:
    """Lines for a terminal."""
    cells = [list(map(plain, line)) for line in (page.heading, *page.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.ljust(width) if column < page.left else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([*_head(page), "", *lines, *_notes(page, "")])


def as_markdown(page: Page) -> str:
    """A table of GitHub's Markdown, with source, title and notes."""
    ruler = ["---" if column < page.left else "---:" for column in range(len(page.heading))]
    lines = [
        f"| {' | '.join(plain(text).replace('|', '&#124;') for text in line)} |"
        for line in (page.heading, ruler, *page.rows)
    ]
    return "\n".join([*_head(page), "", *lines, *_notes(page, "- ")]) + "\n"


def as_csv(page: Page) -> str:
    """A line for each record, after a heading."""
    records = _records(page)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([cell(name) for name in records[0]])
    for record in records:
        writer.writerow([cell(v) if isinstance(v, str) else v for v in record.values()])
    return file.getvalue()


def as_json(page: Page) -> str:
    """An object: source, title, notes, and the records as a list of objects."""
    value = {
        "source": page.source,
        "title": page.title,
        "rows": _records(page),
        "notes": page.notes,
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


# By the ending of a file's name.
FORMS: Mapping[str, Callable[[Page], str]] = {
    ".md": as_markdown,
    ".csv": as_csv,
    ".json": as_json,
}


def _head(page: Page) -> list[str]:
    return [plain(page.source), plain(page.title)]


def _notes(page: Page, mark: str) -> list[str]:
    return ["", *(f"{mark}{plain(note)}" for note in page.notes)] if page.notes else []


def _records(page: Page) -> Sequence[Mapping[str, object]]:
    if page.records is not None:
        return page.records
    return [dict(zip(page.heading, row, strict=True)) for row in page.rows]
