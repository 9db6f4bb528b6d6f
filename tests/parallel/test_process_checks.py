"""Processes that are not one run end with the reason, where they would diverge or wait for ever."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils
from PIL import Image

from tests.real_processes import by_flags, finish, start_on
from tests.small_models import refusal
from tests.tiny_run import COMMAND
from vit_jax.config import load_config
from vit_jax.data.sources.folder import FolderSource
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.subset import Subset
from vit_jax.parallel import agreement
from vit_jax.schema import build
from vit_jax.training import process_checks
from vit_jax.training.config import TrainConfig

RUN = [*COMMAND, "--config.data.workers=0", "--config.total_steps=4"]


def two(own: Callable[[int], list[str]], code: int) -> list[str]:
    """What two processes print, each of which is given flags of its own."""

    def launch(count: int, index: int, port: int) -> tuple[list[str], dict[str, str]]:
        flags, variables = by_flags(count, index, port)
        return [*flags, *own(index)], variables

    return finish(start_on((2, 1), RUN, launch), code)


def photos(root: Path, *names: str) -> Path:
    """A folder of two classes, each with images of these names."""
    for index, label in enumerate("ab"):
        for name in names:
            (root / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 99 * index, np.uint8)).save(root / label / name)
    return root


def test_another_config_ends_all(tmp_path: Path) -> None:
    common = [f"--workdir={tmp_path / 'run'}", f"--config.data.data_dir={tmp_path / 'data'}"]
    changed = ["--config.seed=1", "--config.total_steps=12"]
    for output in two(lambda index: common + changed * index, code=2):
        (line,) = (line for line in output.splitlines() if line.startswith("error: "))
        assert "process 1 has another config than process 0 (" in line
        assert "total_steps: 4 -> 12; seed: 0 -> 1" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_hosts_may_keep_the_same_data_elsewhere_but_not_other_data(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(40)]
    own = [photos(tmp_path / str(index), *names) for index in range(2)]

    def flags(index: int) -> list[str]:
        return [f"--workdir={tmp_path / 'run'}", f"--config.data.dataset={own[index]}"]

    two(flags, code=0)
    assert (tmp_path / "run/weights.npz").exists()

    shutil.rmtree(tmp_path / "run")
    own[1].joinpath("b/7.png").rename(own[1] / "b/other.png")
    for output in two(flags, code=2):
        assert "error: process 1 has other data than process 0 (train.records: '" in output
        assert "give all hosts the same files" in output


def test_another_directory_ends_all(tmp_path: Path) -> None:
    data = f"--config.data.data_dir={tmp_path / 'data'}"
    outputs = two(lambda index: [data, f"--workdir={tmp_path / str(index)}"], code=2)
    assert f"--workdir={tmp_path / '1'} is another directory here" in outputs[1]
    assert "process 1 cannot continue" in outputs[0]
    assert not list(tmp_path.glob("*/probe*")) and not (tmp_path / "1").exists()


def gathered(monkeypatch: pytest.MonkeyPatch, other: TrainConfig, config: TrainConfig) -> str:
    """What a check says that meets first one config and then the other, on two processes."""
    texts: list[str] = []

    def gather(text: str) -> list[str]:
        texts.append(text)
        return texts

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(agreement, "gather_texts", gather)
    process_checks.check_same_config(other)
    return refusal(process_checks.check_same_config, config)


def test_what_a_run_may_change_all_processes_change(monkeypatch: pytest.MonkeyPatch) -> None:
    config = build(TrainConfig, load_config("configs/quickstart.py"))
    here = dataclasses.replace(config.data, dataset="./photos", workers=0, data_dir="/here")
    there = dataclasses.replace(config.data, dataset="~/photos", workers=8, data_dir="/there")
    whole = dataclasses.replace(config, data=here)
    rematerialised = dataclasses.replace(
        config, data=there, model=dataclasses.replace(config.model, remat="dots")
    )
    told = gathered(monkeypatch, whole, rematerialised)
    assert told.startswith("process 1 has another config than process 0 (model.remat: ")
    assert told.count("->") == 1
    named = dataclasses.replace(config, data=dataclasses.replace(there, dataset="digits"))
    assert "data.dataset: '(a path)' -> 'digits'" in gathered(monkeypatch, whole, named)


def test_evaluations_in_another_order_are_another_config(monkeypatch: pytest.MonkeyPatch) -> None:
    values = load_config("configs/quickstart.py")
    values["evals"]["val"] = {"split": "train[:9]"}
    config = build(TrainConfig, values)
    turned = dataclasses.replace(config, evals=dict(reversed(config.evals.items())))
    assert "(in another order)" in gathered(monkeypatch, config, turned)


def test_checkpoints_that_some_processes_see(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert process_checks.read_started(tmp_path) is None
    (tmp_path / "checkpoints/7").mkdir(parents=True)
    (tmp_path / "lock").touch()
    (tmp_path / "config.json").write_text(json.dumps({"seed": 3}))
    assert process_checks.read_started(tmp_path) == {"seed": 3}
    monkeypatch.setattr(
        multihost_utils, "process_allgather", lambda here: np.array([False, here, False])
    )
    told = refusal(process_checks.read_started, tmp_path)
    assert f"--workdir={tmp_path} has checkpoints on process 1 and none on process 0, 2" in told


def test_fingerprints_are_of_names_labels_and_order(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(9)]
    here, there = (photos(tmp_path / place, *names) for place in ("here", "there"))

    def fingerprint(root: Path, split: str = "train") -> str:
        return FolderSource(str(root), split).fingerprint()

    assert fingerprint(here) == fingerprint(there) != fingerprint(here, "test")
    assert fingerprint(here, "train[1:]+train[:1]") != fingerprint(here)
    source = FolderSource(str(here), "train")
    drawn = {Subset(source, size, seed).fingerprint() for size in (2, 3) for seed in (0, 1)}
    assert len(drawn) == 4
    digits = open_source("digits", "train[:10]+test[5:]", data_dir=str(tmp_path))
    assert digits.fingerprint() == "digits/1.0.0/train[0:10]+test[5:360]"


def test_the_contents_of_a_class_map_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each host may have another file under the same path."""
    sent = []
    monkeypatch.setattr(process_checks, "check_same", lambda values, *_: sent.append(values))
    file = tmp_path / "map.txt"
    overrides = ["--config.evals.test.split=test", f"--config.evals.test.class_map={file}"]
    config = build(TrainConfig, load_config("configs/quickstart.py", overrides))
    for text in ("a -> b", "a -> b", "a -> c"):
        file.write_text(text)
        process_checks.check_same_config(config)
    file.unlink()
    process_checks.check_same_config(config)
    one, again, other, missing = sent
    assert one == again and one != other and missing not in (one, other)
