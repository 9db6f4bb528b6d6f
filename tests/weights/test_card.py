"""The model card that `convert` writes for hubs: what it states, and that names stay names."""

import json
import os
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.small_models import SMALL, random_params
from vit_jax.__main__ import main
from vit_jax.plain import plain
from vit_jax.weights.files import write_weights

SCORES = {"test/top1": 0.8125, "test/loss": 0.625, "test/examples": 150.0, "val/top1": 0.75}


def _run(directory: Path, names: tuple[str, ...], **config: Any) -> Path:
    """A directory as that of a run that has ended."""
    directory.mkdir()
    (directory / "lock").touch()
    evals = {"test": {"split": "test"}, "val": {"split": "val", "dataset": "/data/others"}}
    data = {"dataset": "/home/somebody/flowers", "train": "train[:90%]"}
    config = {"data": data, "evals": evals, "init_from": "augreg/Ti_16"} | config
    (directory / "config.json").write_text(json.dumps(config))
    extra = {"step": 120, "scores": SCORES, "loss": "softmax"}
    params = random_params(SMALL)
    write_weights(directory / "weights.npz", params, SMALL, class_names=names, extra=extra)
    return directory


def _card(source: Path | str, folder: Path, layout: str = "timm", *flags: str) -> tuple[Any, str]:
    """The front matter and the text of the card."""
    target = folder / "model.safetensors"
    command = ["convert", f"--source={source}", f"--target={target}", f"--layout={layout}"]
    assert main([*command, *flags]) == 0
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


NAMES = ("daisy", "rose", "tulip", "lily", "poppy")


@pytest.mark.parametrize(("layout", "library"), [("timm", "timm"), ("huggingface", "transformers")])
def test_the_card_of_a_run(layout: str, library: str, tmp_path: Path) -> None:
    run = _run(tmp_path / "run", NAMES)
    front, text = _card(run, tmp_path / "hub", layout, "--license=cc-by-4.0")
    assert front["license"] == "cc-by-4.0" and front["library_name"] == library
    assert front["pipeline_tag"] == "image-classification"
    (model,) = front["model-index"]
    assert model["name"] == "ViT-mu/8"
    found = [(each["dataset"], each["metrics"][0]) for each in model["results"]]
    assert [(data["name"], data["split"]) for data, _ in found] == [
        ("flowers", "test"),
        ("others", "val"),
    ]
    assert [(score["type"], score["value"]) for _, score in found] == [
        ("accuracy", 0.8125),
        ("accuracy", 0.75),
    ]
    html = MarkdownIt().enable("table").render(text)
    # Where the data lay is nobody's concern.
    assert "somebody" not in html and "/data" not in html
    for words in (
        "a run of vit_jax, step 120, started from augreg/Ti_16",
        "flowers, split train[:90%]",
        "<td>test/top1</td>\n<td>0.8125</td>",
        "<td>test/examples</td>\n<td>150</td>",
        "16x16 pixels",
        "mean 0.5, 0.5, 0.5",
        "without antialiasing",
        "cc-by-4.0",
        "dosovitskiy2021image",
        *(f"<li>{name}</li>" for name in NAMES),
    ):
        assert words in html


def test_what_is_not_recorded_is_said(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.npz", random_params(SMALL), SMALL)
    front, text = _card(tmp_path / "w.npz", tmp_path / "hub")
    assert front["license"] == "unknown" and "model-index" not in front
    assert text.count("Not recorded.") == 2 and "Unknown" in text


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.items: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.add(tag)
        if tag == "li":
            self.items.append("")

    def handle_data(self, data: str) -> None:
        if self.items:
            self.items[-1] += data


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "a|b",
        "# head",
        "**b** _i_ `c`",
        "[x](http://example.org)",
        "![x](http://example.org/x.png)",
        "1. one",
        "---",
        "&lt;",
        "a\\",
        "two\nlines\n\n# more",
        "\udcff of a file system",
        "\u202eturned",
        "https://example.org",
    ],
)
def test_names_stay_names(name: str, tmp_path: Path) -> None:
    folder = f'"{name}" - x: 1'.replace("/", "_")
    run = _run(
        tmp_path / "run",
        (name, *NAMES[1:]),
        data={"dataset": f"./{folder}", "train": name},
        evals={"test": {"split": name}},
        init_from=None,
    )
    front, text = _card(run, tmp_path / "hub")
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["name"] == plain(folder)
    assert result["dataset"]["split"] == plain(name)
    tags = _Tags()
    html = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    tags.feed(html)
    assert not tags.found & {"script", "img", "a", "h3", "em", "ol"}
    assert tags.items[0].strip() == plain(name).strip()
    assert unescape(html).count("<h1>") == 1 + plain(name).count("<h1>")


def test_nothing_is_replaced_and_no_licence_is_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_weights(tmp_path / "w.npz", random_params(SMALL), SMALL)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/README.md").write_text("mine")
    for flags, words in {
        ("--target=hub/model.safetensors", "--layout=timm"): "README.md exists already",
        ("--target=w2.npz", "--layout=google", "--license=mit"): "would be ignored",
        ("--target=w3.safetensors", "--layout=timm", "--license=mit"): "would be ignored",
        ("--target=new/model.safetensors", "--layout=timm", "--license=My own"): "such as apache",
    }.items():
        target = flags[0].replace("--target=", f"--target={tmp_path}/")
        assert main(["convert", f"--source={tmp_path / 'w.npz'}", target, *flags[1:]]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert sorted(os.listdir(tmp_path)) == ["hub", "w.json", "w.npz"]
    assert os.listdir(tmp_path / "hub") == ["README.md"]
