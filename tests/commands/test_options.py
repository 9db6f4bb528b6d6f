"""The keys of a config, as the command `options` lists them."""

import dataclasses
from typing import Any, Literal

import pytest

from vit_jax.__main__ import main
from vit_jax.options import Option, list_sections


@dataclasses.dataclass(frozen=True)
class Inner:
    """What is inside."""

    crop: Literal["none", "square"] = "none"
    """How to crop.

    A second paragraph."""
    size: int | tuple[int, int] = (8, 12)
    flip: bool = True
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outer:
    share: float
    """From 0 to 1."""
    inner: Inner | None = None
    more: dict[str, Inner] = dataclasses.field(default_factory=dict)


def test_options_are_read_from_the_dataclasses() -> None:
    outer, inner, more = list_sections(Outer)
    assert (outer.name, outer.kind, outer.description) == ("config", None, "")
    assert outer.options == (Option("share", "number", "required", "From 0 to 1."),)
    assert inner.name == "config.inner" and inner.description == "What is inside."
    assert inner.options == (
        Option("crop", "one of 'none', 'square'", "none", "How to crop.\n\nA second paragraph."),
        Option("size", "integer or HEIGHTxWIDTH", "8x12", ""),
        Option("flip", "true or false", "true", ""),
        Option("names", "any number of texts", "()", ""),
    )
    assert more == inner._replace(name="config.more.NAME")


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["options", *arguments]) == 0
    return capsys.readouterr().out


def test_one_section_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    data = output(capsys, "data")
    assert data.startswith("config.data\n") and "config.data.randaugment" in data
    assert "batch_size: integer [512]" in data
    assert output(capsys, "config.data") == data
    assert data.strip() in output(capsys)
    assert "config.evals.NAME with kind=classification" in output(capsys, "evals")


def test_markdown_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "optimizer", "--format=markdown")
    assert text.startswith("### `config.optimizer`\n")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = {len(row.replace("\\|", "").split("|")) for row in rows}
    assert "| key | type | default | meaning |" in rows and cells == {6}


@pytest.mark.parametrize(
    ("name", "message"), [("dta", "did you mean 'data'?"), ("zzz", "known: model, model.pre")]
)
def test_an_unknown_section(name: str, message: str, capsys: pytest.CaptureFixture[Any]) -> None:
    assert main(["options", name]) == 2
    assert message in capsys.readouterr().err
