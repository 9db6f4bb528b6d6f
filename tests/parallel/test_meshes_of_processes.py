"""Parameters that are split over processes: the same run, saved here and restored there."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.real_processes import EIGHT, ONE, TWO_BY_FOUR, Topology, finish, start_on
from tests.tiny_run import COMMAND

# They share one run that nothing disturbed.
pytestmark = pytest.mark.xdist_group("meshes_of_processes")

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


def start(topology: Topology, workdir: Path, *more: str) -> list[subprocess.Popen[str]]:
    directories = [f"--config.data.data_dir={workdir.parent}", f"--workdir={workdir}"]
    return start_on(topology, [*COMMAND, *RUN, *directories, *more])


def losses(workdir: Path) -> list[float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines for name in ("train/loss", "test/loss") if name in line]


@pytest.fixture(scope="module")
def on_one(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    workdir = tmp_path_factory.mktemp("runs") / "one"
    finish(start(ONE, workdir))
    return losses(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("topology", MESHES, ids=["2x4", "4x2"])
def test_tensor_reaches_over_processes(
    topology: Topology, on_one: list[float], tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    finish(start(topology, workdir, *MESHES[topology]))
    assert len(on_one) == 21
    assert losses(workdir) == pytest.approx(on_one, abs=1e-5)
    for other in (EIGHT, ONE):
        resumed = tmp_path / f"on_{other[1]}"
        shutil.copytree(workdir, resumed)
        shutil.rmtree(resumed / "checkpoints/20")
        (resumed / "weights.npz").unlink()
        output = finish(start(other, resumed))[0]
        assert "resuming after step 10 of 20" in output
        assert losses(resumed) == pytest.approx(on_one, abs=1e-5)
