import logging
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.listed import label_of, records_of
from vit_jax.data.sources.folder import FolderSource
from vit_jax.data.sources.open import open_source
from vit_jax.errors import UserError


def write(root: Path, *paths: str) -> Path:
    """Makes each file with its own path as content; a path that ends in / is an empty folder."""
    for path in paths:
        file = root / path
        if path.endswith("/"):
            file.mkdir(parents=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(path)
    return root


def images(*names_and_counts: tuple[str, int]) -> list[str]:
    return [f"{name}/{i:03}.jpg" for name, count in names_and_counts for i in range(count)]


def contents(source: FolderSource) -> list[tuple[str, str]]:
    """(stored path, class name) of every record, in order."""
    return [
        (record.image.decode(), source.class_names[label_of(record)])
        for record in records_of(source)
    ]


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("flowers")
    return str(write(root, *images(("train/rose", 60), ("train/tulip", 41), ("val/rose", 7))))


def test_a_record_is_the_file_its_class_and_its_path(flowers: str) -> None:
    source = FolderSource(flowers, "train")
    assert (len(source), source.class_names) == (101, ("rose", "tulip"))
    assert source.name == f"{flowers}/train"
    for record in records_of(source):
        path = record.image.decode()
        assert record.name == os.path.join(flowers, path)
        assert source.class_names[label_of(record)] == path.split("/")[1]


def test_indices_outside_raise_index_error(flowers: str) -> None:
    source = FolderSource(flowers, "val")
    for outside in (-1, 7):
        with pytest.raises(IndexError):
            source[outside]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 100), st.integers(0, 100), st.sampled_from(["", "+val", "+train[:5]"]))
def test_slices_are_those_of_the_whole_split(flowers: str, low: int, high: int, more: str) -> None:
    train, val = contents(FolderSource(flowers, "train")), contents(FolderSource(flowers, "val"))
    # TFDS rounds percentages to the closest record.
    expected = train[round(low * 101 / 100) : round(high * 101 / 100)]
    if not expected:
        return
    expected += {"": [], "+val": val, "+train[:5]": train[:5]}[more]
    assert contents(FolderSource(flowers, f"train[{low}%:{high}%]{more}")) == expected


def test_slices_cut_across_classes(flowers: str) -> None:
    half = contents(FolderSource(flowers, "train[:50%]"))
    roses = sum(name == "rose" for _, name in half)
    # 30 of 50 expected; hypergeometric deviation 2.5, so this is four deviations.
    assert 20 <= roses <= 40


def test_the_order_depends_on_the_path_within_the_split_alone(flowers: str, tmp_path: Path) -> None:
    copy = write(tmp_path, *images(("train/rose", 7)))
    order = [Path(path).name for path, _ in contents(FolderSource(str(copy), "train"))]
    assert order == [Path(path).name for path, _ in contents(FolderSource(flowers, "val"))]
    assert order != sorted(order)


def test_a_class_that_a_split_lacks_shifts_no_label(tmp_path: Path) -> None:
    write(tmp_path, *images(("train/a", 2), ("train/b", 2), ("train/c", 2)))
    write(tmp_path, *images(("test/a", 1), ("test/c", 1)), "val/a/", "val/b/0.jpg")
    for split, labels in {"train": [0, 0, 1, 1, 2, 2], "test": [0, 2], "val": [1]}.items():
        source = FolderSource(str(tmp_path), split)
        assert source.class_names == ("a", "b", "c")
        assert sorted(record.label for record in records_of(source)) == labels


@pytest.mark.parametrize("root", ["train", "."])
def test_an_empty_class_folder_is_named(tmp_path: Path, root: str) -> None:
    write(tmp_path, *images((f"{root}/a", 2)), f"{root}/b/note.txt")
    with pytest.raises(UserError, match=r"class folder .*/b holds no images; fill it or remove"):
        FolderSource(str(tmp_path), "train")


def test_a_class_that_train_lacks_is_named(tmp_path: Path) -> None:
    write(tmp_path, *images(("train/a", 2), ("test/a", 1), ("test/z", 1)))
    with pytest.raises(UserError, match=r"class folder .*/test/z is missing from .*/train"):
        FolderSource(str(tmp_path), "train")


COUNTS = {"one": 1, "two": 2, "few": 9, "many": 48}


@pytest.mark.parametrize("fraction", [None, 0.25, 0.99])
def test_a_folder_of_classes_is_partitioned(tmp_path: Path, fraction: float | None) -> None:
    paths = images(*COUNTS.items())
    root = str(write(tmp_path, *paths))
    train = contents(FolderSource(root, "train", fraction))
    test = contents(FolderSource(root, "test", fraction))
    assert sorted(train + test) == sorted((path, path.split("/")[0]) for path in paths)
    held_out = {name: sum(label == name for _, label in test) for name in COUNTS}
    assert (
        held_out
        == {
            None: {"one": 0, "two": 1, "few": 1, "many": 5},  # round(0.9) = 1, round(4.8) = 5
            0.25: {"one": 0, "two": 1, "few": 2, "many": 12},
            0.99: {"one": 0, "two": 1, "few": 8, "many": 47},
        }[fraction]
    )


def test_a_new_file_moves_no_image_of_another_class(tmp_path: Path) -> None:
    before = write(tmp_path / "before", *images(("a", 30), ("b", 30)))
    after = write(tmp_path / "after", *images(("a", 30), ("b", 90), ("aa", 5)))

    def of_class_a(root: Path, split: str) -> list[str]:
        return [path for path, name in contents(FolderSource(str(root), split)) if name == "a"]

    for split in ("train", "test"):
        assert of_class_a(before, split) == of_class_a(after, split)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 20.0, float("nan")])
def test_a_fraction_is_above_0_and_below_1(tmp_path: Path, fraction: float | None) -> None:
    write(tmp_path, *images(("a", 3)))
    with pytest.raises(UserError, match="above 0 and below 1"):
        FolderSource(str(tmp_path), "train", fraction)


def test_the_assumed_fraction_and_the_ignored_files_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, *images(("a", 3)), "README.md", "a/notes.txt", "a/more/x.npy", ".DS_Store")
    with caplog.at_level(logging.INFO):
        FolderSource(str(tmp_path), "train")
        FolderSource(str(tmp_path), "test")
    left_out, summary = (record.getMessage() for record in caplog.records)
    assert left_out == (
        f"{tmp_path}: left out 1 file outside class folders, 2 files without an image "
        "(1 .txt, 1 .npy)"
    )
    assert summary.startswith(f"{tmp_path}: images: train 2, test 1 (") and "1 class: a" in summary
    assert "test_fraction=0.1 of each class is 'test'" in summary


def test_a_folder_that_is_scored_whole_speaks_of_no_split(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, *images(("a", 12), ("b", 3)))
    with caplog.at_level(logging.INFO):
        assert len(FolderSource(str(tmp_path), "all")) == 15
    (summary,) = (record.getMessage() for record in caplog.records)
    assert summary == f"{tmp_path}: images: without splits 15; 2 classes: a, b"


def test_which_files_count(tmp_path: Path) -> None:
    taken = ["a/1.JPG", "a/2.jpeg", "a/3.Png", "a/4.webp", "a/5.bmp", "a/6.gif", "a/7.tif"]
    taken += ["a/8.tiff", "a/9.ppm", "a/deep/er/10.jpg", "é è/11.jpg"]
    write(tmp_path / "set" / "train", *taken)
    write(tmp_path / "set" / "train", "a/.hidden.jpg", "a/.cache/x.jpg", ".git/x.jpg", "a/jpg")
    source = FolderSource(str(tmp_path / "set"), "train")
    assert sorted(path for path, _ in contents(source)) == sorted(taken)
    assert source.class_names == ("a", "é è")


def test_links_are_followed_and_loops_refused(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", "1.jpg", "more/2.jpg")
    root = write(tmp_path / "set", "train/a/0.jpg")
    (root / "train" / "a" / "linked.jpg").symlink_to(elsewhere / "1.jpg")
    (root / "train" / "b").symlink_to(elsewhere)
    assert len(FolderSource(str(root), "train")) == 4
    for link, target in {"x": "y", "y": "x"}.items():
        write(tmp_path / "loop", f"train/{link}/0.jpg")
        (tmp_path / "loop/train" / link / "next").symlink_to(tmp_path / "loop/train" / target)
    with pytest.raises(UserError, match="a second time; remove the link"):
        FolderSource(str(tmp_path / "loop"), "train")


def test_roots_that_are_no_data_set(tmp_path: Path) -> None:
    write(tmp_path, "file.jpg", "empty/", "flat/1.jpg", "texts/a/1.txt", "splits/train/1.jpg")
    for name, reason in {
        "missing": "missing does not exist",
        "file.jpg": "is a file, not a folder",
        "empty": "holds no images",
        "flat": "holds no images",
        "texts": "holds no images",
        "splits": "splits/train holds no images",
    }.items():
        with pytest.raises(UserError, match=reason):
            FolderSource(str(tmp_path / name), "train")


def test_a_file_that_vanished_is_a_record_that_says_so(tmp_path: Path) -> None:
    source = FolderSource(str(write(tmp_path, *images(("train/a", 2)))), "train")
    record = source[0]
    os.remove(record.name)
    gone = source[0]
    assert (gone.image, gone.label, gone.name) == (b"", record.label, record.name)
    assert gone.problem == "cannot read the file (No such file or directory)"


def test_pickling_keeps_every_record_and_costs_about_the_paths(flowers: str) -> None:
    source = FolderSource(flowers, "train+val")
    pickled = pickle.dumps(source)
    assert records_of(pickle.loads(pickled)) == records_of(source)
    # Paths of 18 or 19 bytes, a label of 4, an offset of 8, and less than 1 kB besides.
    assert len(pickled) < len(source) * (19 + 4 + 8) + 1000


@pytest.mark.parametrize(
    ("split", "left"),
    [("train/", "photos.tar"), ("train/", "train/rose.tar"), ("", "photos.tar"), ("", "a.parquet")],
)
def test_an_archive_that_was_left_among_images_does_not_hide_them(
    split: str, left: str, tmp_path: Path
) -> None:
    write(tmp_path, *images((f"{split}rose", 20), (f"{split}tulip", 20)), left)
    source = open_source(str(tmp_path), "all")
    assert source.class_names == ("rose", "tulip")
    assert len(source) == 40
