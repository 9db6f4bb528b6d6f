"""The report of a run: its numbers are those of the run's files, and names are only text."""

import importlib.util
import json
import re
import shutil
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.small_models import refusal
from vit_jax.__main__ import main
from vit_jax.experiments.report import during
from vit_jax.experiments.report.during import RunReport
from vit_jax.experiments.report.page import write_report
from vit_jax.experiments.report.record import read_run
from vit_jax.runs.config_file import read_config

# Names that a page must not take for markup, or a figure for mathematics.
CLASSES = ("<script>alert(1)<\u2044script>", "$x_y$ & co")


class Page(HTMLParser):
    """The tags of a page, its texts, and the cells of its tables by class."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] | None = None
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        given = dict(attrs)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag == "table":
            self._rows = self.tables.setdefault(given.get("class") or given["id"] or "", [])
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows:
            self._rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += data.strip()

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._rows = None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a folder of two classes; one of its test images is broken."""
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 5)):
        for label, name in enumerate(CLASSES):
            folder = root / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(count + label):
                pixels = rng.integers(0, 256, (10, 12 + label, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"<b>{index}.png")
    (folder / "<b>0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    flags = {
        "model.depth": 1,
        "data.dataset": root / "data",
        "data.batch_size": 4,
        "data.on_error": "skip",
        "data.data_dir": "none",
        "total_steps": 4,
        "optimizer.warmup_steps": 1,
        "log_every": 1,
        "evals.test.every_steps": 2,
    }
    command = ["train", "--report=on", "--config=configs/quickstart.py"]
    command.append(f"--workdir={root / 'run'}")
    assert main([*command, *(f"--config.{key}={value}" for key, value in flags.items())]) == 0
    return root / "run"


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    """What `train` itself has written."""
    return Page(run / "report.html")


def test_the_command_writes_what_train_wrote(run: Path, page: Page, tmp_path: Path) -> None:
    output = tmp_path / "again.html"
    assert main(["report", str(run), f"--output={output}"]) == 0
    assert Page(output).tables == page.tables


def test_during_training_a_page_is_written_after_evaluations(run: Path, tmp_path: Path) -> None:
    training = tmp_path / "run"
    shutil.copytree(run, training, ignore=shutil.ignore_patterns("weights.*", "report.html"))
    report = RunReport(training)
    report.scalars(1, {"train/loss": 2.0})
    assert not (training / "report.html").exists()
    report.scalars(2, {"test/top1": 0.5})
    first = (training / "report.html").stat().st_mtime_ns
    assert any("has not ended" in text for text in Page(training / "report.html").texts)
    report.scalars(4, {"test/top1": 0.5})  # Too soon: drawing would take much of the time.
    assert (training / "report.html").stat().st_mtime_ns == first


def test_images_that_take_too_long_to_score_are_left_out(run: Path, tmp_path: Path) -> None:
    write_report([run], tmp_path / "page.html", seconds=0)
    page = Page(tmp_path / "page.html")
    assert "classes" not in page.tables
    assert any(f"vit_jax report {run}" in text for text in page.texts)


def test_the_last_page_is_written_in_time(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page takes 4 s, and what its images need beside their scores 15 s."""
    now, given = [1000.0], []

    def write(runs: list[Path], output: Path, *, seconds: float) -> None:
        given.append(seconds)
        now[0] += 4

    monkeypatch.setattr(during, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(during, "write_report", write)
    report = RunReport(run)
    report._file = tmp_path / "page.html"
    report.scalars(1, {"test/top1": 0.5})
    assert report.seconds_later(10.0) == 4 + 15 + 10
    report.finish()
    for left, seconds in ((100.0, 60.0), (29.0, 10.0), (19.0, 0.0), (5.0, 0.0)):
        report.ends_at(now[0] + left)
        report.finish()
        assert given[-1] == seconds
    assert given[:2] == [0, 60.0]


def test_a_start_tells_its_end(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    report = RunReport(tmp_path / "run")
    monkeypatch.setattr(report, "ends_at", told.append)
    began = time.monotonic()
    vit_jax.train(read_config(run), tmp_path / "run", [report], max_minutes=10)
    assert told == [pytest.approx(began + 600, abs=60)]


def test_training_without_the_extra_says_how_to_make_the_report_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    flags = ["--report=on", "--config=configs/quickstart.py", "--config.data.dataset=missing/"]
    assert main(["train", *flags, f"--workdir={tmp_path / 'run'}"]) == 2
    assert "pip install 'vit_jax[plots]'" in caplog.text
    assert f"vit_jax report {tmp_path / 'run'}" in caplog.text


def test_scores_are_those_of_the_metrics(run: Path, page: Page) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = {k: v for line in lines for k, v in line.items() if k.startswith("test/")}
    shown = {name: float(value) for name, value in page.tables["scores"]}
    assert shown == pytest.approx(last, rel=1e-5)
    assert shown["test/examples"] == 10  # 5 and 6, and one of them is broken.


def test_classes_add_up_to_the_accuracy(run: Path, page: Page) -> None:
    heading, *rows = page.tables["classes"]
    assert heading == ["class", "precision", "recall", "F1", "images"]
    assert {row[0] for row in rows} == set(CLASSES)
    right = sum(float(row[2]) * int(row[4]) for row in rows)
    assert sum(int(row[4]) for row in rows) == 10
    assert right / 10 == pytest.approx(read_run(run).scores["test/top1"], abs=1e-3)


def test_data_is_counted(page: Page) -> None:
    counts = {name: numbers for name, *numbers in page.tables["counts"][1:]}
    assert counts == {CLASSES[0]: ["6", "5"], CLASSES[1]: ["7", "6"]}
    (train, test) = page.tables["data"][1:]
    assert (train[1], train[3]) == ("13", "0")
    assert (test[1], test[3]) == ("11", "1")
    assert "10x12 (6)" in train[2] and "10x13 (7)" in train[2]


def test_names_are_text_and_nothing_comes_from_elsewhere(page: Page) -> None:
    wrong = sum("taken for" in text for text in page.texts)
    right = page.tags["figcaption"] - wrong
    assert page.tags["script"] == 0
    assert page.tags["b"] == 2 * wrong + right  # The page's own; files are named <b>0.png.
    assert any("<b>" in text for text in page.texts)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)


def test_images_come_with_attention(page: Page) -> None:
    assert page.tags["figcaption"] == 10  # All that can be read.
    assert page.tags["img"] == 2 * 10
    assert page.tags["svg"] >= 6  # Loss, rate, speed, top-1, calibration, confusion, ...


def test_config_versions_and_commands(run: Path, page: Page) -> None:
    assert ["optimizer.warmup_steps", "1"] in page.tables["config"]
    assert ["packages.jax", jax.__version__] in page.tables["versions"]
    assert any(f"vit_jax evaluate --weights={run}" in text for text in page.texts)


def test_a_run_that_has_not_ended(run: Path, tmp_path: Path) -> None:
    """It has curves and scores so far; what is missing is stated."""
    unfinished = tmp_path / "run"
    shutil.copytree(run, unfinished, ignore=shutil.ignore_patterns("weights.*", "report.html"))
    assert main(["report", str(unfinished)]) == 0
    page = Page(unfinished / "report.html")
    assert "classes" not in page.tables
    assert any("has not ended" in text for text in page.texts)
    assert dict(page.tables["scores"])["test/top1"]


def test_runs_side_by_side(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    assert main(["report", str(run), str(other), f"--output={tmp_path / 'both.html'}"]) == 0
    page = Page(tmp_path / "both.html")
    heading, *rows = page.tables["compared"]
    assert heading == ["score", "run", "other"]
    assert all(row[1] == row[2] != "" for row in rows)


def test_mistakes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not the directory of a run" in refusal(read_run, tmp_path)
    assert main(["report", str(run), str(run)]) == 2
    assert "--output=FILE.html" in capsys.readouterr().err
    assert "choose another file" in refusal(write_report, [run], tmp_path)


def test_data_that_has_moved_is_stated(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    config = json.loads((moved / "config.json").read_text())
    config["data"]["dataset"] = str(tmp_path / "missing")
    (moved / "config.json").write_text(json.dumps(config))
    assert main(["report", str(moved)]) == 0
    page = Page(moved / "report.html")
    missing = [text for text in page.texts if re.search("data set folder .* does not exist", text)]
    assert len(missing) == 2


def test_the_cost_stands_on_the_page_and_in_the_table_of_several(
    run: Path, page: Page, tmp_path: Path
) -> None:
    cost = json.loads((run / "cost.json").read_text())
    assert any(f"{cost['images']:,} images" in text for text in page.texts)
    other = tmp_path / "older"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("cost.json"))
    write_report([run, other], tmp_path / "both.html", seconds=0)
    rows = {row[0]: row[1:] for row in Page(tmp_path / "both.html").tables["compared"]}
    assert rows["cost/images"] == [f"{cost['images']}", ""]
    assert rows["cost/exaflops"] == [f"{cost['exaflops']:.6g}", ""]
