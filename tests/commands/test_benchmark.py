"""`benchmark`: tables, JSON and pictures of small measurements, and mistakes in one line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.data.pictures import encode, pixels
from vit_jax.__main__ import main
from vit_jax.experiments.benchmark import running

TINY = [
    *("--model", "ViT-mu/8", "--config.model.depth=1", "--config.model.num_classes=3"),
    *("--image_sizes=16", "--seconds=0", "--rounds=2"),
]
PHOTOS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    for name in ("cats", "dogs"):
        (path / name).mkdir()
        for i in range(PHOTOS // 2):
            (path / name / f"{i}.jpg").write_bytes(encode(pixels(30 + i, 40), "JPEG"))
    return path


def benchmark(*arguments: str) -> None:
    assert main(["benchmark", *arguments]) == 0


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line)


def test_training_as_table_numbers_and_picture(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = tmp_path / "speeds.png"
    benchmark("train", *TINY, "--batch_sizes=4,2", f"--output={picture}")
    printed = capsys.readouterr()
    heading, small, large, *_ = printed.out.splitlines()[3:]
    assert cells(heading)[:4] == ["model", "image", "batch", "img/s"]
    assert cells(small)[:3] == ["ViT-mu/8", "16x16", "2"]
    assert cells(large)[:3] == ["ViT-mu/8", "16x16", "4"]
    # CPUs have no published peak.
    assert cells(small)[cells(heading).index("MFU")] == "-"
    assert "ViT-mu/8 at 16x16, 2 images ..." in printed.err
    assert Image.open(picture).width > 500
    values = json.loads((tmp_path / "speeds.json").read_text())
    assert (values["benchmark"], values["complete"]) == ("train", True)
    assert (values["platform"], values["rounds"]) == ("cpu", 2)
    for row, batch_size in zip(values["results"], (2, 4), strict=True):
        assert row["batch_size"] == batch_size and row["fits"] and row["mfu"] is None
        seconds = row["calls"]["seconds"]
        # The median of two rounds is their mean.
        rates = [batch_size / each for each in seconds]
        assert row["images_per_second"]["median"] == pytest.approx(sum(rates) / 2)
        memory = row["memory_bytes"]
        parts = ("arguments", "temporaries", "outputs")
        assert memory["total"] == sum(memory[part] for part in parts)
        # Images of 8 bits, labels and weights are among the arguments.
        assert memory["arguments"] > batch_size * (16 * 16 * 3 + 4 + 4)
        assert row["trace_seconds"] > 0 and row["compile_seconds"] > 0


def test_inference_and_figure_12(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "speeds.json"
    flags = [*TINY, "--image_sizes=16,32", "--batch_sizes=2"]
    benchmark("inference", *flags, f"--output={file}")
    capsys.readouterr()
    picture = tmp_path / "figure.png"
    assert main(["paper", "--figure=12", f"--runs={file}", f"--output={picture}"]) == 0
    printed = capsys.readouterr().out
    assert "Figure 12" in printed and "the paper: large ViTs fit clearly larger" in printed
    rows = [cells(line) for line in printed.splitlines() if line.startswith("ViT-mu/8")]
    values = json.loads(file.read_text())
    assert [row[1] for row in rows] == ["16", "32"]
    for row, measured in zip(rows, values["results"], strict=True):
        rate = measured["images_per_second_a_device"]
        assert float(row[2].replace(",", "")) == pytest.approx(rate, rel=1e-3)
    # Time an image grows with this power of the side.
    first, second = (each["images_per_second_a_device"] for each in values["results"])
    power = re.search(r"ViT-mu/8 takes the power (-?[\d.]+) of the side from 16 to 32", printed)
    assert power is not None
    assert 2 ** float(power[1]) == pytest.approx(first / second, rel=0.05)
    assert Image.open(picture).width > 500
    # The models and sizes of the paper's figure have rows before they are measured.
    assert main(["paper", "--figure=12"]) == 0
    assert len(re.findall(r"^(?:ViT|BiT)", capsys.readouterr().out, re.MULTILINE)) == 8 * 5


def test_input_of_a_folder(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    speeds = tmp_path / "train.json"
    row = {"model": "ViT-B/16", "settings": "", "image_height": 224, "image_width": 224}
    row |= {"batch_size": 8, "batch_size_a_device": 4, "fits": True}
    row |= {"images_per_second": {"low": 90.0, "median": 100.0, "high": 110.0}}
    values = {"benchmark": "train", "device": "x", "results": [row], "largest": []}
    speeds.write_text(json.dumps(values))
    flags = [f"--dataset={folder}", "--workers=0,1", "--batch_sizes=4", "--image_sizes=24"]
    flags += ["--seconds=0", "--rounds=2", f"--rate={speeds}", f"--output={tmp_path}/input.svg"]
    benchmark("input", *flags, "--config.data.randaugment.layers=1")
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "input.json").read_text())
    stages = found["stages"]
    assert list(stages) == ["read", "decode", "crop and resize", "augment", "batch", "transfer"]
    shown = {line[0]: line[1] for line in map(cells, printed.splitlines()) if len(line) == 4}
    total = sum(stage["cpu_seconds"] for stage in stages.values())
    assert float(shown["all"]) == pytest.approx(1000 * total, abs=0.001)
    assert stages["decode"]["cpu_seconds"] > 0
    assert [each["workers"] for each in found["loader"]] == [0, 1]
    assert len(found["loader"][1]["rounds"]["images_per_second"]) == 2
    # Two devices train 100 images a second.
    fastest = max(found["loader"], key=lambda each: each["images_per_second"]["median"])
    assert found["cores_a_device"]["ViT-B/16, 224"] == pytest.approx(
        50 / fastest["images_per_cpu_second"]
    )
    assert "a device that trains 50 img/s (ViT-B/16, 224) needs" in printed
    assert (tmp_path / "input.svg").read_text().startswith("<?xml")


def test_input_of_a_config_without_augmentation(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    flags = [f"--config=configs/pretrain.py:ti16,{folder}", "--config.data.batch_size=4"]
    flags += ["--config.data.randaugment=none", "--image_sizes=16", "--workers=0"]
    benchmark("input", *flags, "--seconds=0", "--rounds=1")
    lines = [cells(line) for line in capsys.readouterr().out.splitlines()]
    assert ["augment", "0.000", "0.0%", "0.000"] in lines


def test_an_image_that_cannot_be_read_is_named(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes(b"no image")
        (tmp_path / name / "1.jpg").write_bytes(b"no image either")
    flags = [f"--dataset={tmp_path}", "--batch_sizes=2", "--image_sizes=16", "--seconds=0"]
    assert main(["benchmark", "input", *flags]) == 2
    assert "leave such images out: --config.data.on_error=skip" in capsys.readouterr().err
    assert main(["benchmark", "input", *flags, "--config.data.on_error=skip"]) == 2
    assert "none of the images of" in capsys.readouterr().err


def test_an_interrupt_prints_what_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured = running._measure
    calls: list[Any] = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measured(*arguments)

    monkeypatch.setattr(running, "_measure", interrupted)
    output = tmp_path / "speeds.json"
    flags = [*TINY, "--batch_sizes=2,4", f"--output={output}"]
    assert main(["benchmark", "inference", *flags]) == 130
    printed = capsys.readouterr().out
    assert "interrupted: not all was measured" in printed
    values = json.loads(output.read_text())
    assert not values["complete"] and [each["batch_size"] for each in values["results"]] == [2]


MISTAKES = [
    (["train", "--model", "ViT-Q/16"], "ViT-Q/16"),
    (["train", "--batch_sizes=0"], "'0' must be a whole number of at least 1"),
    (["train", "--image_sizes=224x"], "is not a size"),
    (["train", *TINY, "--image_sizes=4"], "8x8"),
    (
        ["train", *TINY, "--batch_sizes=3", "--config.optimizer.micro_batches=2"],
        "3 is not a multiple of",
    ),
    (["train", *TINY, "--vary=model.remat=blok"], "blok"),
    (["train", *TINY, "--vary=model.remat"], "must be KEY=VALUE,VALUE"),
    (["train", "--config=no.py"], "no.py"),
    (["train", "--dataset=x"], "--dataset would be ignored"),
    (["trian"], "invalid choice"),
    (["train", "--output=x.txt"], "name a file that ends with .json, .png, .svg"),
    (["train", "--output=no/x.png"], "No such file or directory"),
    (["train", "--seconds=-1"], "must be seconds"),
    (["input"], "needs either --config or --dataset"),
    (["input", "--dataset=./no"], "no does not exist"),
    (["input", "--dataset=./no", "--largest"], "--largest would be ignored"),
    (["input", "--dataset=./no", "--rate=fast"], "must be images a second"),
    (["input", "--dataset=./no", "--rate=no.json"], "no.json"),
    (["input", "--dataset=./no", "--image_sizes=16,32"], "takes one"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_line(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "_measure", lambda *_: pytest.fail("measured"))
    assert main(["benchmark", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "is no file that `benchmark inference"),
        ('{"benchmark": "train"}', "holds a benchmark of train"),
        ('{"benchmark": "inference", "device": "x", "results": [{}]}', "is no file that"),
    ],
)
def test_figure_12_of_another_file(
    content: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text(content)
    assert main(["paper", "--figure=12", f"--runs={tmp_path}/x.json"]) == 2
    assert said in capsys.readouterr().err
