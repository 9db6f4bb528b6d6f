"""`options`: the keys of a config with their types, defaults and meaning."""

import argparse
import textwrap
from collections.abc import Iterator

from vit_jax.errors import UserError
from vit_jax.options import Section, list_sections
from vit_jax.spelling import nearest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "section",
        nargs="?",
        metavar="SECTION",
        help="a section such as data or data.randaugment; default: all of them",
    )
    parser.add_argument(
        "--format", choices=("text", "markdown"), default="text", help="default: text"
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    from vit_jax.training.config import TrainConfig

    del overrides  # It has no --config, so there are none.
    sections = list(list_sections(TrainConfig))
    if arguments.section is not None:
        sections = _chosen(sections, arguments.section)
    write = _markdown if arguments.format == "markdown" else _text
    print("\n\n".join("\n".join(write(section)) for section in sections))


def _chosen(sections: list[Section], name: str) -> list[Section]:
    """A section, and those in it."""
    name = f"config.{name.removeprefix('config').removeprefix('.')}".rstrip(".")
    chosen = [each for each in sections if f"{each.name}.".startswith(f"{name}.")]
    if not chosen:
        known = dict.fromkeys(each.name.removeprefix("config.") for each in sections[1:])
        raise UserError(f"no section {name!r}{nearest(name.removeprefix('config.'), known)}")
    return chosen


def _title(section: Section) -> str:
    return section.name if section.kind is None else f"{section.name} with kind={section.kind}"


def _text(section: Section) -> Iterator[str]:
    yield _title(section)
    yield from textwrap.wrap(
        _paragraphs(section.description, " "), 96, initial_indent="  ", subsequent_indent="  "
    )
    for option in section.options:
        default = f" [{option.default}]" if option.default else ""
        yield f"\n  {option.key}: {option.type}{default}"
        words = _paragraphs(option.description, " ")
        yield from textwrap.wrap(words, 96, initial_indent="      ", subsequent_indent="      ")


def _markdown(section: Section) -> Iterator[str]:
    yield f"### `{_title(section)}`\n"
    if section.description:
        yield f"{section.description}\n"
    if section.options:
        yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
    for option in section.options:
        default = f"`{option.default}`" if option.default else ""
        cells = (f"`{option.key}`", option.type, default, _paragraphs(option.description, "<br>"))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _paragraphs(text: str, separator: str) -> str:
    """A text with each paragraph on one line, and the paragraphs on one line too."""
    return separator.join(" ".join(part.split()) for part in text.split("\n\n"))
