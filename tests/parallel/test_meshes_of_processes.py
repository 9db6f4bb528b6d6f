"""Parameters that are split over processes: the same run, saved here and restored there."""

import json
import shutil
from pathlib import Path

import pytest

from tests.eight_devices import EightDevices
from tests.programs.run_here import run_here
from tests.real_processes import TWO_BY_FOUR, VIT_JAX, Topology, finish, start_on
from tests.tiny_run import FLAGS

FOUR_BY_TWO = (4, 2)
# Each of these `tensor` axes reaches over two processes; small arrays are split as well.
MESHES = {
    TWO_BY_FOUR: ["--config.mesh.tensor=8", "--config.mesh.sequence=True"],
    FOUR_BY_TWO: ["--config.mesh.data=1", "--config.mesh.fsdp=2", "--config.mesh.tensor=4"],
}
RUN = [
    *("--config.total_steps=20", "--config.log_every=1", "--config.checkpoint.every_steps=10"),
    *("--config.model.num_heads=8", "--config.model.width=32", "--config.model.mlp_dim=1024"),
]


def command(workdir: Path, *more: str) -> list[str]:
    directories = [f"--config.data.data_dir={workdir.parent}", f"--workdir={workdir}"]
    return [*FLAGS, *RUN, *directories, *more]


def losses(workdir: Path) -> list[float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines for name in ("train/loss", "test/loss") if name in line]


@pytest.fixture(scope="module")
def on_one(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    workdir = tmp_path_factory.mktemp("runs") / "one"
    run_here(command(workdir))
    return losses(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("topology", MESHES, ids=["2x4", "4x2"])
def test_tensor_reaches_over_processes(
    topology: Topology, on_one: list[float], tmp_path: Path, eight_devices: EightDevices
) -> None:
    workdir = tmp_path / "run"
    finish(start_on(topology, [*VIT_JAX, *command(workdir, *MESHES[topology])]))
    assert len(on_one) == 21
    assert losses(workdir) == pytest.approx(on_one, abs=1e-5)
    for devices in (8, 1):
        resumed = tmp_path / f"on_{devices}"
        shutil.copytree(workdir, resumed)
        shutil.rmtree(resumed / "checkpoints/20")
        (resumed / "weights.npz").unlink()
        flags = command(resumed)
        output = eight_devices.run(run_here, flags) if devices == 8 else run_here(flags)
        assert "resuming after step 10 of 20" in output
        assert losses(resumed) == pytest.approx(on_one, abs=1e-5)
