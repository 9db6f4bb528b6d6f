"""Reads the pages that users read: their code blocks, and the commands in them."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks/results").glob("*.md"),
    ]
)
# Config files whose docstrings begin with the commands to type.
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")


class Command(NamedTuple):
    """One command line of a page: the program, its words, and whether they are options alone."""

    page: str
    program: str
    words: list[str]

    def __str__(self) -> str:
        return " ".join([self.page, self.program, *self.words])


def name(page: Path) -> str:
    """The path of a page in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def scripts(page: Path) -> list[str]:
    """Shell scripts: the `bash` blocks of a page, or the indented lines of a config's header."""
    text = page.read_text()
    if page.suffix != ".py":
        return blocks(text, "bash")
    header = ast.get_docstring(ast.parse(text)) or ""
    indented = re.findall(r"(?:^ {4}.*\n?)+", header, re.MULTILINE)
    return [block for block in indented if "python -m" in block]


def commands(page: Path) -> Iterator[Command]:
    """Every command of this package in a page: in scripts and in the containers of manifests."""
    for script in scripts(page):
        for program, words in _of_script(script):
            yield Command(name(page), program, words)
    for manifest in blocks(page.read_text(), "yaml"):
        for line in containers(list(yaml.safe_load_all(manifest))):
            yield Command(name(page), "vit_jax", line)


def _of_script(script: str) -> Iterator[tuple[str, list[str]]]:
    """Programs and words, with variables of the script replaced by their first values."""
    joined = script.replace("\\\n", " ")
    values = dict(re.findall(r"^ *(\w+)=(\S+)$", joined, re.MULTILINE))
    values |= dict(re.findall(r"\bfor (\w+) in (\S+)", joined))

    def value(match: re.Match[str]) -> str:
        # A variable of the environment, such as a process's number, is a number.
        return values.get(match[1], "1")

    for line in joined.splitlines():
        # In a quoted script that is handed on, the last line ends with the quote.
        text = re.sub(r"'$", "", re.split(r" [#>] |  #|; do\b|; done", line)[0].rstrip())
        text = re.sub(r"\$\{?(\w+)\}?", value, text)
        if found := re.search(r"python -m (vit_jax|benchmarks\.\w+)(?: (.*))?$", text):
            yield found[1], shlex.split(found[2] or "")
        elif found := re.search(r"\bIMAGE +(\w.*)$", text):
            yield "vit_jax", shlex.split(found[1])
        elif text.lstrip().startswith("--config."):
            yield "options", shlex.split(text)


def containers(manifest: Any) -> Iterator[list[str]]:
    """What the containers of a Kubernetes manifest give to the image's command, `vit_jax`."""
    if isinstance(manifest, dict):
        if "args" in manifest:
            yield manifest["args"]
        for value in manifest.values():
            yield from containers(value)
    elif isinstance(manifest, list):
        for value in manifest:
            yield from containers(value)
