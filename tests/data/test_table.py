"""Tables of images: rows as people write them, and one line with the row for each mistake."""

import json
import logging
import os
import pickle
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.data.listed import records_of
from vit_jax.data.config import DataConfig
from vit_jax.data.preparation.prepare import prepare
from vit_jax.data.sources.folder import FolderSource
from vit_jax.data.sources.open import is_table, open_source
from vit_jax.data.sources.own_splits import split_to_score
from vit_jax.data.sources.records import Source, listing
from vit_jax.errors import UserError
from vit_jax.training.setup import open_training


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files that hold their own names: a.jpg to t.jpg, and two below a folder."""
    (tmp_path / "deep/er").mkdir(parents=True)
    for name in [*(f"{letter}.jpg" for letter in "abcdefghijklmnopqrst"), "deep/u.jpg"]:
        (tmp_path / name).write_text(name)
    (tmp_path / "deep/er/v, w.jpg").write_text("deep/er/v, w.jpg")
    return tmp_path


def table(root: Path, text: str | bytes, name: str = "table.csv") -> str:
    path = root / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def found(source: Source) -> dict[str, Any]:
    """By file: the name of its class, or the names of its labels."""
    names = source.class_names
    return {
        record.image.decode(): tuple(names[label] for label in record.label)
        if isinstance(record.label, tuple)
        else names[record.label]
        for record in records_of(source)
    }


def refusal(root: Path, text: str | bytes, name: str = "table.csv", **options: Any) -> str:
    path = table(root, text, name)
    with pytest.raises(UserError) as raised:
        open_source(path, options.pop("split", "train"), **options)
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(f"table {path}", "TABLE")


PETS = {"a.jpg": "dog", "b.jpg": "cat", "deep/u.jpg": "cat"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("path,label\na.jpg,dog\nb.jpg,cat\ndeep/u.jpg,cat\n", "table.csv"),
        ("\ufeffFile Name;Class\r\na.jpg;dog\r\n\r\nb.jpg; cat\r\n./deep/u.jpg;cat", "table.CSV"),
        ("id\tlabels\timage_path\n1\tdog\ta.jpg\n2\tcat\tb.jpg\n3\tcat\tdeep/u.jpg\n", "t.tsv"),
        ('label, "filename"\n"dog", "a.jpg"\ncat, b.jpg\ncat, deep//u.jpg\n', "t.csv"),
        ("image\tcategory\na.jpg\tdog\nb.jpg\tcat\ndeep/u.jpg\tcat\n", "t.csv"),
    ],
)
def test_csv_as_people_write_it(text: str, name: str, root: Path) -> None:
    source = open_source(table(root, text, name), "all")
    assert found(source) == PETS
    assert (source.class_names, source.max_labels) == (("cat", "dog"), None)
    assert records_of(pickle.loads(pickle.dumps(source))) == records_of(source)


def test_json_lines(root: Path) -> None:
    rows = [{"image": file, "class": name, "more": [1]} for file, name in PETS.items()]
    text = "\n\n".join(map(json.dumps, rows))
    for name in ("t.jsonl", "t.ndjson"):
        assert found(open_source(table(root, text, name), "all")) == PETS


def test_paths_are_below_the_table_or_absolute(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "tables").mkdir()
    rows = f"path,label\n../a.jpg,x\n{root}/b.jpg,y\n{root}/tables/../c.jpg,y\n"
    path = table(root / "tables", rows)
    assert found(open_source(path, "all")) == {"a.jpg": "x", "b.jpg": "y", "c.jpg": "y"}
    rows = f'path,label\n{root}/a.jpg,x\n"deep/er/v, w.jpg",y\n'
    table(root, rows)
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(root))
    for path in ("table.csv", "./table.csv", "~/table.csv"):
        source = open_source(path, "all")
        assert found(source) == {"a.jpg": "x", "deep/er/v, w.jpg": "y"}
        monkeypatch.chdir("/")
        assert len(records_of(source)) == 2 and all(r.problem is None for r in records_of(source))
        monkeypatch.chdir(root)


def test_order_and_fingerprint_do_not_depend_on_the_place(root: Path, tmp_path: Path) -> None:
    rows = "".join(f"{letter}.jpg,{letter in 'aeiou'}\n" for letter in "abcdefghijklmnopqrst")
    one = open_source(table(root, f"path,label\n{rows}"), "all")
    absolute = "".join(f"{root}/{row}\n" for row in rows.splitlines())
    two = open_source(table(root, f"path,label\n{absolute}", "2.csv"), "all")
    assert records_of(one) == records_of(two) and one.fingerprint() == two.fingerprint()
    files = [record.image for record in records_of(one)]
    assert files != sorted(files)  # So that a slice has images of all classes.
    changed = rows.replace("b.jpg,False", "b.jpg,True")
    other = open_source(table(root, f"path,label\n{changed}"), "all")
    assert other.fingerprint() != one.fingerprint()
    assert listing(one)["a.jpg"] == "5 bytes of class 1"


def test_numbers_are_sorted_by_value(root: Path) -> None:
    letters = "abcdefghijkl"
    rows = [{"path": f"{x}.jpg", "label": number} for number, x in enumerate(letters)]
    source = open_source(table(root, "\n".join(map(json.dumps, rows)), "t.jsonl"), "all")
    assert source.class_names == tuple(map(str, range(12)))
    assert {r.image.decode(): r.label for r in records_of(source)} == {
        f"{x}.jpg": number for number, x in enumerate(letters)
    }


def test_the_same_split_is_drawn_as_in_a_folder(tmp_path: Path) -> None:
    files = [f"{name}/{i:02}.jpg" for name, count in (("x", 20), ("y", 7)) for i in range(count)]
    for file in files:
        (tmp_path / "set" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / file).write_text(file)
    rows = "".join(f"set/{file},{file[0]}\n" for file in reversed(files))
    path = table(tmp_path, f"path,label\n{rows}")
    for split, count in {"train": 20 + 7 - 5 - 2, "test": 5 + 2}.items():
        own = open_source(path, split, test_fraction=0.25)
        assert len(own) == count
        assert sum(name == "x" for name in found(own).values()) == {"train": 15, "test": 5}[split]
    text = (tmp_path / "table.csv").read_text().replace("set/", "")
    beside = table(tmp_path / "set", text)
    for split in ("train", "test"):
        folder = FolderSource(str(tmp_path / "set"), split, 0.25)
        assert found(open_source(beside, split, test_fraction=0.25)) == found(folder)


SPLIT = "path,label,Set\na.jpg,x,Training\nb.jpg,y,Training\nc.jpg,x,valid\nd.jpg,y,hold_out\n"


def test_splits_in_a_column(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(root, SPLIT)
    with caplog.at_level(logging.INFO):
        assert found(open_source(path, "train")) == {"a.jpg": "x", "b.jpg": "y"}
    assert f"{path}: images: train 2, valid 1, hold_out 1; 2 classes: x, y" in caplog.text
    for name in ("valid", "val", "validation", "test"):  # There is no test.
        assert found(open_source(path, name)) == {"c.jpg": "x"}
    assert found(open_source(path, "hold_out+valid")) == {"c.jpg": "x", "d.jpg": "y"}
    assert len(open_source(path, "all")) == 4 and len(open_source(path, "train[:50%]")) == 1
    assert split_to_score(path) == "valid"
    assert split_to_score(table(root, "path,label\na.jpg,x\n", "2.csv")) == "all"
    with pytest.raises(UserError, match="no split 'holdout', but train, valid, hold_out; name one"):
        open_source(path, "holdout")
    with pytest.raises(UserError, match="test_fraction=0.5 would be ignored: .* its own splits"):
        open_source(path, "train", test_fraction=0.5)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("path,labels\na.jpg,x|y\nb.jpg,y\nc.jpg,\nd.jpg, z | x |z\n", "t.csv"),
        (
            'path,labels\na.jpg,"[""x"", ""y""]"\nb.jpg,"[""y""]"\nc.jpg,[]\n'
            'd.jpg,"[""z"", ""x"", ""z""]"\n',
            "t.csv",
        ),
        (
            '{"path": "a.jpg", "tags": ["x", "y"]}\n{"path": "b.jpg", "tags": "y"}\n'
            '{"path": "c.jpg", "tags": []}\n{"path": "d.jpg", "tags": ["z", "x", "z"]}',
            "t.jsonl",
        ),
    ],
)
def test_several_labels(text: str, name: str, root: Path) -> None:
    source = open_source(table(root, text, name), "all")
    assert found(source) == {
        "a.jpg": ("x", "y"),
        "b.jpg": ("y",),
        "c.jpg": (),
        "d.jpg": ("z", "x"),
    }
    assert (source.class_names, source.max_labels) == (("x", "y", "z"), 2)
    assert records_of(pickle.loads(pickle.dumps(source))) == records_of(source)
    assert open_source(table(root, text, name), "all", max_labels=5).max_labels == 5
    row = 1 if name == "t.jsonl" else 2
    message = refusal(root, text, name, max_labels=1)
    assert f"row {row}: it has 2 labels, and max_labels=1" in message
    assert len(set(listing(source).values())) == 4


def test_the_column_of_labels_can_be_named(root: Path) -> None:
    path = table(root, "path,label,breed,class\na.jpg,1,pug,dog\nb.jpg,2,manx,cat\n")
    source = open_source(path, "all", label="breed")
    assert found(source) == {"a.jpg": "pug", "b.jpg": "manx"}
    assert split_to_score(path, label="breed") == "all"
    config = DataConfig(path, train="all", label="class")
    assert open_training(config).class_names == ("cat", "dog")
    with pytest.raises(UserError, match="each of 'label', 'class' could be the label; name one"):
        open_source(path, "all")
    with pytest.raises(UserError, match="no such column; did you mean 'breed'"):
        open_source(path, "all", label="bred")


def test_a_table_that_was_changed_is_read_again(root: Path) -> None:
    path = table(root, "path,label\na.jpg,x\nb.jpg,y\n")
    assert len(open_source(path, "all")) == 2
    table(root, "path,label\na.jpg,x\nb.jpg,y\nc.jpg,y\n")
    assert len(open_source(path, "all")) == 3


def test_what_is_a_table(root: Path) -> None:
    for name in ("t.csv", "./t.CSV", "/x/t.tsv", "~/t.jsonl", "../t.ndjson", "./a:b.csv"):
        assert is_table(name)
    (root / "folder.csv").mkdir()
    for name in (
        "mnist",
        "kind:t.csv",
        "mnist:3.0.1",
        "./photos",
        str(root / "folder.csv"),
        "t.txt",
    ):
        assert not is_table(name)
    with pytest.raises(UserError, match="table .*photos.csv cannot be read: No such file"):
        prepare("photos.csv", str(root / "data"))
    assert not (root / "data").exists()


def test_a_file_that_is_no_image_is_told_when_it_is_read(root: Path) -> None:
    (root / "gone.jpg").symlink_to(root / "nowhere")
    os.mkfifo(root / "pipe.jpg")
    source = open_source(table(root, "path,label\ngone.jpg,x\npipe.jpg,x\na.jpg,y\n"), "all")
    problems = {record.name: record.problem for record in records_of(source)}
    assert problems[str(root / "gone.jpg")] == "cannot read the file (No such file or directory)"
    assert problems[str(root / "pipe.jpg")] == "cannot read the file (a pipe and not a file)"
    assert problems[str(root / "a.jpg")] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "TABLE has no rows of images"),
        ("path,label\n", "TABLE has no rows of images"),
        ("a.jpg,x\nb.jpg,y\n", "TABLE: its first row names no column of paths; name them as path,"),
        ("path,breed\na.jpg,x\n", "its first row names no column of labels"),
        ("file,image,label\na.jpg,a.jpg,x\n", "each of 'file', 'image' could be the path; rename"),
        ("path,label\na.jpg,x\nb.jpg\n", "TABLE, row 3: it has 1 cells, the heading 2"),
        ("path,label\na.jpg,x,y\n", "TABLE, row 2: it has 3 cells, the heading 2; put a text"),
        ("path,label\n\na.jpg,x\n,y\n", "TABLE, row 4: path is '', not a path"),
        ("path,label\na.jpg,\n", "TABLE, row 2: it has no label; fill it in"),
        (
            "path,label\na.jpg,x\nnot here.jpg,y\n",
            "row 3: there is no file not here.jpg; paths are",
        ),
        (
            "path,label\nno/1.jpg,y\nno/2.jpg,y\n",
            "row 2: there is no file no/1.jpg (and 1 more are",
        ),
        ("path,label\ndeep,y\n", "TABLE, row 2: there is no file deep"),
        ("path,label\nhttps://x.org/a.jpg,y\n", "row 2: https://x.org/a.jpg: only addresses of"),
        ("path,label\na\0.jpg,y\n", "TABLE, row 2: 'a\\x00.jpg' is not a path"),
        ("path,label\na.jpg,x\n./a.jpg,x\n", "row 3: a.jpg is in row 2 already; remove one"),
        ("path,label\na.jpg,x\na.jpg,y\n", "row 3: a.jpg is in row 2 already; several labels"),
        (
            "path,label,split\na.jpg,x,train\na.jpg,x,test\n",
            "row 3: a.jpg is in row 2 already; one is in split 'train', the other in 'test'",
        ),
        ("path,label,split\na.jpg,x,train\nb.jpg,x,\n", "row 3: split is '', not a split"),
        ("path,label,split\na.jpg,x,all\n", "row 2: split 'all': use letters"),
        ("path,label,split\na.jpg,x,my split\n", "row 2: split 'my split': use letters"),
        ("path,label,split\na.jpg,x,train[:5]\n", "row 2: split 'train[:5]': use letters"),
        ("path,label,split\na.jpg,x,train\nb.jpg,x,Train\n", "row 3: split 'Train' is 'train' in"),
        (
            "path,label,split\na.jpg,x,train\nb.jpg,x,val\nc.jpg,y,val\n",
            "row 4: class 'y' of split 'val' has no image in 'train'; add one, or remove the row",
        ),
        ("path,label\na.jpg,x||y\n", "row 2: label has '', not a name"),
        ("path,label\na.jpg,\"['x', 'y']\"\n", "row 2: label is \"['x', 'y']\"; write a list as"),
        ('path,label\na.jpg,"x\nb.jpg,y\n', "row 2: unexpected end of data; check its quotes"),
        ("path,label\na.jpg," + "x" * 200_000, "row 2: field larger than field limit"),
        (b"path,label\na.jpg,\xe9t\xe9\n", "TABLE is not in UTF-8 (byte 17); save it as CSV UTF-8"),
        ("path,label\na.jpg,x\n".encode("utf-16"), "TABLE is not in UTF-8"),
    ],
)
def test_mistakes_in_csv_name_the_row(text: str | bytes, message: str, root: Path) -> None:
    assert message in refusal(root, text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path": "a.jpg"', "row 2: it is no JSON"),
        ("[" * 100_000, "row 2: it is no JSON"),
        ('["a.jpg", "x"]', 'row 2: it is no object, such as {"path": …'),
        ('{"path": "a.jpg"}', "row 2: it has no 'label'"),
        ('{"path": 1, "label": "x"}', "row 2: path is 1, not a path"),
        ('{"path": "a.jpg", "label": null}', "row 2: label has None, not a name or a number"),
        ('{"path": "a.jpg", "label": 0.5}', "row 2: label has 0.5, not a name or a number"),
        ('{"path": "a.jpg", "label": true}', "row 2: label has True, not a name or a number"),
        ('{"path": "a.jpg", "label": ["x", {}]}', "row 2: label has {}, not a name or a number"),
        ('{"path": "\\ud800.jpg", "label": "x"}', "row 2: '\\ud800.jpg' is not a path"),
        ('{"path": "a.jpg", "label": ' + "9" * 5000 + "}", "row 2: it is no JSON"),
    ],
)
def test_mistakes_in_json_lines_name_the_row(line: str, message: str, root: Path) -> None:
    text = f'{{"path": "b.jpg", "label": "x"}}\n{line}\n'
    assert message in refusal(root, text, "t.jsonl").replace("t.jsonl", "table.csv")


def test_a_table_that_is_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for name, reason in {
        "pipe.csv": "a pipe and not a file",
        "gone.csv": "No such file",
    }.items():
        with pytest.raises(UserError, match=f"{name} cannot be read: {reason}"):
            open_source(str(tmp_path / name), "train")


def test_paths_that_are_meant_from_the_current_folder_are_explained(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    message = refusal(root / "deep", "path,label\na.jpg,x\n")
    assert f"paths are read from {root}/deep, where the table lies, not from the current" in message


def test_accents_of_another_form_find_their_files(tmp_path: Path) -> None:
    """A table in NFC beside files of macOS, which are in NFD, and the other way round."""
    composed, taken_apart = (unicodedata.normalize(form, "été/café") for form in ("NFC", "NFD"))
    for form, other in ((composed, taken_apart), (taken_apart, composed)):
        root = tmp_path / str(form == composed)
        (root / other).parent.mkdir(parents=True)
        for i in range(4):
            (root / f"{other}{i}.jpg").write_text(f"{other}{i}.jpg")
        rows = f"path,label\n{form}0.jpg,x\n{root}/{form}1.jpg,y\n./{other}2.jpg,x\n"
        source = open_source(table(root, rows), "all")
        assert found(source) == {f"{other}{i}.jpg": "xyx"[i] for i in range(3)}
        assert all(record.problem is None for record in records_of(source))
        message = refusal(root, f"{rows}{form}2.jpg,x\n")
        assert f"row 5: {other}2.jpg is in row 4 already" in message
        assert f"there is no file {form}9.jpg" in refusal(root, f"{rows}{form}9.jpg,x\n")
        # After copies from two systems, a name may be there in both forms.
        (root / f"{form}3.jpg").parent.mkdir(exist_ok=True)
        (root / f"{form}4.jpg").write_text(f"{form}4.jpg")
        rows = f"path,label\n{form}3.jpg,x\n{form}4.jpg,y\n"
        assert found(open_source(table(root, rows), "all")) == {
            f"{other}3.jpg": "x",
            f"{form}4.jpg": "y",
        }
