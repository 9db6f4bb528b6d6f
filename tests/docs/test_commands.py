"""The commands of every page: they parse, their flags exist, and their configs build."""

import argparse
import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import CONFIGS, PAGES, ROOT, Command, commands, name, scripts
from vit_jax.config import load_config
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.training.open_keys import AUTO

ALL = [command for page in [*PAGES, *CONFIGS] for command in commands(page)]
# What a line of options alone is added to.
BASE = "configs/pretrain.py:ti16,./photos"


def of(*programs: str) -> list[Command]:
    return [command for command in ALL if command.program in programs]


def closed(values: dict[str, Any]) -> dict[str, Any]:
    """A config without what its run would choose from data and weights, which are missing here."""
    kept = {
        key: closed(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value != AUTO or key == "split"
    }
    return kept | ({"total_steps": 1} if values.get("total_steps") == AUTO else {})


@pytest.mark.parametrize("command", of("vit_jax"), ids=str)
def test_commands_and_flags_exist(command: Command) -> None:
    kind, *arguments = command.words
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    module = importlib.import_module(f"vit_jax.commands.{kind}")
    module.add_arguments(parser)
    parsed, overrides = parser.parse_known_args(arguments)
    assert all(
        override.startswith(getattr(module, "OVERRIDES", "--config.")) for override in overrides
    )
    config = getattr(parsed, "config", None)
    if config is not None:
        changes = [each for each in overrides if each.startswith("--config.")]
        build(TrainConfig, closed(load_config(config, changes)))
    if kind == "train":
        given = (parsed.coordinator_address, parsed.num_processes, parsed.process_id)
        assert given.count(None) in (0, 3)
        assert not (parsed.distributed and any(given))


@pytest.mark.parametrize("command", of("options"), ids=str)
def test_options_exist_and_hold_by_themselves(command: Command) -> None:
    build(TrainConfig, load_config(BASE, command.words))


@pytest.mark.parametrize(
    "command", [command for command in ALL if command not in of("vit_jax", "options")], ids=str
)
def test_benchmarks_exist_with_their_flags(command: Command) -> None:
    module = ROOT / command.program.replace(".", "/")
    file = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
    text = file.read_text()
    for word in command.words:
        if word.startswith("--"):
            flag = word.partition("=")[0]
            assert f'"{flag}"' in text


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_scripts_parse(page: Path) -> None:
    for script in scripts(page):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_targets_extras_and_examples_exist(page: Path) -> None:
    targets = (ROOT / "Makefile").read_text().split(".PHONY:", 1)[1].split("\n", 1)[0].split()
    extras = re.findall(r'^        "([\w-]+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE)
    for script in scripts(page):
        for target in re.findall(r"^ *make (\S+)", script, re.MULTILINE):
            assert target in targets
        for names in re.findall(r"\.\[([\w,-]+)\]", script):
            assert set(names.split(",")) <= set(extras)
        for file in re.findall(r"python (\S+\.py)\b", script):
            assert (ROOT / file).exists()


PLACES = (ROOT / "docs/distributed.md").read_text().split("\n## ")[3:]


@pytest.mark.parametrize("place", PLACES, ids=[place.split("\n", 1)[0] for place in PLACES])
def test_every_place_to_launch_from_has_its_command(place: str) -> None:
    assert re.search(r"-m vit_jax|\bIMAGE\b", place) and "--config=configs/" in place


def test_every_page_is_read() -> None:
    assert {command.page for command in ALL} >= {
        *("README.md", "docs/use-weights.md", "docs/train.md", "docs/distributed.md"),
        *("docs/data.md", "docs/augmentation.md", "docs/recipes.md", "docs/evaluate.md"),
        *("configs/pretrain.py", "configs/finetune.py", "benchmarks/results/kills.md"),
    }
