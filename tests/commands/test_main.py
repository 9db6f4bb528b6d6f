"""The commands as a user types them: their help, what they describe, and mistakes."""

from pathlib import Path

import pytest

import vit_jax
from tests.commands.quickstart import quickstart
from vit_jax.__main__ import COMMANDS, main


def test_describe_a_config(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", *quickstart(data_dir, steps=8)]) == 0
    output = capsys.readouterr().out
    assert "digits/train, 1,437 examples" in output
    assert "uint8[16, 8, 8, 3]" in output


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
