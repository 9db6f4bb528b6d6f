"""WebDataset tars, written by the standard library, read by an index."""

import io
import json
import multiprocessing
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.data.listed import records_of
from vit_jax.data.sources.labels import labels_of_source
from vit_jax.data.sources.open import has_own_files, open_source
from vit_jax.data.sources.own_splits import own_splits, split_to_score
from vit_jax.data.sources.records import fetch
from vit_jax.errors import UserError

# The content of one sample by extension.
Sample = Mapping[str, bytes]


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "user_cache"))


def image(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, samples: Mapping[str, Sample], form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for key, files in samples.items():
            for extension, content in files.items():
                about = tarfile.TarInfo(f"{key}.{extension}")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    return path


def numbered(first: int, stop: int) -> dict[str, Sample]:
    """Samples whose image and label tell their number."""
    return {f"{i:05}": {"png": image(i), "cls": b"%d\n" % (i % 3)} for i in range(first, stop)}


def found(source: Any) -> list[tuple[int, Any]]:
    """The number and the label of each record."""
    records = list(fetch(source, range(len(source))))
    assert [record.problem for record in records] == [None] * len(records)
    return [
        (Image.open(io.BytesIO(record.image)).getpixel((0, 0))[0], record.label)
        for record in records
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten samples in three tars of train, and four in one of val."""
    for number, (first, stop) in enumerate([(0, 4), (4, 8), (8, 10)]):
        write_tar(tmp_path / f"set/digits-train-{number:03}.tar", numbered(first, stop))
    write_tar(tmp_path / "set/digits-validation-000.tar", numbered(50, 54))
    return tmp_path / "set"


def test_a_folder_of_tars_has_the_splits_that_their_names_say(folder: Path) -> None:
    assert own_splits(str(folder)) == ("train", "validation")
    assert split_to_score(str(folder)) == "validation"
    train = open_source(str(folder), "train")
    assert found(train) == [(i, i % 3) for i in range(10)]
    assert train.class_names == ("0", "1", "2") and train.max_labels is None
    assert labels_of_source(train).tolist() == [i % 3 for i in range(10)]
    assert found(open_source(str(folder), "val")) == [(i, i % 3) for i in range(50, 54)]


def test_slices_and_sums_of_splits(folder: Path) -> None:
    source = open_source(str(folder), "validation[1:]+train[-50%:]")
    expected = [51, 52, 53, 5, 6, 7, 8, 9]
    assert found(source) == [(i, i % 3) for i in expected]
    assert labels_of_source(source).tolist() == [i % 3 for i in expected]
    assert source.name == f"{folder}/validation[1:]+train[-50%:]"
    with pytest.raises(IndexError):
        source[8]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("digits-train-{000..002}.tar", range(10)),
        ("digits-train-{000,002}.tar", [0, 1, 2, 3, 8, 9]),
        ("digits-train-*.tar", range(10)),
        ("digits-{train,validation}-*.tar", range(10)),
        ("digits-train-001.tar", range(4, 8)),
    ],
)
def test_patterns_name_tars(
    pattern: str, expected: Sequence[int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    for dataset in (f"{folder}/{pattern}", f"./set/{pattern}", f"set/{pattern}"):
        assert has_own_files(dataset)
        assert [number for number, _ in found(open_source(dataset, "train"))] == list(expected)


def test_splits_in_folders_and_numbers_in_order(tmp_path: Path) -> None:
    # As the sets of clip-benchmark on the Hugging Face Hub: train/0.tar … train/10.tar.
    for i in (0, 2, 10, 1):
        write_tar(tmp_path / f"train/{i}.tar", numbered(i, i + 1))
    write_tar(tmp_path / "test/0.tar", numbered(7, 9))
    (tmp_path / "classnames.txt").write_text("cat\ndog\n\nhen\n")
    train = open_source(str(tmp_path), "train")
    assert found(train) == [(0, 0), (1, 1), (2, 2), (10, 1)]
    assert train.class_names == ("cat", "dog", "hen")
    assert found(open_source(str(tmp_path), "test")) == [(7, 1), (8, 2)]


def test_tars_without_a_split_in_their_name_are_train(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", numbered(0, 3))
    assert own_splits(str(tmp_path)) == ("train",)
    assert len(open_source(str(tmp_path / "{00000..00000}.tar"), "train")) == 3


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_forms_of_tars_with_long_names(form: int, tmp_path: Path) -> None:
    samples: dict[str, Sample] = {}
    for i, name in enumerate(["plain", "é" * 20, "long" * 24 + "/" + "name" * 22]):
        samples[f"{name}{i}"] = {"png": image(i), "cls": b"1"}
        if form != tarfile.USTAR_FORMAT:
            samples[f"{name * 3}{i}"] = {"png": image(20 + i), "cls": b"0"}
    path = write_tar(tmp_path / "a.tar", samples, form)
    with tarfile.open(path, "a", format=form) as tar:  # Others write folders and links too.
        directory = tarfile.TarInfo("folder.png")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
    source = open_source(str(path), "train")
    with tarfile.open(path) as tar:
        expected = [tar.extractfile(each) for each in tar if each.isreg() and "png" in each.name]
        assert [record.image for record in records_of(source)] == [
            each.read() for each in expected if each is not None
        ]


def test_names_are_classes_in_order(tmp_path: Path) -> None:
    samples = {
        f"{i}": {"jpg": image(i), "cls": name.encode()}
        for i, name in enumerate(["hen", "cat", "dog", "cat"])
    }
    write_tar(tmp_path / "train.tar", samples)
    source = open_source(str(tmp_path), "train")
    assert source.class_names == ("cat", "dog", "hen")
    assert labels_of_source(source).tolist() == [2, 0, 1, 0]


def test_labels_in_json(tmp_path: Path) -> None:
    about = [
        {"label": 1, "meta": {"kind": "b"}, "tags": ["x", "y"]},
        {"label": 0, "meta": {"kind": "a"}, "tags": []},
        {"label": 2, "meta": {"kind": "b"}, "tags": ["z", "x", "z"]},
    ]
    samples = {
        f"{i}": {"png": image(i), "json": json.dumps(each).encode(), "txt": b"a caption"}
        for i, each in enumerate(about)
    }
    write_tar(tmp_path / "train.tar", samples)
    assert found(open_source(str(tmp_path), "train")) == [(0, 1), (1, 0), (2, 2)]
    kinds = open_source(str(tmp_path), "train", label="meta/kind")
    assert kinds.class_names == ("a", "b") and found(kinds) == [(0, 1), (1, 0), (2, 1)]
    tags = open_source(str(tmp_path), "train", label="tags")
    assert tags.class_names == ("x", "y", "z") and tags.max_labels == 64
    assert found(tags) == [(0, (0, 1)), (1, ()), (2, (2, 0))]
    assert open_source(str(tmp_path), "train", label="txt").class_names == ("a caption",)
    with pytest.raises(UserError, match=r"has 2 labels, above config.data.max_labels=1"):
        records_of(open_source(str(tmp_path), "train", label="tags", max_labels=1))


def test_classes_are_those_of_train(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", {"a": {"png": image(1), "cls": b"dog"}})
    write_tar(tmp_path / "train-1.tar", {"b": {"png": image(1), "cls": b"cat"}})
    write_tar(tmp_path / "test-0.tar", {"c": {"png": image(1), "cls": b"dog"}})
    assert open_source(str(tmp_path), "test").class_names == ("cat", "dog")
    write_tar(tmp_path / "test-0.tar", {"c": {"png": image(1), "cls": b"cow"}})
    with pytest.raises(UserError, match="test: label 'cow' is not one of the 2 classes"):
        open_source(str(tmp_path), "test")


def test_two_patterns_share_an_index_and_keep_their_own_classes(folder: Path) -> None:
    names = {"a": b"hen", "b": b"cat"}
    for number, (key, name) in enumerate(names.items()):
        write_tar(folder / f"x-train-{number}.tar", {key: {"png": image(number), "cls": name}})
    one = open_source(f"{folder}/x-train-1.tar", "train")
    both = open_source(f"{folder}/x-train-*.tar", "train")
    assert one.class_names == ("cat",) and both.class_names == ("cat", "hen")
    # The index was written again since `one` was opened, with its rows and names at other places.
    again = pickle.loads(pickle.dumps(one))
    assert found(again) == found(one) == [(1, 0)]
    assert found(both) == [(0, 1), (1, 0)]
    assert len(list(folder.glob("*.index"))) == 1


def test_the_order_and_the_fingerprint_do_not_depend_on_the_place(
    folder: Path, tmp_path: Path
) -> None:
    before = open_source(str(folder), "train")
    expected = before.fingerprint()
    folder.rename(tmp_path / "elsewhere")
    after = open_source(str(tmp_path / "elsewhere"), "train")
    assert after.fingerprint() == expected
    assert (
        after.fingerprint() != open_source(str(tmp_path / "elsewhere"), "train[1:]").fingerprint()
    )
    write_tar(tmp_path / "elsewhere/digits-train-002.tar", numbered(9, 11))
    assert open_source(str(tmp_path / "elsewhere"), "train").fingerprint() != expected


def test_the_source_travels_to_a_spawned_process(folder: Path) -> None:
    source = open_source(str(folder), "train[2:]+validation")
    records = records_of(source)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(records_of, (source,)) == records


def test_records_are_named_by_tar_and_file(folder: Path) -> None:
    source = open_source(str(folder), "train")
    assert source[5].name == f"{folder}/digits-train-001.tar/00005.png"


def test_data_without_labels(tmp_path: Path) -> None:
    samples = {f"{i}": {"png": image(i), "txt": b"a caption"} for i in range(3)}
    write_tar(tmp_path / "train.tar", samples)
    source = open_source(str(tmp_path), "train")
    assert source.class_names == () and found(source) == [(0, -1), (1, -1), (2, -1)]
    assert labels_of_source(source).tolist() == [-1, -1, -1]


# What is wrong is told in one line.


def refusal(dataset: Path | str, split: str = "train", **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        open_source(str(dataset), split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tars_that_a_pattern_names_and_that_are_missing(folder: Path) -> None:
    pattern = f"{folder}/digits-train-{{000..005}}.tar"
    told = f"there is no {folder}/digits-train-003.tar (and 2 more are missing)"
    assert told in refusal(pattern)
    assert f"there is no {folder}/other-*.tar" in refusal(f"{folder}/other-*.tar")
    assert "names more than" in refusal(f"{folder}/{{0..9999999}}.tar")


def test_a_gap_in_the_numbers_of_a_folder_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "digits-train-001.tar").unlink()
    assert len(open_source(str(folder), "train")) == 6
    assert "1 of its numbers are missing between 0 and 2 (1)" in caplog.text


def test_splits_that_there_are_not(folder: Path, tmp_path: Path) -> None:
    assert "has no split 'holdout', but train, validation" in refusal(folder, "holdout")
    write_tar(folder / "extra.tar", numbered(0, 1))
    assert f"{folder}/extra.tar belongs to no split" in refusal(folder)


def test_options_that_would_be_ignored(folder: Path) -> None:
    assert "test_fraction=0.1 would be ignored" in refusal(folder, test_fraction=0.1)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("cut in a file", r"not a whole tar (it was cut: it ends within 00003."),
        ("without its end", "not a whole tar (it was cut: the blocks that end a tar are missing)"),
        ("another file", "not a whole tar (there is no header at byte 0)"),
        ("empty", "not a whole tar (it was cut"),
        ("gzip", "not a whole tar (it is compressed; unpack it by gzip -d)"),
        ("damaged", "not a whole tar (there is no header at byte"),
    ],
)
def test_a_tar_that_is_not_whole_is_named(how: str, told: str, folder: Path) -> None:
    tar = folder / "digits-train-000.tar"
    data = bytearray(tar.read_bytes())
    with tarfile.open(tar) as opened:
        members = opened.getmembers()
    last = members[-1]
    data[members[3].offset + 10] ^= how == "damaged"
    changed = {
        "cut in a file": data[: last.offset_data + 1],
        "without its end": data[: last.offset_data + 512],
        "another file": b"no tar" * 400,
        "empty": b"",
        "gzip": b"\x1f\x8b" + data,
        "damaged": data,
    }
    tar.write_bytes(changed[how])
    message = refusal(folder)
    assert str(tar) in message and told in message


def test_compressed_tars_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.tar.gz").touch()
    assert "compressed tars have no random access" in refusal(tmp_path / "train.tar.gz")


@pytest.mark.parametrize(
    ("sample", "told"),
    [
        ({"cls": b"1"}, "sample k has no image (it holds .cls)"),
        (
            {"png": b"", "jpg": b"", "cls": b"1"},
            "sample k has 2 images (it holds .png, .jpg, .cls)",
        ),
        ({"png": b"", "cls": b" "}, "k.cls is '', not a name or a number"),
        ({"png": b"", "cls": b"\xff"}, "k.cls is not text in UTF-8"),
        ({"png": b"", "json": b"{"}, "k.json is not in JSON"),
        ({"png": b"", "json": b'{"label": 1.5}'}, "k.json: label is 1.5, not a name or a number"),
        ({"png": b"", "json": b'{"label": [true]}'}, "k.json: label is True, not a name"),
        ({"png": b"", "json": b'{"kind": 1}'}, "k.png has no label (.cls, or .json with 'label')"),
        ({"png": b"", "cls": b"9999999999"}, "a label is 9999999999"),
    ],
)
def test_samples_that_cannot_be_used_are_named(sample: Sample, told: str, tmp_path: Path) -> None:
    whole: Sample = {"png": image(0), "cls": b"0"}
    write_tar(tmp_path / "train.tar", {"whole": whole, "k": sample})
    assert told in refusal(tmp_path)


def test_a_key_that_comes_twice_is_named(tmp_path: Path) -> None:
    files = {"png": image(0), "cls": b"0"}
    tar = write_tar(tmp_path / "train.tar", {"k": files})
    with tarfile.open(tar, "a") as opened:
        opened.addfile(tarfile.TarInfo("k.PNG"))
    assert "k.PNG is in it twice" in refusal(tmp_path)


def test_class_names_that_do_not_fit(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = folder / "classnames.txt"
    names.write_text("cat\ndog\n")
    assert f"a label is 2, and {names} has 2 lines" in refusal(folder)
    names.write_text("cat\ndog\ncat\n")
    assert f"{names}: a class stands in it twice" in refusal(folder)
    names.write_text("cat\ndog\nhen\ncow\n")
    assert open_source(str(folder), "train").class_names == ("cat", "dog", "hen", "cow")
    assert "1 classes have no image: cow" in caplog.text


def test_an_image_that_was_changed_under_its_index_is_told(folder: Path) -> None:
    source = open_source(str(folder), "train")
    tar = folder / "digits-train-000.tar"
    tar.write_bytes(bytes(tar.stat().st_size))
    assert source[1].problem == "there is no header of a tar here: it was changed"
    assert source[1].label == 1 and source[5].problem is None


def test_an_image_that_cannot_be_decoded_is_named_by_its_file(folder: Path) -> None:
    write_tar(folder / "digits-train-000.tar", {"00000": {"png": b"no image", "cls": b"0"}})
    record = open_source(str(folder), "train")[0]
    assert record.image == b"no image" and record.name.endswith("000.tar/00000.png")
