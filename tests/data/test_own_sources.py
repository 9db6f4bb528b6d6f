"""Sources of one's own, in a config file, a script or a notebook, with real data workers."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.docs.pages import blocks
from tests.small_models import refusal
from vit_jax.config import load_config
from vit_jax.data.sources import open as opening
from vit_jax.data.sources.labels import labels_at_hand, labels_of_source
from vit_jax.data.sources.open import open_source, register_source
from vit_jax.data.sources.records import Record, Source

PAGE = Path(__file__).parents[2] / "docs/data.md"
PROGRAMS = Path(__file__).parents[1] / "programs"


class Numbers:
    """Records whose label is their position."""

    class_names: tuple[str, ...] = ("a", "b")
    max_labels: int | None = None

    def __init__(self, rest: str, split: str, data_dir: str | None) -> None:
        self.name, self.opened = f"numbers:{rest}/{split}", (rest, split, data_dir)
        self.count = {"train": 10, "test": 4}[split]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        return Record(b"", index, f"{self.name}[{index}]")

    def fingerprint(self) -> str:
        return self.name


class Sets(Numbers):
    max_labels = 3


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(opening, "_openers", {})
    register_source("numbers")(Numbers)
    register_source("sets")(Sets)
    yield


def names(source: Source) -> list[str]:
    return [source[i].name for i in range(len(source))]


def test_an_opener_gets_what_follows_its_kind() -> None:
    source = open_source("numbers:a:b/c", "train", data_dir="/data")
    assert isinstance(source, Numbers)
    assert source.opened == ("a:b/c", "train", "/data")


def test_slices_and_sums_of_splits_are_made_of_whole_ones() -> None:
    source = open_source("numbers:x", "test+train[8:]+train[:20%]")
    assert source.name == "numbers:x/test+train[8:]+train[:20%]"
    train = [f"numbers:x/train[{i}]" for i in (8, 9, 0, 1)]
    assert names(source) == [*(f"numbers:x/test[{i}]" for i in range(4)), *train]
    assert (source.class_names, source.max_labels) == (("a", "b"), None)
    with pytest.raises(IndexError):
        source[8]
    prints = {
        open_source("numbers:x", split).fingerprint()
        for split in ("train[:2]", "train[2:]", "train", "test[:2]", "train[:2]+test")
    }
    assert len(prints) == 5
    assert "train[3:3] holds no record" in refusal(open_source, "numbers:x", "train[3:3]")
    assert "splits: train (10)" in refusal(open_source, "numbers:x", "train[:11]")


def test_labels_of_a_slice_need_no_other_records(monkeypatch: pytest.MonkeyPatch) -> None:
    source = pickle.loads(pickle.dumps(open_source("numbers:x", "train[8:]+test[:1]")))
    assert labels_at_hand(source) is None
    with monkeypatch.context() as patch:
        patch.setattr(Numbers, "__getitem__", lambda self, index: Record(b"", index + 100, ""))
        assert labels_of_source(source).tolist() == [108, 109, 100]
    read = mock.Mock(side_effect=AssertionError("a record was read"))
    monkeypatch.setattr(Numbers, "__getitem__", read)
    monkeypatch.setattr(Numbers, "labels", lambda self: np.arange(len(self)), raising=False)
    told = pickle.loads(pickle.dumps(open_source("numbers:x", "train[8:]+test[:1]")))
    found = labels_at_hand(told)
    assert found is not None and found.tolist() == [8, 9, 0]


def test_a_kind_that_is_registered_again_replaces_the_former() -> None:
    register_source("numbers")(Sets)
    assert isinstance(open_source("numbers:x", "train"), Sets)


@pytest.mark.parametrize("kind", ["c", "Numbers", "my-source", "a:b", "./x", ""])
def test_kinds_that_could_be_paths_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="at least two lower-case letters"):
        register_source(kind)


def test_options_that_would_be_ignored_are_refused() -> None:
    for option in ({"label": "label"}, {"test_fraction": 0.2}):
        message = refusal(open_source, "numbers:x", "train", **option)
        assert f"{next(iter(option))}=" in message and "would be ignored" in message
    assert "max_labels=5 would be ignored" in refusal(open_source, "sets:x", "train", max_labels=5)
    assert open_source("sets:x", "train", max_labels=3).max_labels == 3


def test_what_a_source_lacks_is_named() -> None:
    @register_source("lists")
    def open_list(rest: str, split: str, data_dir: str | None) -> Source:
        return [Record(b"", 0, rest)]  # type: ignore[return-value]

    assert "list has no 'name'" in refusal(open_source, "lists:x", "train")


@pytest.mark.parametrize("dataset", ["mnist:3.0.1", "imagenet_v2/matched-frequency:3.0.0"])
def test_versions_of_tfds_are_no_kinds(dataset: str, tmp_path: Path) -> None:
    message = refusal(open_source, dataset, "test", data_dir=str(tmp_path))
    assert f"data set {dataset!r} is not prepared" in message


@pytest.mark.parametrize("dataset", [r"C:\photos", "C:/photos"])
def test_paths_of_windows_are_no_kinds(dataset: str, tmp_path: Path) -> None:
    assert dataset in refusal(open_source, dataset, "train", data_dir=str(tmp_path))


def test_an_unknown_kind_is_answered_with_how_to_register_it(tmp_path: Path) -> None:
    message = refusal(open_source, "numbres:12", "train", data_dir=str(tmp_path))
    assert "'numbres:12'" in message and "did you mean 'numbers'" in message


def test_the_pages_source_opens_as_the_page_says(tmp_path: Path) -> None:
    (block,) = blocks(PAGE.read_text(), "python")
    exec(compile(block, PAGE, "exec"), {"__name__": "page"})
    (tmp_path / "train").mkdir()
    for name in ("1-good", "2-bad", "3-good"):
        (tmp_path / f"train/{name}.jpg").write_bytes(name.encode())
    source = open_source(f"rated:{tmp_path}", "train[1:]")
    assert [source[i][:2] for i in range(len(source))] == [(b"2-bad", 0), (b"3-good", 1)]


def _run(arguments: list[str], directory: Path, program: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        input=program,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_script_without_a_guard_trains_on_a_source_of_its_config_and_resumes(
    tmp_path: Path,
) -> None:
    """With data workers, which cannot import the config file, and whose main is not the script."""
    config, run = PROGRAMS / "own_source.py", tmp_path / "run"
    command = [str(PROGRAMS / "without_guard.py"), str(config), str(run)]
    _run(command, tmp_path)
    with np.load(run / "weights.npz") as file:
        weights = {name: file[name] for name in file.files}
    assert sorted(each.name for each in (run / "checkpoints").iterdir()) == ["2", "4"]
    for lost in (run / "checkpoints" / "4", run / "weights.npz"):
        lost.rename(tmp_path / f"lost-{lost.name}")
    output = _run(command, tmp_path)
    assert "step 4" in output
    with np.load(run / "weights.npz") as file:
        assert {*file.files} == {*weights}
        for name in file.files:
            np.testing.assert_array_equal(file[name], weights[name])
    assert (tmp_path / "run.runs").read_text() == "run\n" * 2


def test_the_config_of_the_program_opens_its_source() -> None:
    values = load_config(str(PROGRAMS / "own_source.py"))
    source = open_source(values["data"]["dataset"], values["data"]["train"])
    assert (len(source), source.class_names) == (18, ("left", "right"))
    message = refusal(open_source, values["data"]["dataset"], "val")
    assert message == "squares have no split 'val', only train, test"


def test_code_from_standard_input_runs_once_and_its_classes_reach_workers(tmp_path: Path) -> None:
    program = (PROGRAMS / "own_class.py").read_text()
    assert _run(["-"], tmp_path, program) == "[[0, 1, 0, 1], [0, 1, -1, -1]]\n"


def test_code_that_a_notebook_executes_runs_once(tmp_path: Path) -> None:
    """A kernel's main module is a file of its own, and cells are executed in its namespace."""
    cell = repr((PROGRAMS / "own_class.py").read_text())
    (tmp_path / "kernel.py").write_text(f"print('kernel')\nexec({cell}, globals())\n")
    output = _run(["kernel.py"], tmp_path)
    assert output == "kernel\n[[0, 1, 0, 1], [0, 1, -1, -1]]\n"
