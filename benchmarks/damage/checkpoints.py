"""A run's directory with two checkpoints, resumed after damage to one of its files.

The run was killed after step 3 of 4: it resumes from step 3, or from step 2 if that is broken. Then
its weights and metrics must be those of a run that was left alone, bit for bit. `ended` is the
directory of a run with all of its steps, which `train` is called on once more.
"""

import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.damage.damages import (
    OF_DIRECTORIES,
    Case,
    Donors,
    apply,
    cases_of,
    counterpart,
)
from benchmarks.damage.outcomes import End, Ending, Output, fault_of, run_command

ALLOWED = (End.EQUAL, End.FELL_BACK, End.REFUSED)

_NEWEST, _OLDER, _LAST = "3", "2", "4"
_FEW_SAVES = ["--config.checkpoint.every_steps=4"]
_CONFIG = """
from ml_collections import ConfigDict


def get_config(argument=None):
    return ConfigDict(
        dict(
            model=dict(name="ViT-Ti/2", image_size=4, depth=1, width=8, mlp_dim=8, num_heads=2),
            data=dict(dataset={data!r}, batch_size=4, workers=0, crop="none"),
            optimizer=dict(name="sgd", lr=0.01, warmup_steps=0),
            total_steps=4,
            checkpoint=dict(every_steps=1, keep=3),
            log_every=1,
        )
    )
"""


def prepare(root: Path) -> None:
    """Trains the run and another one of another seed."""
    rng = np.random.default_rng(0)
    for i in range(8):
        path = root / "data/train" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).save(path)
    (root / "config.py").write_text(_CONFIG.format(data=str(root / "data")))
    for seed, name in ((0, "ended"), (1, "other_ended")):
        output = _train(root, root / name, f"--config.seed={seed}")
        if output.error is not None:
            raise RuntimeError(output.text)
    for ended, stopped in (("ended", "stopped"), ("other_ended", "other")):
        shutil.copytree(root / ended, root / stopped)
        shutil.rmtree(root / stopped / "checkpoints" / _LAST)
        for file in ("weights.npz", "weights.json"):
            (root / stopped / file).unlink()


def cases(root: Path) -> list[Case]:
    """Each file and directory of the stopped run, pairs of files, and the ended run's weights."""
    listed = [Case("checkpoints", ".", "none", group="(undamaged)")]
    for path in sorted((root / "stopped").rglob("*")):
        file, donors = str(path.relative_to(root / "stopped")), _donors(root, "stopped", path)
        case = Case("checkpoints", file, "none", group=_group(file))
        if path.is_dir() and f"checkpoints/{_NEWEST}/" not in f"{file}/":
            continue
        if path.is_dir():
            listed += cases_of(case, donors, only=OF_DIRECTORIES)
        elif f"checkpoints/{_OLDER}/" in file:
            listed += cases_of(case, donors, only=("deleted", "one bit flipped", "a FIFO"))
        else:
            listed += cases_of(case, donors, flips=3 if f"{_NEWEST}/" in file else 1)
        if f"checkpoints/{_NEWEST}/" in file and path.is_file():
            both = Case("checkpoints", file, "none", "both", group="files of both steps")
            listed += cases_of(both, Donors(), only=("deleted", "emptied", "a FIFO"))
    for file in ("weights.npz", "weights.json", "config.json"):
        case = Case("checkpoints", file, "none", "ended", group=f"{file} of an ended run")
        listed += cases_of(case, _donors(root, "ended", root / "ended" / file), flips=3)
    return listed


def run(case: Case, root: Path, scratch: Path) -> Ending:
    """Resumes a damaged copy."""
    _keep_programs()
    source = "ended" if case.variant == "ended" else "stopped"
    workdir = scratch / "run"
    shutil.copytree(root / source, workdir)
    apply(case, workdir / case.file, _donors(root, source, root / source / case.file))
    if case.variant == "both":
        older = root / "stopped/checkpoints" / _OLDER
        path = root / source / case.file
        twin = counterpart(path, root / "stopped/checkpoints" / _NEWEST, older)
        assert twin is not None
        apply(case, workdir / twin.relative_to(root / "stopped"), Donors())
    # A run may save less often after it resumes; where a whole step is replaced, it is saved anew.
    more = [] if (root / source / case.file).is_dir() else _FEW_SAVES
    return judge(case, _train(root, workdir, *more), workdir, root / "ended")


def judge(case: Case, output: Output, workdir: Path, whole: Path) -> Ending:
    """How the start of a damaged run ended.

    Args:
      output: of the command.
      workdir: the run's directory after it.
      whole: that of a run which was left alone.
    """
    if fault := fault_of(output):
        return fault
    found = re.search(r"resuming after step (\d+)", output.text)
    resumed = found.group(1) if found else "0"
    if output.error is not None:
        one_is_whole = case.file.startswith("checkpoints/") and case.variant != "both"
        return Ending(End.LOST if one_is_whole else End.REFUSED, output.error)
    if not (workdir / "weights.npz").is_file():
        return Ending(End.LOST, "there are no weights")
    if (workdir / "weights.npz").read_bytes() != (whole / "weights.npz").read_bytes():
        return Ending(End.WRONG, f"other weights, resumed after step {resumed}")
    if case.variant == "ended":
        return Ending(End.EQUAL)
    if problem := _compare_metrics(case, workdir, whole, int(resumed)):
        return Ending(End.WRONG, problem)
    if resumed == "0":
        return Ending(End.LOST, "started anew without a word")
    return Ending(End.EQUAL if resumed == _NEWEST else End.FELL_BACK, f"after step {resumed}")


def _compare_metrics(case: Case, workdir: Path, whole: Path, resumed: int) -> str | None:
    expected, actual = _metrics(whole), _metrics(workdir)
    if case.file == "metrics.jsonl":  # What was in it before is gone.
        expected = {step: line for step, line in expected.items() if step > resumed}
        actual = {step: line for step, line in actual.items() if step > resumed}
    return None if expected == actual else f"other metrics: {actual} instead of {expected}"


def _metrics(workdir: Path) -> dict[int, Any]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {
        line["step"]: {k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))}
        for line in lines
    }


def _train(root: Path, workdir: Path, *more: str) -> Output:
    config = f"--config={root / 'config.py'}"
    return run_command(["train", "--report=off", config, f"--workdir={workdir}", *more])


def _donors(root: Path, source: str, path: Path) -> Donors:
    """What another step and another run have in the place of a path."""
    other = {"stopped": "other", "ended": "other_ended"}[source]
    run = counterpart(path, root / source, root / other)
    checkpoints = root / source / "checkpoints"
    for step, others in ((_NEWEST, _OLDER), (_OLDER, _NEWEST)):
        if path == checkpoints / step:
            return Donors(checkpoints / others, run)
        if path.is_relative_to(checkpoints / step):
            return Donors(counterpart(path, checkpoints / step, checkpoints / others), run)
    return Donors(None, run)


def _group(file: str) -> str:
    """A file's name without digests, times and the step's number."""
    file = re.sub(r"(^|/)(d)/[0-9a-f]{32}$", r"\1\2/*", file)
    file = re.sub(r"events\..*", "events.*", file)
    file = re.sub(rf"^checkpoints/{_NEWEST}", "newest step", file)
    return re.sub(rf"^checkpoints/{_OLDER}", "older step", file)


@functools.cache
def _keep_programs() -> None:
    """Lets all cases in this process share the run's programs, which no damaged file changes."""
    from vit_jax.training import setup
    from vit_jax.training.program import Program, make_program

    make, step = make_program, Program.step
    programs: dict[str, Program] = {}
    steps: dict[int, Any] = {}

    def make_once(config: Any, *rest: Any) -> Program:
        key = repr((config, *rest))
        if key not in programs:
            programs[key] = make(config, *rest)
        return programs[key]

    def step_once(program: Program) -> Any:
        if id(program) not in steps:
            steps[id(program)] = step(program)
        return steps[id(program)]

    setattr(setup, "make_program", make_once)  # noqa: B010
    setattr(Program, "step", step_once)  # noqa: B010
