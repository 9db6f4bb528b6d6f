"""Names as terminals and spreadsheets may see them."""

import csv
import io
import logging

import pytest

from vit_jax.commands.output import PlainFormatter
from vit_jax.plain import cell, plain, plain_lines

ESCAPE, RIGHT_TO_LEFT = "\x1b[2J", "\u202ecod.gnp"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Löwe 獅子 🦁 ست\u200cآ", "Löwe 獅子 🦁 ست\u200cآ"),
        (f"a{ESCAPE}b", "a\\u001b[2Jb"),
        (f"a{RIGHT_TO_LEFT}", "a\\u202ecod.gnp"),
        ("a\nb\rc\td\x00\x7f\x9b", "a\\u000ab\\u000dc\\u0009d\\u0000\\u007f\\u009b"),
        ("a\\u202eb", "a\\\\u202eb"),
        (
            "\u2066\u2069\u061c\u200e\ufeff\u200b\u2028",
            "\\u2066\\u2069\\u061c\\u200e\\ufeff\\u200b\\u2028",
        ),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_has_effects_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert plain_lines(f"{text}\n{text}".replace("\n", "")) == plain(
        f"{text}{text}".replace("\n", "")
    )


def test_different_names_stay_different() -> None:
    names = ["\u202e", "\\u202e", "\\\\u202e", "\n", "\\n", "n"]
    assert len(set(map(plain, names))) == len(names)


@pytest.mark.parametrize(
    "formula",
    ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\uff1d1", " =1", "\u202e=1", "\t=1"],
)
def test_formulas_are_text(formula: str) -> None:
    file = io.StringIO()
    csv.writer(file).writerow([cell(formula), "x"])
    ((first, _),) = csv.reader(io.StringIO(file.getvalue()))
    assert first[0] in "'\\"
    assert cell("a=1") == "a=1" and cell("") == ""


def test_log_lines_of_ours_are_one() -> None:
    def shown(name: str) -> str:
        record = logging.LogRecord(name, 20, "", 1, "skipped %s\nend", (ESCAPE,), None)
        return PlainFormatter().format(record)

    assert shown("vit_jax.data") == "skipped \\u001b[2J\\u000aend"
    assert shown("jax") == "skipped \\u001b[2J\nend"
