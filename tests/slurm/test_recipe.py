"""The scripts of docs/distributed.md and docs/sweep.md under a Slurm of its own; `make slurm`."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, scripts
from tests.slurm.cluster import Cluster, cluster, wait_until
from tests.small_models import TINY_FLAGS

# In the place of a recipe's config: a tiny run on the digits.
CONFIG = f"""
from vit_jax.config import load_config

def get_config(argument):
    return load_config({str(ROOT / "configs/quickstart.py")!r}, {{flags}})
"""
# One task on each node, and CPUs that are there.
SMALL = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    with cluster() as started:
        yield started


def page_script(page: str, config: str, flags: list[str], directory: Path) -> Path:
    """The script of a page, in a directory where its config is another one."""
    found = [text for text in scripts(ROOT / page) if text.startswith("#!/bin/bash\n#SBATCH")]
    (text,) = found
    (directory / "configs").mkdir()
    (directory / "configs" / config).write_text(CONFIG.format(flags=[*TINY_FLAGS, *flags]))
    file = directory / "job.sh"
    file.write_text(text.replace("/scratch/", f"{directory}/").replace("workers=7", "workers=0"))
    return file


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script of a run; this one does not end by itself."""
    flags = ["--config.evals=none", "--config.total_steps=1000000", "--config.log_every=10"]
    return page_script("docs/distributed.md", "pretrain.py", flags, tmp_path)


def submit(slurm: Cluster, script: Path, **environment: str) -> tuple[str, Path]:
    """Submits the script; returns the job's number and the file that it prints to."""
    number = slurm(
        *("sbatch", "--parsable", f"--chdir={script.parent}", *SMALL, str(script)), **environment
    )
    return number, script.parent / f"slurm-{number}.out"


def wait_for(output: Path, pattern: str, count: int = 1) -> list[str]:
    """Waits until a pattern has been printed so often, and returns what it matched."""

    def found() -> list[str]:
        return re.findall(pattern, output.read_text()) if output.exists() else []

    wait_until(
        lambda: len(found()) >= count,
        lambda: f"no {pattern}: {output.read_text() if output.exists() else 'no output'}",
    )
    return found()


def test_a_stopped_job_queues_itself_and_resumes_where_both_tasks_saved(
    slurm: Cluster, script: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # The names of these nodes are in no DNS.
    address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_PLATFORMS": "cpu"}
    number, output = submit(slurm, script, **address)
    wait_for(output, r"step 20/")

    # As five minutes before the end of its time.
    slurm("scancel", "--signal=TERM", number)
    saved = wait_for(output, r"the state after step (\d+) is saved", 2)
    assert len(set(saved)) == 1
    wait_for(output, r"task \d: Exited with exit code 143", 2)
    wait_until(lambda: slurm.job(number)["Restarts"] == "1", lambda: str(slurm.job(number)))
    wait_for(output, rf"resuming after step {saved[0]}\b")
    wait_for(output, rf"step {int(saved[0]) // 10 * 10 + 20}/")

    # As a user ends it: it saves, and is not queued again.
    slurm("scancel", number)
    saved = wait_for(output, r"the state after step (\d+) is saved", 4)
    assert saved[0] == saved[1] and saved[2] == saved[3]
    wait_until(lambda: slurm.job(number)["JobState"] == "CANCELLED", lambda: str(slurm.job(number)))

    number, output = submit(slurm, script, **address)
    wait_for(output, rf"resuming after step {saved[2]}\b")
    slurm("scancel", "--signal=KILL", number)


def test_nodes_whose_names_do_not_resolve(slurm: Cluster, script: Path) -> None:
    number, output = submit(slurm, script, JAX_PLATFORMS="cpu")
    (message, _) = wait_for(output, r"error: (.*)", 2)[:2]
    assert re.search(r"gave up after 60 s: .* at node1:\d+, a name that does not resolve", message)
    assert "JAX_COORDINATOR_ADDRESS=" in message
    wait_until(lambda: slurm.job(number)["JobState"] == "FAILED", lambda: str(slurm.job(number)))
    assert slurm.job(number)["ExitCode"] == "2:0"


def test_an_array_of_a_sweep_and_its_final_runs(slurm: Cluster, tmp_path: Path) -> None:
    flags = ["--config.total_steps=4", "--config.optimizer.warmup_steps=1"]
    script = page_script("docs/sweep.md", "finetune.py", flags, tmp_path)
    choice = " --grid.optimizer.lr=0.001,0.003 --held_out=10% --seeds=0,1\n"
    script.write_text(script.read_text().rstrip() + choice)
    submit = ("sbatch", "--parsable", f"--chdir={tmp_path}", "--cpus-per-task=1")
    grid = slurm(*submit, "--array=0-1", str(script), JAX_PLATFORMS="cpu")
    final = slurm(
        *(*submit, "--array=2-3", f"--dependency=afterok:{grid}", str(script)),
        JAX_PLATFORMS="cpu",
    )

    def states() -> set[str]:
        return set(re.findall(r"JobState=(\S+)", slurm("scontrol", "show", "job", final)))

    def outputs() -> str:
        return "\n".join(path.read_text() for path in tmp_path.glob("slurm-*.out"))

    wait_until(lambda: states() == {"COMPLETED"}, outputs)
    results = json.loads((tmp_path / "sweeps/pets/results.json").read_text())
    assert len(list((tmp_path / "sweeps/pets/final").iterdir())) == 2
    assert results
