"""The commands as a user types them, on a model that trains in a second."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.small_models import TINY_FLAGS
from vit_jax.__main__ import COMMANDS, main
from vit_jax.parallel.processes import Preemption
from vit_jax.training.reporter import Reporter

pytestmark = pytest.mark.usefixtures("shared_programs")

TINY = [
    *TINY_FLAGS,
    "--config.data.batch_size=16",
    "--config.data.workers=0",
    "--config.log_every=2",
    "--config.optimizer.warmup_steps=2",
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def quickstart(data_dir: Path, *, steps: int, argument: str = "") -> list[str]:
    return [
        f"--config=configs/quickstart.py{argument}",
        *TINY,
        f"--config.data.data_dir={data_dir}",
        f"--config.total_steps={steps}",
        "--config.evals.test.every_steps=4",
        "--config.checkpoint.every_steps=4",
    ]


def metrics(workdir: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))} for line in lines
    ]


@pytest.fixture(scope="module")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps on the digits."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", *quickstart(data_dir, steps=8), f"--workdir={workdir}"]) == 0
    return workdir


def test_train_leaves_what_a_run_should(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        *("config.json", "versions.json", "metrics.jsonl", "tensorboard", "checkpoints"),
        *("weights.npz", "weights.json"),
    }
    lines = metrics(finished)
    assert [line["step"] for line in lines if "train/loss" in line] == [2, 4, 6, 8]
    assert [line["step"] for line in lines if "test/top1" in line] == [4, 8]
    assert all(line["test/examples"] == 360 for line in lines if "test/examples" in line)
    # Warm-up over 2 steps to 3e-3, then cosine over the 6 that are left; rates of updates 2, 8.
    rates = {line["step"]: line["train/lr"] for line in lines if "train/lr" in line}
    assert rates[2] == pytest.approx(3e-3)
    assert rates[8] == pytest.approx(3e-3 * 0.5 * (1 + np.cos(np.pi * 5 / 6)), rel=1e-4)
    description = json.loads((finished / "weights.json").read_text())
    assert (description["averaged"], description["loss"]) == (False, "softmax")
    assert description["class_names"] == [str(digit) for digit in range(10)]
    assert description["model"]["preprocessing"]["mean"] == [0.5, 0.5, 0.5]


def test_a_stopped_run_resumes_as_if_it_had_not_stopped(
    finished: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", *quickstart(data_dir, steps=8), f"--workdir={tmp_path / 'run'}"]
    log_step = Reporter.log_step

    def interrupt(self: Reporter, step: int, scalars: Any, *, waited: float) -> None:
        log_step(self, step, scalars, waited=waited)
        if step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "log_step", interrupt)
    assert main(command) == 130
    monkeypatch.undo()
    assert main(command) == 0
    assert metrics(tmp_path / "run") == metrics(finished)
    assert (tmp_path / "run/weights.npz").read_bytes() == (finished / "weights.npz").read_bytes()


def test_a_run_stopped_in_its_evaluations_still_owes_them(
    finished: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, stop_at = 0, 0

    def reached(self: Preemption) -> bool:
        nonlocal calls
        calls += 1
        return calls >= stop_at

    monkeypatch.setattr(Preemption, "reached", reached)
    command = ["train", *quickstart(data_dir, steps=8), f"--workdir={tmp_path / 'run'}"]
    # Four steps and one batch of the evaluation that follows; then one batch of the owed one; then
    # all of it and two steps, between checkpoints; then nothing stops it any more.
    for moment, code in ((6, 143), (2, 143), (23 + 2, 143), (10**9, 0)):
        calls, stop_at = 0, moment
        assert main(command) == code
    assert metrics(tmp_path / "run") == metrics(finished)
    assert (tmp_path / "run/weights.npz").read_bytes() == (finished / "weights.npz").read_bytes()


def test_evaluate_repeats_the_last_evaluation(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.json"
    assert main(["evaluate", f"--weights={finished}", f"--output={output}"]) == 0
    scores = json.loads(output.read_text())[-1]["scores"]
    last = [line for line in metrics(finished) if "test/top1" in line][-1]
    assert scores["top1"] == last["test/top1"]
    assert scores["loss"] == pytest.approx(last["test/loss"], rel=1e-6)


def test_fine_tunes_at_twice_the_resolution(
    finished: Path, data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = quickstart(data_dir, steps=4, argument=f":{finished}")
    assert main(["train", *arguments, f"--workdir={tmp_path}"]) == 0
    assert "positions 4x4 -> 8x8" in caplog.text
    description = json.loads((tmp_path / "weights.json").read_text())
    assert description["model"]["image_size"] == 16


def test_describe_a_config(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", *quickstart(data_dir, steps=8)]) == 0
    output = capsys.readouterr().out
    assert "digits/train, 1,437 examples" in output
    assert "uint8[16, 8, 8, 3]" in output


def test_describe_and_train_on_label_sets(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *quickstart(data_dir, steps=4),
        "--config.data.dataset=long_tail/classes=20,images=200",
        *("--config.data.max_labels=8", "--config.data.subset=100"),
    ]
    assert main(["describe", *arguments]) == 0
    output = capsys.readouterr().out
    assert "100 of long_tail/classes=20,images=200/train, 100 examples" in output
    assert "int32[16, 8], -1 to" in output
    assert "classes seen" in output and "labels an image" in output
    for loss in ("softmax", "sigmoid"):
        workdir = tmp_path / loss
        assert main(["train", *arguments, f"--config.loss={loss}", f"--workdir={workdir}"]) == 0
        assert metrics(workdir)[-1]["test/examples"] == 20
    assert "test top-1" in capsys.readouterr().out
    names = json.loads((workdir / "weights.json").read_text())["class_names"]
    assert names == [f"class_{number}" for number in range(20)]


def test_an_option_of_label_sets_on_other_data(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = quickstart(data_dir, steps=4)
    assert main(["describe", *arguments, "--config.data.max_labels=8"]) == 2
    assert "max_labels would be ignored" in capsys.readouterr().err
    assert main(["describe", *arguments, "--config.data.subset=1438"]) == 2
    assert "more than the 1437 records" in capsys.readouterr().err


def test_describe_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "--model=b16", "--image_size=224"]) == 0
    output = capsys.readouterr().out
    assert "86,567,656" in output  # The released count, with 1,000 classes.
    assert "197 (196 patches + class token)" in output


def test_trains_on_a_folder_whose_test_split_lacks_a_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Red, green and blue squares, without green ones to test on; colour is easy to learn."""
    rng = np.random.default_rng(0)
    for split, colors in {"train": (0, 1, 2), "test": (0, 2)}.items():
        for channel in colors:
            folder = tmp_path / "photos" / split / "rgb"[channel]
            folder.mkdir(parents=True)
            for number in range(12):
                pixels = rng.integers(0, 60, (20, 24, 3), dtype=np.uint8)
                pixels[..., channel] += 190
                Image.fromarray(pixels).save(folder / f"{number}.png")
    command = [
        "train",
        f"--config=configs/pretrain.py:ti16,{tmp_path / 'photos'}",
        *TINY,
        "--config.model.image_size=16",
        "--config.total_steps=40",
        "--config.optimizer.lr=0.01",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert main(command) == 0
    description = json.loads((tmp_path / "run/weights.json").read_text())
    assert description["class_names"] == ["b", "g", "r"]
    last = metrics(tmp_path / "run")[-1]
    assert last["test/examples"] == 24
    # With the test split's own numbering, red would be class 1 and could never be right.
    assert last["test/top1"] == 1.0
    capsys.readouterr()


def test_the_commands_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vit_jax {vit_jax.__version__}\n"
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    files = Path(vit_jax.__file__).parent.joinpath("commands").glob("*.py")
    # A file with `run` is a command; the others are shared by some.
    commands = {file.stem for file in files if "\ndef run(arguments" in file.read_text()}
    assert COMMANDS.keys() == commands
    assert all(f"  {name} " in output for name in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^0$"):
        main([command, "--help"])
    output = capsys.readouterr().out
    assert f"usage: python -m vit_jax {command}" in output
    if "--config FILE" in output:
        assert "--config.SECTION.KEY=VALUE" in output
    if "--image_size" in output:
        assert "HEIGHTxWIDTH" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no command 'trian'; did you mean 'train'?"),
        (["train", "--workdir=x"], "the following arguments are required: --config"),
        (
            ["train", "--config=configs/quickstart.py", "--workdir=x", "--wrokdir=y"],
            "train: unknown argument '--wrokdir=y'; did you mean '--workdir'?",
        ),
        (["evaluate", "--weights=nowhere.npz"], "nowhere.npz"),
        (["describe"], "describe needs either --config or --model"),
        (["describe", "--model=ViT-Q/16"], "model 'ViT-Q/16': no such model"),
        (["describe", "--model=b16", "--image_size=axb"], "such as 384x512"),
        (["prepare", "--dataset=fashion_mnst"], "did you mean 'fashion_mnist'?"),
        (["prepare", "--dataset=cifar10", "--config.seed=1"], "would be ignored"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning_rate=1", "config.optimizer.learning_rate: no such key"),
        ("optimizer.lr=fast", "config.optimizer.lr"),
        ("optimizer.momentum=0.9", "momentum would be ignored: adamw has none"),
        ("optimizer.name=adam", "adamw"),
        ("epochs=3", "exactly one of total_steps and epochs"),
        ("model.name=ViT-Ti/9", "below one patch"),
        ("model.num_classes=9", "below the 10 classes"),
        ("data.dataset=digit", "did you mean 'digits'?"),
        ("data.train=trian", "train"),
        ("optimizer.micro_batches=3", "not a multiple of"),
        ("mesh.fsdp=2", "does not divide the 1 devices"),
        ("optimizer.warmup_steps=8", "take up all 8 steps"),
        ("evals.test.split=validation", "validation"),
        ("evals.tset=none", "no section 'tset'; did you mean 'test'?"),
        ("model.image_size=8x", "expected an integer"),
        ("evals.train.split=test", "evals.train: the name is taken"),
        ("evals.time.split=test", "evals.time: the name is taken"),
        ("init_from=/nowhere", "/nowhere"),
    ],
)
def test_mistakes_in_a_config_leave_no_directory(
    override: str,
    message: str,
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workdir = tmp_path / "run"
    arguments = ["train", *quickstart(data_dir, steps=8), f"--config.{override}"]
    assert main([*arguments, f"--workdir={workdir}"]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("trained", "tested", "message"),
    [
        ("own", "own", "own/test/c is missing from"),
        ("ab", "abc", "1 of its 3 classes are none of the model's: 'c'"),
    ],
)
def test_a_test_class_that_train_lacks_leaves_no_directory(
    trained: str,
    tested: str,
    message: str,
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    splits = {"own/train": "ab", "own/test": "abc", "ab/train": "ab", "abc/train": "abc"}
    for split, classes in (splits | {"abc/test": "abc"}).items():
        for name in classes:
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.png").touch()
    arguments = [*quickstart(data_dir, steps=8), f"--config.data.dataset={tmp_path / trained}"]
    arguments += [f"--config.evals.test.dataset={tmp_path / tested}"]
    assert main(["train", *arguments, f"--workdir={tmp_path / 'run'}"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


# Where root cannot write either; the second is there already.
@pytest.mark.parametrize("workdir", ["/proc/run", "/proc/self"])
def test_a_read_only_work_directory_is_refused(
    workdir: str, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *quickstart(data_dir, steps=8), f"--workdir={workdir}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: cannot write to the work directory {workdir}")


def assert_began_and_no_more(workdir: Path) -> None:
    """A run that a mistake ends at its first batch leaves nothing that is not whole."""
    assert json.loads((workdir / "config.json").read_text())["total_steps"] == 8
    assert (workdir / "metrics.jsonl").read_bytes() == b""
    assert list((workdir / "checkpoints").iterdir()) == []
    names = {"config.json", "versions.json", "metrics.jsonl", "tensorboard", "checkpoints", "lock"}
    names |= {"data.gz"}
    assert {path.name for path in workdir.iterdir()} == names


def test_labels_out_of_range_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The digits, but with a list of classes that ends with 8.
    assert main(["prepare", "--dataset=digits", f"--data_dir={tmp_path / 'data'}"]) == 0
    (classes,) = (tmp_path / "data").rglob("label.labels.txt")
    classes.write_text("\n".join("012345678"))
    arguments = [*quickstart(tmp_path / "data", steps=8), "--config.data.batch_size=64"]
    assert main(["train", *arguments, f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: digits/train[")
    assert "label 9 is not one of the 9 classes" in error
    assert_began_and_no_more(tmp_path / "run")


def test_workers_may_change_on_resume(finished: Path, data_dir: Path, tmp_path: Path) -> None:
    command = ["train", *quickstart(data_dir, steps=8), f"--workdir={tmp_path / 'run'}"]
    assert main([*command, "--config.data.workers=2"]) == 0
    assert (tmp_path / "run/weights.npz").read_bytes() == (finished / "weights.npz").read_bytes()


def test_a_compile_cache_is_a_local_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--config=configs/quickstart.py", "--workdir=run", "--compile_cache=gs://bucket/cache"]
    assert main(["train", *flags]) == 2
    assert capsys.readouterr().err.startswith(
        "error: argument --compile_cache: gs://bucket/cache must be a local or mounted path; "
    )
    assert list(tmp_path.iterdir()) == []
