"""Studies: verdicts in closed form, cells as the paper has them, runs that resume."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.small_models import refusal
from vit_jax.__main__ import main
from vit_jax.config import load_config
from vit_jax.errors import UserError
from vit_jax.experiments.studies import running
from vit_jax.experiments.studies.ablations import STUDIES, Base
from vit_jax.experiments.studies.page import as_page
from vit_jax.experiments.studies.running import CellResult, check_study, run_study
from vit_jax.experiments.studies.study import Cell, Claim, Study, difference
from vit_jax.experiments.sweep_plan import PlannedRun
from vit_jax.experiments.sweep_runs import Outcome, outcome
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig

QUICK = "configs/quickstart.py"


def base(*changes: str, score: str = "test/top1") -> Base:
    config = build(TrainConfig, load_config(QUICK, changes))
    return Base(QUICK, changes, config, score)


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        # Variances 1e-4 each: the error is sqrt(2e-4 / 3) = 0.0082.
        ((0.60, 0.61, 0.62), (0.58, 0.59, 0.60), "seen"),
        ((0.58, 0.59, 0.60), (0.60, 0.61, 0.62), "not seen"),
        ((0.60, 0.61, 0.62), (0.59, 0.60, 0.61), "cannot be told here"),
        # Two seeds are too few for any verdict.
        ((0.9, 0.9), (0.1, 0.1), "cannot be told here"),
        ((0.9,), (0.1,), "cannot be told here"),
        ((0.9, 0.9, 0.9), (0.1, 0.1), "cannot be told here"),
    ],
)
def test_verdicts(better: Sequence[float], worse: Sequence[float], verdict: str) -> None:
    assert difference(better, worse).verdict == verdict


def test_the_error_of_a_difference() -> None:
    """Squared errors of the means add up: (4 + 1) / 3 for variances of 4 and 1."""
    found = difference((0, 2, 4), (1, 2, 3))
    assert (found.value, found.seeds) == (0, 3)
    assert math.isclose(found.error, (5 / 3) ** 0.5)
    assert difference((1.0,), (0.5,)).error == math.inf


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        # The second is 0.60 on average. The error is 0.0082 for deviations of 0.01.
        ((0.60, 0.60, 0.60), "cannot be told here"),
        ((0.62, 0.62, 0.62), "cannot be told here"),
        ((0.63, 0.63, 0.63), "not seen"),
        ((0.57, 0.57, 0.57), "not seen"),
    ],
)
def test_verdicts_that_two_cells_hardly_differ(first: Sequence[float], verdict: str) -> None:
    """Seen if the whole interval is within the bound, not seen if none of it is."""
    claim = Claim("alike", "ours", "one", "two", within=0.01)
    assert claim.verdict(difference(first, (0.59, 0.60, 0.61))) == verdict
    # With deviations of 0.001 the interval is 0.12 points.
    assert claim.verdict(difference(first, (0.599, 0.6, 0.601))) == (
        "seen" if first[0] == 0.6 else "not seen"
    )
    assert claim.verdict(difference(first[:2], (0.6, 0.6))) == "cannot be told here"


def test_the_cells_of_table_8() -> None:
    study = STUDIES["positions"](base())
    expected = {
        "no positions": ("none", 0.61382),
        "1-D positions, stem": ("learned", 0.64206),
        "1-D positions, every layer": ("learned_layers", 0.63964),
        "1-D positions, every layer, shared": ("learned_shared", 0.64292),
        "2-D positions, stem": ("learned2d", 0.64001),
        "2-D positions, every layer": ("learned2d_layers", 0.64046),
        "2-D positions, every layer, shared": ("learned2d_shared", 0.64022),
        "relative positions": ("relative", 0.64032),
    }
    assert study.published == {name: value for name, (_, value) in expected.items()}
    assert {cell.name: cell.changes for cell in study.cells} == {
        name: (f"--config.model.positions={value}",) for name, (value, _) in expected.items()
    }
    # By the paper's own figures each claim holds, though not beyond any error.
    for claim in study.claims:
        gain = study.published[claim.better] - study.published[claim.worse]
        assert gain > 0.02 if claim.within is None else abs(gain) < claim.within


def test_cells_are_the_paper_s_in_proportion() -> None:
    changes = "--config.optimizer.lr=0.0008"
    cells = {cell.name: cell for cell in STUDIES["heads"](base(changes)).cells}
    # Figure 9: 8e-4 and 3e-4.
    assert "--config.optimizer.lr=0.0003" in cells["mean over patches, 3/8 of the rate"].changes
    study = STUDIES["optimizers"](base("--config.data.batch_size=512"))
    # BiT: 0.03 for 256 images.
    assert "--config.optimizer.lr=0.06" in study.cells[1].changes
    assert "R50x1" in study.notes[0] and "77.54" in study.notes[0]
    # 9, 30 and 90 of 303 million, of 1,437 digits.
    subsets = [cell.changes[-1:] for cell in STUDIES["subsets"](base()).cells]
    sizes = (43, 142, 427)
    assert subsets == [*((f"--config.data.subset={size}",) for size in sizes), ()]
    shapes = {cell.name: cell.changes for cell in STUDIES["shape"](base()).cells}
    assert shapes["depth x4"] == ("--config.model.depth=16",)  # The base has 4.
    assert shapes["patch x0.5"] == ("--config.model.name=ViT-Ti/1",)
    for make in STUDIES.values():
        check_study(make(base()))


STUDY = Study(
    "pair",
    "one against two",
    "Figure 0",
    (
        Cell("one", QUICK, ("--config.optimizer.lr=0.001",), "test/top1"),
        Cell("two, after", QUICK, (), "test/top1", after="one"),
    ),
    (Claim("two is better", "section 0", better="two, after", worse="one"),),
    published={"one": 0.5},
    notes=("a choice of ours",),
)


def test_a_study_trains_each_cell_and_seed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[PlannedRun] = []

    def trained(run: PlannedRun) -> Outcome:
        """Leaves what `train` leaves; the third run fails at first."""
        started.append(run)
        if len(started) == 3:
            raise UserError(f"run {run.name} failed")
        score = 0.5 + 0.1 * run.name.startswith("two") + 0.001 * int(run.name[-1])
        run.directory.mkdir(parents=True)
        (run.directory / "weights.npz").touch()
        facts = {"step": 1, "scores": {"test/top1": score}}
        (run.directory / "weights.json").write_text(json.dumps(facts))
        found = outcome(run)
        assert found is not None
        return found

    monkeypatch.setattr(running, "carry_out", trained)
    assert "failed" in refusal(run_study, STUDY, tmp_path, (0, 1, 2))
    results = run_study(STUDY, tmp_path, (0, 1, 2), lambda _: None)
    assert [run.name for run in started] == [
        *("one/seed=0", "two,_after/seed=0", "one/seed=1", "one/seed=1"),
        *("two,_after/seed=1", "one/seed=2", "two,_after/seed=2"),
    ]
    assert f"--config.init_from={tmp_path / 'one/seed=2'}" in started[-1].arguments
    page = as_page(STUDY, results)
    assert page.rows[0][1:5] == ("50.10", "0.06", "3", "50.00")
    # Deviations of 0.001: an error of sqrt(2e-6 / 3).
    assert page.notes[0] == (
        "two is better (section 0): seen; two, after less one is +10.00 ± 0.16 points over 3 seeds"
    )
    assert page.notes[-1] == "a choice of ours"


def test_diverged_runs_give_no_verdict() -> None:
    results = [
        CellResult(STUDY.cells[0], (0.5, 0.6, 0.7), (), None),
        CellResult(STUDY.cells[1], (), (0, 1, 2), None),
    ]
    page = as_page(STUDY, results)
    assert page.notes[0] == "two is better (section 0): cannot be told here, since runs diverged"
    assert page.notes[1] == "two, after: diverged with seed 0, 1, 2"


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", "heads", f"--config={QUICK}", f"--workdir={tmp_path / 'study'}"]
    changed: Mapping[str, Sequence[str]] = {
        "no study 'hedas'": ["study", "hedas", *command[2:]],
        "has no evaluation 'tset'; write --score=EVALUATION/METRIC; did you mean 'test'": [
            *command,
            "--score=tset/top1",
        ],
        "--seeds is empty": [*command, "--seeds=,"],
        "ends with .md": [*command, "--output=a.txt"],
        "positions varies a ViT or a hybrid, and Mixer-S/4 is none": [
            *("study", "positions", *command[2:], "--config.model.name=Mixer-S/4"),
            *("--config.model.num_heads=none", "--config.model.pooling=inherit"),
        ],
        "shape varies a ViT, and R50x1 is none": [
            *("study", "shape", *command[2:], "--config.model.name=R50x1"),
            *(f"--config.model.{key}=none" for key in ("depth", "width", "mlp_dim", "num_heads")),
            *("--config.model.pooling=inherit", "--config.model.scan=true"),
        ],
    }
    for message, given in changed.items():
        assert main([*given]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_study_by_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command: list[Any] = [
        *("study", "optimizers", f"--config={QUICK}", f"--workdir={tmp_path / 'study'}"),
        *("--config.model.depth=1", "--config.total_steps=20", "--config.data.affine=none"),
        *("--config.optimizer.warmup_steps=0", f"--config.data.data_dir={tmp_path / 'data'}"),
        *("--seeds=0", f"--output={tmp_path / 'study.png'}"),
    ]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "Adam pre-trains better than SGD (appendix D.1): cannot be told here" in first
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    assert main(command) == 0
    assert "run 2 of 2, SGD/seed=0: had ended" in capsys.readouterr().out
