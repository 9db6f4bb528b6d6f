"""What a sweep would run: the paper's rates and parts, and mistakes before the first run."""

from pathlib import Path
from typing import Any

import pytest

from tests.small_models import refusal
from vit_jax.config import load_config
from vit_jax.data.sources.splits import split_ranges
from vit_jax.evaluation.few_shot import FewShotConfig
from vit_jax.experiments.sweep_plan import Plan, make_plan
from vit_jax.experiments.sweep_splits import parts_of
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig

DIGITS = "configs/quickstart.py"
RATES = {"optimizer.lr": ("0.001", "0.01")}


def plan(config: str = DIGITS, **changed: Any) -> Plan:
    given = {"grid": RATES, "held_out": 10} if config == DIGITS else {}
    return make_plan(config, Path("sweeps"), **{**given, **changed})


# Table 4, and appendix B.1.1: 10 % of Pets and Flowers, 2 % of CIFAR, 1 % of ImageNet.
@pytest.mark.parametrize(
    ("data", "fit", "held_out", "first"),
    [
        ("imagenet", "train[:99%]", "train[99%:]", 0.003),
        ("cifar100", "train[:98%]", "train[98%:]", 0.001),
        ("cifar10", "train[:98%]", "train[98%:]", 0.001),
        ("pets", "train[:90%]", "train[90%:]", 0.001),
        ("flowers", "train[:90%]", "train[90%:]", 0.001),
    ],
)
def test_the_papers_data_sets_have_its_rates_and_parts(
    data: str, fit: str, held_out: str, first: float
) -> None:
    made = plan(f"configs/finetune.py:b16,{data},weights=b16.npz")
    configs = [build_of(made.grid_runs()[i].arguments) for i in range(4)]
    factors = (1, 10 / 3, 10, 20) if data == "imagenet" else (1, 3, 10, 30)
    assert [each.optimizer.lr for each in configs] == pytest.approx([first * f for f in factors])
    assert {each.data.train for each in configs} == {fit}
    assert [list(each.evals) for each in configs] == [["held_out"]] * 4
    assert configs[0].evals["held_out"].split == held_out
    final = [build_of(each.arguments) for each in made.final_runs(made.points[2])]
    assert [each.seed for each in final] == [0, 1, 2]
    assert {each.optimizer.lr for each in final} == {configs[2].optimizer.lr}
    test = "validation" if data == "imagenet" else "test"
    assert {(each.data.train, each.evals["test"].split) for each in final} == {("train", test)}


def build_of(arguments: tuple[str, ...]) -> TrainConfig:
    """The config that `train` would build of its arguments."""
    config, *others = arguments
    overrides = [each for each in others if each.startswith("--config.")]
    return build(TrainConfig, load_config(config.removeprefix("--config="), overrides))


def test_a_grid_of_several_keys_is_all_combinations() -> None:
    made = plan(
        grid={"optimizer.lr": ("0.1", "0.2"), "data.crop_area": ("(0.5,1.0)",)},
        overrides=("--config.data.crop=inception",),
    )
    assert [dict(point) for point in made.points] == [
        {"optimizer.lr": rate, "data.crop_area": "(0.5,1.0)"} for rate in ("0.1", "0.2")
    ]
    names = [run.name for run in made.grid_runs()]
    assert names == [f"grid/{i}-lr=0.{i + 1},crop_area=_0.5,1.0_" for i in range(2)]


def test_the_held_out_part_is_scored_as_the_chosen_evaluation_says() -> None:
    made = plan(
        overrides=(
            "--config.evals.fine.split=test",
            "--config.evals.fine.kind=per_class",
            "--config.evals.fine.batch_size=24",
        ),
        score="fine/balanced_accuracy",
    )
    config = build_of(made.grid_runs()[0].arguments)
    (scored,) = config.evals.values()
    assert (scored.kind, scored.batch_size, scored.split) == ("per_class", 24, "train[90%:]")
    assert made.score == "held_out/balanced_accuracy"


def test_a_probe_learns_nothing_from_the_held_out_part() -> None:
    made = plan(overrides=("--config.evals.test.kind=few_shot", "--config.evals.test.shots=(1, 5)"))
    tried = build_of(made.grid_runs()[0].arguments).evals["held_out"]
    assert isinstance(tried, FewShotConfig) and tried.shots == (1, 5)
    assert (tried.train_split, tried.split) == ("train[:90%]", "train[90%:]")
    final = build_of(made.final_runs(made.points[0])[0].arguments).evals["test"]
    assert isinstance(final, FewShotConfig) and final.train_split == "train"


@pytest.mark.parametrize(
    ("split", "percent", "expected"),
    [
        ("train", 10, ("train[:90%]", "train[90%:]")),
        ("train[:80%]", 10, ("train[:72%]", "train[72%:80%]")),
        ("train[20%:]", 25, ("train[20%:80%]", "train[80%:]")),
        ("train[:800]", 20, ("train[:640]", "train[640:800]")),
        ("train[100:200]", 33, ("train[100:167]", "train[167:200]")),
    ],
)
def test_parts_are_the_split_and_its_end(
    split: str, percent: int, expected: tuple[str, str]
) -> None:
    assert parts_of(split, percent) == expected
    # TFDS's own parser: the parts lie side by side, and are the split together.
    lengths = {"train": [1437]}
    (whole,), (fit,), (held,) = (split_ranges(s, lengths, "digits") for s in (split, *expected))
    assert (fit.start, fit.stop, held.stop) == (whole.start, held.start, whole.stop)
    assert held.stop - held.start == pytest.approx(
        (whole.stop - whole.start) * percent / 100, abs=1
    )


@pytest.mark.parametrize(
    ("split", "percent", "words"),
    [
        ("train[:5%]", 10, "cannot be cut"),
        ("train[51200:]", 10, "cannot be cut"),
        ("train+test", 10, "cannot be cut"),
        ("train", 100, "from 1% to 99%"),
        ("train[:5]", 10, "cannot be cut"),
    ],
)
def test_splits_that_cannot_be_cut_are_refused(split: str, percent: int, words: str) -> None:
    if split == "train[:5]":
        assert parts_of(split, 10) == ("train[:4]", "train[4:5]")
    else:
        assert words in refusal(parts_of, split, percent)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"grid": {"optimizer.lrr": ("1",)}}, "config.optimizer.lrr: no such key; did you mean"),
        ({"grid": {"optimizer.lr": ("fast",)}}, "--grid, at optimizer.lr=fast: config.optimizer"),
        ({"grid": {}}, "the grid is empty; write one"),
        ({"grid": {"optimizer.lr": ()}}, "--grid.optimizer.lr has no values"),
        ({"grid": {"optimizer.lr": ("1", "1")}}, "1 is there twice"),
        ({"grid": None}, "no rates for 'digits'; write a grid"),
        ({"grid": {"seed": ("1", "2")}}, "sets config.seed itself, by --seeds"),
        ({"grid": {"evals.test.split": ("test",)}}, "sets config.evals itself, by --score"),
        ({"held_out": None}, "holds out no part of 'digits'; say how much"),
        ({"held_out": 0}, "from 1% to 99%"),
        ({"score": "tset/top1"}, "did you mean 'test'?"),
        ({"score": "test/loss"}, "the lowest is best; add --mode=min"),
        ({"seeds": (1, 1)}, "--seeds: 1 is there twice"),
        ({"seeds": ()}, "--seeds is empty"),
        ({"overrides": ("--config.optimizer.lr=1",)}, "--config.optimizer.lr would be ignored"),
        ({"overrides": ("--config.max_minutes=5",)}, "--config.max_minutes=none"),
        ({"overrides": ("--config.init_from=hf://org/vit@v1",)}, "as in hf://org/vit@COMMIT"),
        ({"overrides": ("--config.evals=none",)}, "no evaluation to choose by"),
        ({"overrides": ("--config.total_steps=auto",)}, "config.total_steps is 'auto'"),
        (
            {"overrides": ("--config.early_stop.eval=test",)},
            "switch it off with --config.early_stop=none",
        ),
    ],
)
def test_mistakes_show_before_the_first_run(changed: dict[str, Any], words: str) -> None:
    assert words in refusal(plan, **changed)
