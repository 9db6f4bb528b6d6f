"""What commands print, where the output is closed or full, and what names it may hold."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.small_models import SMALL, random_params
from vit_jax.__main__ import main
from vit_jax.weights.files import write_weights

# A file name may hold everything but these two: "/" and NUL.
HOSTILE = "=\x1b]0;pwned\x07\u202egnp.\\u202e\n\udcff.png"
SHOWN = "=\\u001b]0;pwned\\u0007\\u202egnp.\\\\u202e\\u000a\\udcff.png"
CLASSES = ("\x1b[31mred", "=cmd|' /C calc'!A0", "a\u202eb", "plain", "back\\slash")
NO_HOME = """
import os, pwd, sys
os.environ.pop("HOME", None)
pwd.getpwuid = lambda number: {}[number]
from vit_jax.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.npz"
    write_weights(path, random_params(SMALL, 0), SMALL, class_names=CLASSES)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / HOSTILE
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path, "PNG")
    return path


def is_plain(text: str) -> bool:
    return not any(c in text for c in ("\x1b", "\x07", "\u202e", "\udcff", "\r"))


def test_names_on_a_terminal_and_in_files(
    weights: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photo.parent / f"broken{photo.name}").write_bytes(b"no image")
    command = ["predict", f"--weights={weights}", f"--images={photo.parent}", "--top_k=5"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert is_plain(output)
    assert f"{photo.parent}/{SHOWN}\n" in output and "\\u001b[31mred\n" in output
    assert "back\\\\slash\n" in output
    table = tmp_path / "out.csv"
    assert main([*command, f"--output={table}"]) == 0
    text = table.read_text()
    assert is_plain(text)
    rows = list(csv.DictReader(text.splitlines()))
    assert {row["name"] for row in rows if row["name"]} == {
        *("\\u001b[31mred", "'=cmd|' /C calc'!A0", "a\\u202eb", "plain", "back\\\\slash")
    }
    assert rows[-1]["image"].endswith(SHOWN) or rows[0]["image"].endswith(SHOWN)
    exact = tmp_path / "out.jsonl"
    assert main([*command, f"--output={exact}"]) == 0
    lines = [json.loads(line) for line in exact.read_text().splitlines()]
    assert {line["image"] for line in lines} == {str(p) for p in photo.parent.iterdir()}
    named = {p["name"] for line in lines for p in line.get("predictions", ())}
    assert named == set(CLASSES)


def test_errors_are_plain(
    weights: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["predict", f"--weights={tmp_path}/{HOSTILE}", f"--images={photo}"],
        ["predict", f"--weights={weights}", f"--images={tmp_path}/{HOSTILE}"],
        ["evaluate", f"--weights={weights}", f"--dataset={photo.parent}"],
        ["train", f"--config={HOSTILE}.py", "--workdir=x"],
        ["models", f"--filter={HOSTILE}"],
        [HOSTILE],
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert is_plain(error) and error.count("\n") == 1, error


def run(command: str, **options: str) -> "subprocess.CompletedProcess[str]":
    line = f"{sys.executable} -m vit_jax {command}"
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=120, env=os.environ | options
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("--version", 0),
        ("trian", 2),
    ],
)
def test_closed_and_full_outputs(command: str, code: int) -> None:
    """Standard error is nobody's need; standard output is what these commands are for."""
    for end in ("2>&-", "2>/dev/full", "2> >(true)", "<&- 2>&-"):
        done = run(f"{command} {end}")
        assert done.returncode == code, done
        assert bool(done.stdout) is (code == 0)
    if code == 0:
        for end, reason in ((">/dev/full", "No space left"), (">&-", "Bad file descriptor")):
            done = run(f"{command} {end}")
            assert done.returncode == 1
            assert done.stderr.startswith("error: cannot write to standard output")
            assert reason in done.stderr and done.stderr.count("\n") == 1
        assert run(f"{command} >/dev/full 2>&1").returncode == 1
        done = run(f"{command} | true; exit ${{PIPESTATUS[0]}}")
        assert done.returncode in (0, 141) and done.stderr == ""


LONG = "n" * 256


@pytest.mark.parametrize(
    "arguments",
    [
        ["describe", f"--config={LONG}.py"],
        ["predict", f"--weights={LONG}.npz", "--images=."],
        ["predict", "--weights=WEIGHTS", f"--images={LONG}"],
        ["predict", "--weights=WEIGHTS", "--images=PHOTO", f"--output={LONG}.csv"],
        ["predict", "--weights=WEIGHTS", "--images=PHOTO", f"--class_names={LONG}.txt"],
        ["convert", "--source=WEIGHTS", f"--target={LONG}.npz", "--layout=google"],
        ["evaluate", "--weights=WEIGHTS", f"--dataset=./{LONG}"],
        ["evaluate", f"--weights={LONG}", "--dataset=digits"],
        ["evaluate", "--weights=WEIGHTS", "--dataset=digits", f"--data_dir=./{LONG}"],
        ["prepare", "--dataset=digits", f"--data_dir=./{LONG}"],
    ],
)
def test_names_of_256_bytes(
    arguments: list[str], weights: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put = {"WEIGHTS": str(weights), "PHOTO": str(photo)}
    for name, path in put.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "--weights=gsam/ViT-B_16", "--images=/etc/hosts"],
        ["prepare", "--dataset=digits"],
    ],
)
def test_no_home_directory(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_HOME, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "HOME" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["fifo", "socket", "zero", "folder", "loop"])
def test_what_is_no_file(
    kind: str, weights: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(name: str) -> Path:
        path = tmp_path / name
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            socket.socket(socket.AF_UNIX).bind(str(path))
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero" if kind == "zero" else path)
        return path

    scored = ["evaluate", f"--weights={weights}", "--dataset=digits", f"--data_dir={tmp_path}/d"]
    predicted = ["predict", f"--weights={weights}", f"--images={photo}"]
    for arguments in (
        ["describe", f"--config={make('config.py')}"],
        [*predicted, f"--class_names={make('names.txt')}"],
        *([*scored, f"--class_map={make(f'map{s}')}"] for s in (".txt", ".json", ".xml")),
        # A link that leads nowhere is replaced.
        *(
            [*some, f"--output={make(f'{n}.csv')}"]
            for n, some in enumerate(() if kind == "loop" else (predicted, scored))
        ),
    ):
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and str(tmp_path) in error
