"""The course of a sweep, with runs that are files: its choice, its results, and how it resumes."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.small_models import refusal
from vit_jax.errors import UserError
from vit_jax.experiments import sweep
from vit_jax.experiments.sweep import run_index, run_sweep
from vit_jax.experiments.sweep_plan import Plan, PlannedRun, make_plan
from vit_jax.experiments.sweep_runs import Outcome, outcome

# By rate, on the held-out part; two are equal.
TRIED = {"0.001": 0.5, "0.003": 0.75, "0.01": 0.75, "0.03": None}
# By seed, on the test set.
FINAL = {0: 0.5, 1: 0.75, 2: 0.625}


class Runs:
    """Stands in for processes: a run writes what `train` would leave. Those in `fails` do not."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.fails: set[str] = set()

    def carry_out(self, run: PlannedRun) -> Outcome:
        self.started.append(run.name)
        if run.name in self.fails:
            raise UserError(f"run {run.name} failed")
        run.directory.mkdir(parents=True)
        self._leave(run)
        found = outcome(run)
        assert found is not None
        return found

    def _leave(self, run: PlannedRun) -> None:
        rate = run.setting.partition("=")[2]
        if run.name.startswith("grid"):
            if TRIED[rate] is None:
                (run.directory / "diverged.txt").write_text("step 7: loss is nan\n")
                return
            scores = {"held_out/top1": TRIED[rate], "held_out/examples": 144.0}
        else:
            scores = {"test/loss": 1.0, "test/top1": FINAL[int(rate)], "test/examples": 360.0}
        facts = {"step": 60, "scores": scores}
        cost = {"device_hours": 0.5, "core_days": 0.25, "images": 1920, "exaflops": 2.0}
        for name, value in {"weights.json": facts, "cost.json": cost}.items():
            (run.directory / name).write_text(json.dumps(value))
        (run.directory / "weights.npz").write_bytes(b"")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    stand_in = Runs()
    monkeypatch.setattr(sweep, "carry_out", stand_in.carry_out)
    return stand_in


def plan(workdir: Path, rates: tuple[str, ...] = tuple(TRIED), **changed: Any) -> Plan:
    options = {"grid": {"optimizer.lr": rates}, "held_out": 10, **changed}
    return make_plan("configs/quickstart.py", workdir, **options)


def names(made: Plan) -> list[str]:
    return [run.name for run in (*made.grid_runs(), *made.final_runs({"optimizer.lr": "0.003"}))]


def test_the_first_of_the_best_is_chosen_and_final_runs_give_mean_and_deviation(
    runs: Runs, tmp_path: Path
) -> None:
    made = plan(tmp_path)
    results = run_sweep(made)
    assert runs.started == names(made)
    assert results.chosen == {"optimizer.lr": "0.003"}
    assert results.seeds == (0, 1, 2)
    # Mean of 4, 6 and 5 eighths; squared differences 1, 1, 0 over n - 1 = 2.
    assert (results.mean["test/top1"], results.deviation["test/top1"]) == (5 / 8, 1 / 8)
    assert statistics.stdev([4, 6, 5]) == 1
    # The one of the seven runs that diverged has no cost here, so the sum is not known.
    assert results.cost is None
    shown = str(results)
    for words in (
        "| optimizer.lr=0.03  |      diverged |",
        "Chosen: optimizer.lr=0.003, by the highest held_out/top1.",
        "seeds 0, 1, 2 (deviation of the sample, with n - 1)",
        "| mean      |    0.6250 |    1.0000 |",
        "| deviation |    0.1250 |    0.0000 |",
    ):
        assert words in shown
    assert (tmp_path / "results.md").read_text() == f"{shown}\n"
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["deviation"] == results.deviation
    assert stored["grid"][1]["cost"]["device_hours"] == 0.5
    assert stored["deviation_of"] == "sample, n - 1"


def test_the_lowest_is_chosen_where_it_is_best(runs: Runs, tmp_path: Path) -> None:
    results = run_sweep(plan(tmp_path, ("0.003", "0.001"), mode="min"))
    assert results.chosen == {"optimizer.lr": "0.001"}
    assert "by the lowest held_out/top1." in str(results)


def test_the_cost_of_all_runs_is_added_up(runs: Runs, tmp_path: Path) -> None:
    results = run_sweep(plan(tmp_path, ("0.001", "0.01")))
    assert results.cost is not None
    assert (results.cost.device_hours, results.cost.images) == (2.5, 5 * 1920)
    assert results.cost.exaflops == 10
    assert "2.5 device-hours, 1.25 core-days, 9,600 images, 10 exaFLOPs" in str(results)


def test_one_final_run_has_no_deviation(runs: Runs, tmp_path: Path) -> None:
    results = run_sweep(plan(tmp_path, seeds=(2,)))
    assert (results.mean["test/top1"], results.deviation) == (0.625, {})
    assert "| deviation" not in str(results)


def test_what_has_ended_is_not_repeated_and_what_failed_is(runs: Runs, tmp_path: Path) -> None:
    made = plan(tmp_path)
    runs.fails = {names(made)[1]}
    assert "run grid/1-lr=0.003 failed" in refusal(run_sweep, made)
    runs.fails = {names(made)[5]}
    refusal(run_sweep, made)
    runs.fails = set()
    lines: list[str] = []
    results = run_sweep(made, lines.append)
    done = names(made)
    assert runs.started == [*done[:2], *done[1:6], *done[5:]]
    assert [line for line in lines if line.endswith("had ended")] == [
        f"run {i} of 7, {name}: had ended" for i, name in enumerate(done[:5], 1)
    ]
    before = (tmp_path / "results.json").read_bytes()
    assert run_sweep(made) == results
    assert (tmp_path / "results.json").read_bytes() == before


def test_jobs_of_an_array_share_the_work_in_any_order(runs: Runs, tmp_path: Path) -> None:
    made = plan(tmp_path)
    alone = run_sweep(plan(tmp_path / "alone"))
    runs.started = []
    lines: list[str] = []
    for index in (2, 0, 3):
        assert run_index(made, index, lines.append) is None
    assert lines[-1] == "missing: grid/1-lr=0.003, then the 3 final runs"
    message = refusal(run_index, made, 4)
    assert "--index=4 is a final run, which waits for the grid; missing: grid/1-lr=0.003" in message
    run_index(made, 1, lines.append)
    for index in (6, 4):
        assert run_index(made, index, lines.append) is None
    assert lines[-1] == "chosen: optimizer.lr=0.003; missing: final/seed=1"
    assert run_index(made, 5, lines.append) == alone
    assert runs.started == [names(made)[i] for i in (2, 0, 3, 1, 6, 4, 5)]
    assert run_index(made, 0, lines.append) == alone  # A job that is started again.


@pytest.mark.parametrize("index", [-1, 7])
def test_an_index_out_of_range_names_the_range(index: int, tmp_path: Path) -> None:
    message = refusal(run_index, plan(tmp_path), index)
    assert f"--index={index}: the runs of this sweep are 0 to 6, the grid being 0 to 3" in message
    assert not any(tmp_path.iterdir())


def test_another_sweep_in_the_same_directory_is_refused(runs: Runs, tmp_path: Path) -> None:
    run_sweep(plan(tmp_path))
    message = refusal(run_sweep, plan(tmp_path, ("0.001", "0.1")))
    assert f"{tmp_path} holds another sweep (grid.optimizer.lr: " in message
    assert "another --workdir" in message
    for changed in ({"seeds": (5,)}, {"held_out": 20}, {"overrides": ("--config.total_steps=9",)}):
        assert "holds another sweep" in refusal(run_sweep, plan(tmp_path, **changed))
    # What a run may change when it resumes, a sweep may too.
    run_sweep(plan(tmp_path, overrides=("--config.log_every=1", "--config.data.workers=1")))


def test_the_directory_of_a_run_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "lock"):
        (tmp_path / name).write_text("{}")
    assert "is the directory of a run" in refusal(run_sweep, plan(tmp_path))


def test_a_grid_that_diverged_everywhere_has_no_best(runs: Runs, tmp_path: Path) -> None:
    message = refusal(run_sweep, plan(tmp_path, ("0.03",)))
    assert "every run of the grid diverged (grid/0-lr=0.03: step 7: loss is nan); try" in message


def test_a_score_that_no_run_has_is_refused_with_those_it_has(runs: Runs, tmp_path: Path) -> None:
    message = refusal(run_sweep, plan(tmp_path, score="test/top3"))
    assert "no score 'top3'; --score=test/METRIC takes one of top1, examples" in message


@pytest.mark.parametrize("left", [b"", b"[]", b'{"scores": {"held_out/top1": null}}', b"\xff"])
def test_a_damaged_result_counts_as_missing(left: bytes, runs: Runs, tmp_path: Path) -> None:
    made = plan(tmp_path)
    run = made.grid_runs()[0]
    runs.carry_out(run)
    assert outcome(run) is not None
    (run.directory / "weights.json").write_bytes(left)
    assert outcome(run) is None
