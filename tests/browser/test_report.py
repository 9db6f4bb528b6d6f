"""The report as a reader sees it: in Chromium, at the widths of a phone and of a desktop.

`make browser` runs this. It leaves a screenshot for each width in the folder `screenshots`. With
RUN=DIR it looks at the report of that run instead of at one of a small run of its own.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from vit_jax.__main__ import main

SCREENSHOTS = Path("screenshots")
# Elements that reach over the right edge of the window, by tag and class.
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
    .filter(each => each.getBoundingClientRect().right > window.innerWidth + 1)
    .map(each => `${each.tagName}.${each.getAttribute("class")}`)"""
# The cells of a table's rows, as text.
ROWS = """rows => rows.map(row => [...row.children].map(cell => cell.innerText.trim()))"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with a report."""
    if os.environ.get("RUN"):
        return Path(os.environ["RUN"]).absolute()
    root = tmp_path_factory.mktemp("browser")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 8)):
        for label in range(3):
            # A long name without a place to break, and one that looks like markup.
            folder = root / "data" / split / ("<i>a</i\u2044>", "b" * 60, "a common name")[label]
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 160, (48, 40 + label, 3), np.uint8)
                pixels[..., label] += 80
                Image.fromarray(pixels).save(folder / f"{'photograph' * 5}{index}.png")
    flags = {
        "model.depth": 2,
        "model.image_size": 16,
        "data.dataset": root / "data",
        "data.batch_size": 12,
        "data.data_dir": "none",
        "total_steps": 40,
        "optimizer.warmup_steps": 4,
        "log_every": 2,
        "evals.test.every_steps": 10,
    }
    command = ["train", "--report=on", "--config=configs/quickstart.py"]
    command.append(f"--workdir={root / 'run'}")
    assert main([*command, *(f"--config.{key}={value}" for key, value in flags.items())]) == 0
    return root / "run"


@pytest.fixture(scope="module", params=[1280, 390])
def page(run: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Page, list[str]]]:
    """The report at one width, and what the browser complained of."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.fail("Chromium is missing: apt install chromium")
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": request.param, "height": 900})
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("request", lambda asked: _note_if_remote(asked.url, complaints))
        opened.goto((run / "report.html").as_uri())
        SCREENSHOTS.mkdir(exist_ok=True)
        opened.screenshot(path=SCREENSHOTS / f"report-{request.param}.png", full_page=True)
        yield opened, complaints
        browser.close()


def _note_if_remote(address: str, complaints: list[str]) -> None:
    if not address.startswith(("file:", "data:")):
        complaints.append(f"asked for {address}")


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def rows(page: Page, table: str) -> list[list[str]]:
    found: list[list[str]] = page.eval_on_selector_all(f"table.{table} tr", ROWS)
    return found


def test_nothing_is_wider_than_the_window_and_nothing_fails(page: tuple[Page, list[str]]) -> None:
    opened, complaints = page
    assert opened.evaluate(TOO_WIDE) == []
    width = opened.evaluate("document.documentElement.scrollWidth")
    assert width <= opened.evaluate("window.innerWidth")
    assert complaints == []


def test_the_scores_are_those_of_the_metrics(run: Path, page: tuple[Page, list[str]]) -> None:
    shown = {name: float(value) for name, value in rows(page[0], "scores")}
    last: dict[str, float] = {}
    for line in metrics(run):
        last |= line
    assert shown
    assert shown == pytest.approx({name: last[name] for name in shown}, rel=1e-5)


def test_the_classes_and_the_confusion_add_up_to_the_scores(
    run: Path, page: tuple[Page, list[str]]
) -> None:
    (name, examples) = next(
        (key.partition("/")[0], int(float(value)))
        for key, value in rows(page[0], "scores")
        if key.endswith("/examples")
    )
    shown = {key: float(value) for key, value in rows(page[0], "scores")}
    classes = rows(page[0], "classes")[1:]
    assert sum(int(row[4]) for row in classes) == examples
    right = sum(float(row[2]) * int(row[4]) for row in classes)
    assert right / examples == pytest.approx(shown[f"{name}/top1"], abs=1e-3)
    assert f"{100 * shown[f'{name}/top1']:.2f} %" in page[0].inner_text("p.interval")


def test_every_figure_of_training_is_drawn(run: Path, page: tuple[Page, list[str]]) -> None:
    text = page[0].inner_text("body")
    named = {key for line in metrics(run) for key in line}
    assert page[0].locator(".figures svg").count() >= 6
    drawn = page[0].eval_on_selector_all(".figures svg", "all => all.map(e => e.innerHTML)")
    assert all("<path" in each for each in drawn)
    assert {"train/loss", "train/lr", "time/images_per_second", "memory/host_gib"} <= named
    for heading in ("Scores", "Training", "Classes", "Most wrong", "Data", "Commands", "Config"):
        assert heading in text
