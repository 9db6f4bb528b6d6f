"""A run that goes on with fewer or more processes than it began with."""

import json
import shutil
from pathlib import Path

import pytest

from tests.programs.run_here import run_here
from tests.real_processes import VIT_JAX, finish, start_on
from tests.tiny_run import FLAGS

EVERY, STEPS = 10, 30
RUN = [
    *(f"--config.total_steps={STEPS}", f"--config.checkpoint.every_steps={EVERY}"),
    *("--config.checkpoint.keep=3", "--config.log_every=1", "--config.data.batch_size=24"),
]
# Parameters and moments are split over all devices, so that each process saves its own part.
SPLIT = ["--config.model.width=48", "--config.model.mlp_dim=48", "--config.mesh.data=1"]


def command(workdir: Path, *more: str) -> list[str]:
    directories = [f"--config.data.data_dir={workdir.parent}", f"--workdir={workdir}"]
    return [*FLAGS, *RUN, *directories, *more]


def losses(workdir: Path) -> list[float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines for name in ("train/loss", "test/loss") if name in line]


def take_back(workdir: Path, step: int) -> None:
    """Leaves the run as it was when the checkpoint of a step was its newest."""
    for later in range(step + EVERY, STEPS + 1, EVERY):
        shutil.rmtree(workdir / "checkpoints" / str(later))
    (workdir / "weights.npz").unlink()


@pytest.mark.slow
@pytest.mark.parametrize("is_split", [False, True], ids=["whole", "split"])
def test_two_processes_then_one_then_three(is_split: bool, tmp_path: Path) -> None:
    def flags(workdir: Path, processes: int) -> list[str]:
        split = [*SPLIT, f"--config.mesh.fsdp={processes}"] if is_split else []
        return command(workdir, *split)

    run_here(flags(tmp_path / "whole", 1))
    expected = losses(tmp_path / "whole")
    assert len(expected) == STEPS + 2
    run = tmp_path / "run"
    finish(start_on((2, 1), [*VIT_JAX, *flags(run, 2)]))
    assert losses(run) == pytest.approx(expected, abs=1e-5)
    for resumed, processes in ((EVERY, 1), (2 * EVERY, 3)):
        take_back(run, resumed)
        outputs = finish(start_on((processes, 1), [*VIT_JAX, *flags(run, processes)]))
        assert f"resuming after step {resumed} of {STEPS}" in outputs[0]
        assert losses(run) == pytest.approx(expected, abs=1e-5)
        starts = json.loads((run / "cost.json").read_text())["starts"]
        assert starts[-1]["devices"] == processes and starts[-1]["first_step"] == resumed


def test_a_batch_that_the_new_number_of_devices_does_not_divide_is_one_line(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    run_here(command(workdir, "--config.checkpoint.every_steps=30"))
    (workdir / "weights.npz").unlink()
    for output in finish(start_on((5, 1), [*VIT_JAX, *command(workdir)]), code=2):
        *_, last = output.strip().splitlines()
        assert last.startswith("error: config.data.batch_size: 24 is not a multiple of 10")
        assert "4 or 6 devices can split it, and a new run may take 20 or 30" in last
