"""`describe`: a recipe as a table, whether or not its data and devices are here."""

from pathlib import Path

import pytest

from vit_jax.__main__ import main
from vit_jax.data.sources.published import DATASETS, Dataset


def described(capsys: pytest.CaptureFixture[str], config: str, *overrides: str) -> dict[str, str]:
    """Rows by name, and what follows them under "no batch"."""
    assert main(["describe", f"--config=configs/{config}", *overrides]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[2:20].strip(): line[20:] for line in lines if line.startswith("  ")}
    notes = [line for line in lines if line.startswith("no batch: ")]
    return rows | {"no batch": notes[0] if notes else ""}


def test_a_recipe_of_table_3_without_data_or_devices(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ("--config.mesh.fsdp=16", "--config.optimizer.micro_batches=16")
    rows = described(capsys, "pretrain.py:h14,jft", *overrides)
    expected = {
        "classes": "18291",
        "data": "jft_300m/train, 303,000,000 examples",
        "batch size": "4,096",
        "micro-batches": "16 of 256",
        "epochs": "14",
        # 14 * 303e6 / 4096.
        "steps": "1,035,645",
        "base rate": "0.0003",
        "warm-up": "10,000 steps, linear",
        "schedule": "linear to 1e-05",
        "optimizer": "AdamW, betas 0.9, 0.999, first moment in float32",
        "weight decay": "0.1 times the rate, of all parameters",
        "gradient clipping": "none",
        "averaging": "none",
        "dropout": "none",
        "stochastic depth": "none",
        "loss": "sigmoid",
        "label smoothing": "none",
        "head bias": "-10",
        "representation": "tanh layer of width 1280",
        "positions": "learned",
        "pooling": "token",
        "activations": "bfloat16",
        "seed": "0",
        "crop": "5% to 100% of the area",
        "flip": "left to right",
        "RandAugment": "none",
        "Mixup": "none",
        "CutMix": "none",
        "random erasing": "none",
        "evaluation": "whole image, squashed",
        "starts from": "random parameters",
    }
    assert {name: rows[name] for name in expected} == expected
    assert rows["rates"].startswith("step 1: 3e-08, step 10,001: 0.0003, ")
    assert rows["rates"].endswith("step 1,035,645: 1e-05")
    assert rows["mesh"].startswith("not on this machine: config.mesh: data=-1, fsdp=16")
    assert rows["no batch"].startswith("no batch: unknown TFDS data set 'jft_300m'; ")


def test_the_plain_baseline_without_its_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = described(capsys, "plain_vit_s16.py", f"--config.data.data_dir={tmp_path}")
    expected = {
        "data": "imagenet2012/train[:99%], 1,268,355 examples",
        # 90 * 1,268,355 / 1024.
        "steps": "111,477",
        "positions": "sincos2d",
        "pooling": "gap",
        "activations": "bfloat16",
        "schedule": "cosine to 0",
        "optimizer": "AdamW, betas 0.9, 0.999, first moment in bfloat16",
        "weight decay": "0.1 times the rate, of kernels alone",
        "gradient clipping": "global norm 1",
        "RandAugment": "2 layers, magnitude 10, original faults",
        "Mixup": "0.2",
        "evaluation": "short side 256, central crop",
        "evals.val": "validation",
    }
    assert {name: rows[name] for name in expected} == expected


def test_fine_tuning_without_its_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = "bit_hyperrule.py:BiT-R50x1,cifar10,weights=bit/BiT-M-R50x1"
    rows = described(capsys, spec, f"--config.data.data_dir={tmp_path}")
    expected = {
        # 512 * 10,000 / 50,000.
        "epochs": "102.4",
        "schedule": "a tenth after each of the steps 3,000, 6,000, 9,000",
        "optimizer": "SGD, momentum 0.9 in float32",
        "weight decay": "none",
        "positions": None,
        "pooling": None,
        "crop": "from the image at 160x160",
        "starts from": "bit/BiT-M-R50x1, which is not a file here and was not read",
    }
    assert {name: rows.get(name) for name in expected} == expected


def test_everything_that_can_be_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = described(
        capsys,
        "quickstart.py",
        f"--config.data.data_dir={tmp_path}",
        "--config.data.crop=short_side",
        "--config.data.crop_side=9",
        "--config.data.cutmix=1.0",
        "--config.data.erase=0.25",
        "--config.optimizer.average=0.999",
        "--config.optimizer.layer_decay=0.75",
        "--config.optimizer.freeze=('embedding/.*',)",
        "--config.optimizer.rates=(('head/.*',10),)",
        "--config.model.dropout=0.1",
        "--config.model.stochastic_depth=0.2",
        "--config.seed=7",
        "--config.model.positions=none",
        "--config.evals.test.every_steps=50",
        "--config.early_stop.eval=test",
        "--config.early_stop.patience=3",
    )
    expected = {
        "crop": "from the image at short side 9",
        "affine": "15 degrees, shift 0.1, scale 0.15",
        "CutMix": "1",
        "random erasing": "probability 0.25",
        "averaging": "0.999 a step",
        "layer decay": "0.75",
        "frozen": "embedding/.*",
        "own rates": "head/.* 10x",
        "dropout": "0.1",
        "stochastic depth": "0.2 at the last block",
        "seed": "7",
        "positions": "none",
        "best step by": "test/top1",
        "patience": "3 evaluations",
        "mesh": "data 1, fsdp 1, tensor 1",
        "no batch": "",
    }
    assert {name: rows[name] for name in expected} == expected
    assert rows["images"].startswith("uint8[128, 8, 8, 3]")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain.py:b16,./nowhere,recipe=jft"], "nowhere does not exist"),
        (["pretrain.py:b16,no_such_set,recipe=jft"], "unknown TFDS data set 'no_such_set'"),
        (["pretrain.py:b16,imagenet", "--config.data.train=trian"], "splits: train (1281167)"),
        (
            ["pretrain.py:b16,imagenet", "--config.evals.val.split=valdation"],
            "splits: train (1281167), validation (50000)",
        ),
        (
            ["pretrain.py:b16,imagenet", "--config.evals.val.dataset=cifar1O"],
            "did you mean 'cifar10'?",
        ),
        (["pretrain.py:b16,imagenet", "--config.data.label=foo"], "no label 'foo'"),
        (["pretrain.py:b16,imagenet", "--config.data.max_labels=3"], "max_labels would be ignored"),
        (
            ["pretrain.py:b16,imagenet", "--config.data.test_fraction=0.1"],
            "test_fraction=0.1 would",
        ),
        (
            ["pretrain.py:b16,imagenet", "--config.optimizer.freeze=('haed',)"],
            "matches no parameter",
        ),
        (["pretrain.py:b16,imagenet", "--config.epochs=0.1"], "warmup_steps: 10000 take up all"),
    ],
)
def test_mistakes_are_told_without_the_data_too(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config, *overrides = arguments
    data_dir = f"--config.data.data_dir={tmp_path}"
    assert main(["describe", f"--config=configs/{config}", *overrides, data_dir]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error.splitlines()[-1]


@pytest.mark.parametrize(
    "override",
    ["--config.data.max_labels=8", "--config.evals.test.dataset=imagenet_v2/matched-frequency"],
)
def test_what_is_not_here_is_no_mistake(
    override: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data_dir = f"--config.data.data_dir={tmp_path}"
    rows = described(capsys, "pretrain.py:b16,jft", data_dir, override)
    assert rows["no batch"].startswith("no batch: unknown TFDS data set 'jft_300m'")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.data.label=foo", "has no label 'foo'"),
        ("--config.data.max_labels=3", "max_labels would be ignored"),
        ("--config.evals.test.split=tset", "splits: train (1437), test (360)"),
    ],
)
def test_mistakes_in_data_that_are_here(
    override: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With a published size, which used to stand in for them.
    digits = Dataset("digits", 10, {"train": 1437, "test": 360})
    monkeypatch.setitem(DATASETS, "digits", digits)
    data_dir = f"--config.data.data_dir={tmp_path}"
    assert main(["describe", "--config=configs/quickstart.py", override, data_dir]) == 2
    assert message in capsys.readouterr().err
