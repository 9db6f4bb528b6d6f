import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_jax.data.sources.open import is_folder, open_source
from vit_jax.data.sources.splits import SplitRange, locate, split_ranges
from vit_jax.errors import UserError

LENGTHS = {"train": [1000, 437], "test": [360]}
TRAIN = 1437
IMAGE = b"not decoded by any source"


def ranges(spec: str) -> list[tuple[str, int, int]]:
    return [(r.split, r.start, r.stop) for r in split_ranges(spec, LENGTHS, "digits")]


def make_folder(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.jpg").write_bytes(IMAGE)
    return root


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("train", [("train", 0, 1437)]),
        ("train[:98%]", [("train", 0, 1408)]),  # 98% of 1437 is 1408.26
        ("train[98%:]", [("train", 1408, 1437)]),
        ("train[100:200]", [("train", 100, 200)]),
        ("train[-10%:]", [("train", 1293, 1437)]),  # 1437 - round(143.7)
        ("train[-3:]", [("train", 1434, 1437)]),
        ("train+test", [("train", 0, 1437), ("test", 0, 360)]),
        ("train[:10%] + test[5:]", [("train", 0, 144), ("test", 5, 360)]),
        ("train[1shard]", [("train", 1000, 1437)]),
        ("all", [("train", 0, 1437), ("test", 0, 360)]),
    ],
)
def test_specs_resolve_as_tfds_documents(spec: str, expected: list[tuple[str, int, int]]) -> None:
    assert ranges(spec) == expected


@settings(deadline=None, max_examples=60)
@given(st.integers(0, TRAIN), st.integers(0, TRAIN))
def test_absolute_slices_are_pythons(start: int, stop: int) -> None:
    expected = range(TRAIN)[start:stop]
    if len(expected) == 0:
        with pytest.raises(UserError, match="holds no record"):
            ranges(f"train[{start}:{stop}]")
    else:
        assert ranges(f"train[{start}:{stop}]") == [("train", expected[0], expected[-1] + 1)]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5000), st.integers(1, 99))
def test_percent_slices_round_to_the_closest_record_and_partition(size: int, percent: int) -> None:
    cut = round(percent * size / 100)
    if not 0 < cut < size:
        return
    spec = f"train[:{percent}%]+train[{percent}%:]"
    assert split_ranges(spec, {"train": [size]}, "x") == (("train", 0, cut), ("train", cut, size))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("val", "Unknown split 'val'"),
        ("train[:1438]", r"\[:1438\] incompatible with 1437"),
        ("train[5]", "not in TFDS syntax"),
        ("train[::2]", "not in TFDS syntax"),
        ("all[:5]", "not in TFDS syntax"),
        ("", "not in TFDS syntax"),
        ("train[:101%]", r"\[-100, 100\]"),
        ("train[7:7]", r"train\[7:7\] holds no record"),
        ("train[9:3]", r"train\[9:3\] holds no record"),
        ("train+test[:0]", r"test\[0:0\] holds no record"),
    ],
)
def test_bad_specs_are_one_line_that_lists_the_splits(spec: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        ranges(spec)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith("splits: train (1437), test (360)")


def test_locate_walks_the_joined_ranges() -> None:
    parts = (SplitRange("train", 10, 13), SplitRange("test", 0, 2))
    assert [locate(parts, i) for i in range(5)] == [
        ("train", 10),
        ("train", 11),
        ("train", 12),
        ("test", 0),
        ("test", 1),
    ]
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            locate(parts, outside)


@pytest.mark.parametrize("dataset", ["/data", "./data", "../data", "~/data", "~user/data"])
def test_these_are_folders(dataset: str) -> None:
    assert is_folder(dataset)


@pytest.mark.parametrize("dataset", ["cifar10", "imagenet_v2/topimages:3.0.0", "data/flowers"])
def test_these_are_tfds_names(dataset: str) -> None:
    assert not is_folder(dataset)


def test_a_folder_without_its_prefix_is_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "flowers" / "small", {"rose": 2})
    make_folder(tmp_path / "my flowers", {"rose": 2})
    monkeypatch.chdir(tmp_path)
    for name in ("flowers", "flowers/small", "my flowers"):
        with pytest.raises(UserError, match=f"write ./{name}$"):
            open_source(name, "train")


def test_relative_and_home_folders_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "flowers", {"rose": 3})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = os.path.realpath(tmp_path / "flowers" / "rose")
    for name in ("./flowers", "~/flowers", "../" + tmp_path.name + "/flowers"):
        source = open_source(name, "train")
        assert source.name == f"{name}/train"
        assert os.path.realpath(os.path.dirname(source[0].name)) == expected


def test_test_fraction_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"rose": 2})
    with pytest.raises(UserError, match="test_fraction=0.2 would be ignored"):
        open_source(str(tmp_path), "train", test_fraction=0.2)
    with pytest.raises(UserError, match="test_fraction=0.2 would be ignored"):
        open_source("digits", "train", test_fraction=0.2)


def test_tensorflow_is_never_imported_and_opening_is_silent(tmp_path: Path) -> None:
    make_folder(tmp_path / "flowers", {"rose": 3, "tulip": 3})
    command = [sys.executable, "-m", "tests.programs.opened", str(tmp_path / "tfds")]
    done = subprocess.run(
        [*command, str(tmp_path / "flowers"), "digits"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
