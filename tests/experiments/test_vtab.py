"""VTAB-1k end to end, on pictures that show their label; and what its runs are made of."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.data import vtab_data
from tests.real_processes import finish, start_process, wait_for
from tests.small_models import refusal
from vit_jax.__main__ import main
from vit_jax.config import load_config
from vit_jax.data.sources import open as opening
from vit_jax.data.sources.records import Record, Source
from vit_jax.data.sources.vtab import TASKS, open_task
from vit_jax.experiments.vtab import chosen_tasks, means, published, run_tasks
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import init_params
from vit_jax.runs.directory import newest_checkpoint
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig
from vit_jax.weights.files import write_weights

MODEL = ModelConfig(
    *("ViT-mu/8", vtab_data.SIDE),
    **{"num_classes": 5, "depth": 1, "width": 64, "mlp_dim": 64, "num_heads": 2},
).completed()
# Images stay whole, since a part of a picture does not show its label.
CHANGES = [
    *("--config.model.image_size=16", "--config.model.dtype=float32", "--config.data.workers=0"),
    *("--config.data.crop=none", "--config.data.crop_side=none", "--config.data.batch_size=100"),
    *("--config.optimizer.lr=0.5", "--config.optimizer.warmup_steps=4"),
    *("--config.total_steps=60", "--config.callbacks=()"),
    *("--config.evals.shifted.split=shifted", "--config.log_every=100"),
]


class Shifted:
    """A source whose labels are one too high."""

    def __init__(self, source: Source) -> None:
        self.source, self.name = source, f"shifted {source.name}"
        self.class_names, self.max_labels = source.class_names, source.max_labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        record = self.source[index]
        assert isinstance(record.label, int)
        return record._replace(label=(record.label + 1) % len(self.class_names))

    def fingerprint(self) -> str:
        return self.name


def open_shifted(task: str, split: str, data_dir: str | None) -> Source:
    if split == "shifted":
        return Shifted(open_task(task, "test", data_dir))
    return open_task(task, split, data_dir)


@pytest.fixture(autouse=True)
def _with_shifted_labels() -> Iterator[None]:
    with mock.patch.dict(opening._openers, {"vtab": open_shifted}):
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("weights") / "weights.npz"
    write_weights(file, init_params(MODEL, 0), MODEL)
    return str(file)


def prepare(folder: Path, tasks: tuple[str, ...]) -> str:
    for dataset in {TASKS[name].dataset for name in tasks}:
        vtab_data.prepare(dataset, folder, tuple(vtab_data.SIZES))
    return str(folder)


def command(weights: str, data_dir: str, workdir: Path, *more: str) -> list[str]:
    flags = [f"--weights={weights}", f"--data_dir={data_dir}", f"--workdir={workdir}"]
    return ["vtab", *flags, *CHANGES, *more]


def scores(workdir: Path, task: str) -> dict[str, float]:
    found: dict[str, float] = json.loads((workdir / task / "weights.json").read_text())["scores"]
    return found


def test_a_task_is_learnt_and_scored_on_its_test_split(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with mock.patch.dict(vtab_data.SIZES, {"train": 800, "validation": 200, "test": 44}):
        data_dir = prepare(tmp_path / "data", ("kitti_distance",))
    argv = command(
        *(weights, data_dir, tmp_path / "runs"),
        *("--tasks=kitti_distance", "--config.total_steps=20"),
    )
    assert main(argv) == 0
    output = capsys.readouterr().out
    found = scores(tmp_path / "runs", "kitti_distance")
    assert found["test/top1"] == 1.0
    assert found["shifted/top1"] == 0.0
    assert found["test/examples"] == 44
    lines = [line.split() for line in output.splitlines()]
    # The paper's figures, by its Table 9.
    assert ["kitti_distance", "100.0", "84.5", "82.2", "79.9"] in lines
    assert ["dmlab", "-", "53.1", "49.7", "41.9"] in lines
    assert ["structured", "-", "65.0", "63.0", "57.5"] in lines
    assert (tmp_path / "runs/vtab.csv").read_text() == "kitti_distance\n100.0000\n"
    written = (tmp_path / "runs/kitti_distance/weights.npz").stat().st_mtime_ns
    assert main(argv) == 0
    again = capsys.readouterr().out
    assert "the run has ended" in again and "step 1/" not in again
    assert again.splitlines()[-25:] == output.splitlines()[-25:]
    assert (tmp_path / "runs/kitti_distance/weights.npz").stat().st_mtime_ns == written


@pytest.mark.slow
def test_all_tasks_are_learnt(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir = prepare(tmp_path / "data", tuple(TASKS))
    runs = tmp_path / "runs"
    assert main(command(weights, data_dir, runs, "--tasks=specialized,dsprites_location")) == 0
    first = {path: path.stat().st_mtime_ns for path in runs.glob("*/weights.npz")}
    assert len(first) == 5
    assert main(command(weights, data_dir, runs)) == 0
    assert {path: path.stat().st_mtime_ns for path in first} == first
    for task in TASKS:
        found = scores(runs, task)
        assert (task, found["test/top1"]) == (task, 1.0)
        assert (task, found["shifted/top1"]) == (task, 0.0)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["mean", "100.0", "77.6", "76.3", "72.7"] in lines
    heading, values = (runs / "vtab.csv").read_text().splitlines()
    assert heading.split(",") == [*TASKS, "natural", "specialized", "structured", "mean"]
    assert set(values.split(",")) == {"100.0000"}


@pytest.mark.slow
def test_a_killed_command_goes_on_in_the_task_that_it_was_at(tmp_path: Path, weights: str) -> None:
    tasks = ("eurosat", "kitti_distance")
    data_dir = prepare(tmp_path / "data", tasks)
    changes = [
        *("--config.evals.shifted=none", "--config.data.batch_size=20"),
        *("--config.total_steps=200", "--config.checkpoint.every_steps=20"),
    ]

    def start(workdir: str, *tasks: str) -> subprocess.Popen[str]:
        flags = (f"--tasks={','.join(tasks)}", *changes)
        return start_process(command(weights, data_dir, tmp_path / workdir, *flags))

    process = start("killed", *tasks)
    first, second = (tmp_path / "killed" / task for task in tasks)
    wait_for(process, lambda: newest_checkpoint(second) is not None)
    process.kill()
    process.communicate()
    assert (first / "weights.npz").exists() and not (second / "weights.npz").exists()
    (output,) = finish([start("killed", *tasks)])
    assert output.count("the run has ended") == 1 and "step 200/200" in output
    assert "step 1/200" not in output
    assert (tmp_path / "killed/vtab.csv").read_text().startswith(",".join(tasks))
    finish([start("alone", tasks[1])])
    alone = tmp_path / "alone" / tasks[1] / "weights.npz"
    assert (second / "weights.npz").read_bytes() == alone.read_bytes()


# Means of the paper's figures: Figure 2 and the last column of Table 9.
def test_means_are_those_of_the_paper() -> None:
    found = {column: means(of) for column, of in published().items()}
    rounded = {c: [round(100 * v, 2) for v in of.values()] for c, of in found.items()}
    assert rounded == {
        "jft ViT-H/14": [86.69, 87.0, 65.03, 77.63],
        "jft ViT-L/16": [85.56, 86.72, 62.96, 76.29],
        "imagenet21k ViT-L/16": [83.27, 84.65, 57.5, 72.71],
    }
    assert list(found["jft ViT-H/14"]) == ["natural", "specialized", "structured", "mean"]


def test_a_mean_needs_all_of_its_tasks() -> None:
    natural = {name: 0.5 for name, task in TASKS.items() if task.group == "natural"}
    assert means(natural) == {"natural": 0.5}
    assert means({**natural, "dmlab": 1.0}) == {"natural": 0.5}


def test_tasks_are_chosen_by_name_and_group() -> None:
    assert chosen_tasks(None) == tuple(TASKS)
    assert chosen_tasks("dmlab, specialized,pets") == (
        *("pets", "camelyon", "eurosat", "resisc45", "retinopathy", "dmlab"),
    )
    assert "no task 'natura'" in refusal(chosen_tasks, "natura")


def config(argument: str) -> TrainConfig:
    return build(TrainConfig, load_config(f"configs/vtab.py:b16,{argument},weights=w.npz", ()))


@pytest.mark.parametrize("task", TASKS)
def test_the_papers_one_setting(task: str) -> None:
    made = config(task)
    optimizer, data = made.optimizer, made.data
    assert (optimizer.name, optimizer.lr, optimizer.schedule) == ("sgd", 0.01, "cosine")
    assert (optimizer.momentum, optimizer.clip_norm, optimizer.weight_decay) == (0.9, 1.0, 0.0)
    assert (made.total_steps, data.batch_size, made.model.image_size) == (2500, 512, 384)
    assert (data.dataset, data.train) == (f"vtab:{task}", "train800val200")
    assert {name: each.split for name, each in made.evals.items()} == {"test": "test"}
    whole = ["clevr_count", "clevr_distance", "dmlab", "kitti_distance", "dsprites_location"]
    assert (data.crop, data.crop_side) == (("none", None) if task in whole else ("resize", 448))
    one_way = ["dsprites_orientation", "smallnorb_azimuth", "dsprites_location"]
    assert data.flip == (task not in one_way)


def test_the_hyperrule_for_a_thousand_examples() -> None:
    made = config("pets,recipe=hyperrule")
    optimizer = made.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.schedule) == ("sgd", 0.003, "step")
    assert (optimizer.momentum, made.total_steps, made.data.batch_size) == (0.9, 500, 512)
    assert (made.data.mixup, made.model.image_size) == (0.0, 384)


def test_a_recipe_is_chosen_on_the_held_out_part() -> None:
    made = config("pets,split=val")
    assert made.data.train == "train800"
    assert {name: each.split for name, each in made.evals.items()} == {"val": "val200"}


@pytest.mark.parametrize("argument", ["pets,recipe=bit", "pets,split=train", "pests"])
def test_mistakes_in_the_argument(argument: str) -> None:
    refusal(config, argument)


@pytest.mark.parametrize(
    "change", ["evals=none", "evals.test=none", "evals.test.kind=linear_probe", "max_minutes=60"]
)
def test_changes_that_leave_no_accuracy(change: str, tmp_path: Path, weights: str) -> None:
    changes = [f"--config.{change}"]
    text = refusal(run_tasks, weights, tmp_path / "runs", ("pets",), changes=changes)
    assert text.startswith(f"--config.{change}: ") and "leave it out" in text


def test_data_that_is_absent_is_told_before_any_run(tmp_path: Path, weights: str) -> None:
    options: dict[str, Any] = {"data_dir": str(tmp_path / "data")}
    text = refusal(run_tasks, weights, tmp_path / "runs", ("resisc45", "pets"), **options)
    assert "not prepared: resisc45 (its files must be fetched by hand), oxford_iiit_pet;" in text
    assert f"vit_jax prepare --dataset=resisc45 --data_dir={tmp_path / 'data'}" in text
    assert "docs/vtab.md" in text and "--tasks" in text
    assert not (tmp_path / "runs").exists()
