"""Writes docs/options.md from the config dataclasses: python -m tests.docs.options_page."""

import subprocess
import sys

from tests.docs.pages import ROOT

PAGE = ROOT / "docs/options.md"
HEAD = """# Options

Every key of a config, with its type, default and meaning. `--config.SECTION.KEY=VALUE` sets one on
the command line, and `python -m vit_jax options SECTION` prints one section. This page is made from
the dataclasses by `python -m tests.docs.options_page`.

"""


def text() -> str:
    """The page as it should be, by a process of its own: tests register kinds in theirs."""
    command = [sys.executable, "-m", "vit_jax", "options", "--format=markdown"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return HEAD + run.stdout


if __name__ == "__main__":
    PAGE.write_text(text())
