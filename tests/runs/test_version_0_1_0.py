"""A run that version 0.1.0 wrote resumes, evaluates and loads; see `tests/data/version_0_1_0`."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.programs.run_here import run_here
from vit_jax.runs.reading import BrokenError, read
from vit_jax.training.early_stop import BestStep
from vit_jax.training.notes import Notes, notes_of_0_1_0
from vit_jax.training.spikes import RecentLosses

DATA = Path(__file__).parents[1] / "data/version_0_1_0"
# The command of `versions.json`; only the directories are other ones.
RUN = [
    *("--config=configs/quickstart.py", "--config.model.depth=1", "--config.model.width=16"),
    *("--config.model.mlp_dim=16", "--config.model.num_heads=2", "--config.model.dropout=0.1"),
    *("--config.data.batch_size=32", "--config.optimizer.micro_batches=2"),
    *(
        "--config.optimizer.warmup_steps=2",
        "--config.optimizer.average=0.9",
        "--config.log_every=1",
    ),
    *("--config.checkpoint.every_steps=10", "--config.checkpoint.keep=1"),
    *("--config.evals.test.every_steps=15", "--config.total_steps=40"),
    *("--config.early_stop.eval=test", "--config.early_stop.metric=loss"),
]


def unpack(name: str, directory: Path) -> Path:
    with tarfile.open(DATA / f"{name}.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory / name


def scalars(workdir: Path, name: str) -> dict[int, float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def test_it_resumes_with_the_same_losses(tmp_path: Path) -> None:
    part, whole = (unpack(name, tmp_path) for name in ("part", "whole"))
    directories = [f"--config.data.data_dir={tmp_path / 'data'}", f"--workdir={part}"]
    output = run_here(["train", *RUN, *directories])
    assert "was written by vit_jax 0.1.0" in output and "resuming after step 23" in output
    assert "the checkpoint of step 23 does not say of which run and step it is" in output
    for name in ("train/loss", "train/grad_norm", "test/loss", "test/top1", "best/step"):
        found, expected = scalars(part, name), scalars(whole, name)
        assert found.keys() == expected.keys() and max(found) == 40
        for step, value in expected.items():
            assert found[step] == pytest.approx(value, rel=1e-5), (name, step)
    weights = [np.load(run / "weights.npz") for run in (part, whole)]
    assert set(weights[0]) == set(weights[1])
    for name, expected_array in weights[1].items():
        # The softmax does not see a key's bias: its gradient is rounding noise, and so its updates.
        if name.endswith("key/bias"):
            continue
        np.testing.assert_allclose(
            weights[0][name], expected_array, rtol=0, atol=1e-5, err_msg=name
        )


def test_its_notes_are_read_from_its_metrics(tmp_path: Path) -> None:
    part = unpack("part", tmp_path)
    empty = Notes(BestStep(lower_is_better=True), RecentLosses(None))
    notes = notes_of_0_1_0(23, part, ["test"], empty, "test/loss")
    losses = scalars(part, "test/loss")
    assert list(losses) == [15] and notes.best is not None
    assert (notes.best.step, notes.best.value, notes.best.evals_since) == (15, losses[15], 0)
    assert not notes.is_done(23, "test") and notes.scores["test/loss"] == losses[15]


def test_its_weights_evaluate(tmp_path: Path) -> None:
    whole = unpack("whole", tmp_path)
    config = json.loads((whole / "config.json").read_text())
    config["data"]["data_dir"] = str(tmp_path / "data")
    (whole / "config.json").write_text(json.dumps(config))
    output = run_here(["evaluate", f"--weights={whole}", f"--output={tmp_path / 'scores.json'}"])
    assert "was written by vit_jax 0.1.0" in output
    (found,) = json.loads((tmp_path / "scores.json").read_text())
    expected = json.loads((DATA / "evaluate.json").read_text())
    assert {key: found["scores"][key] for key in expected} == pytest.approx(expected, rel=1e-5)


LIKE_0_1_0 = ("array_metadatas/process_0", "_METADATA", "manifest.ocdbt", "d/*")


@pytest.mark.parametrize("pattern", LIKE_0_1_0)
def test_its_damaged_checkpoint_is_found_before_it_is_opened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], pattern: str
) -> None:
    directory = unpack("part", tmp_path) / "checkpoints/23"
    (file,) = (directory / "state").glob(pattern)
    file.write_bytes(b"{" + file.read_bytes()[1:])
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BrokenError):
        read(directory, 23, {}, None)
    assert "Traceback" not in capfd.readouterr().err
