import json
from pathlib import Path

import pytest

from tests.small_models import TINY_FLAGS
from vit_jax.__main__ import main
from vit_jax.analysis import peaks
from vit_jax.training import reporter

pytestmark = pytest.mark.usefixtures("shared_programs")

RUN = [
    *("train", "--config=configs/quickstart.py", "--config.total_steps=4", "--config.log_every=2"),
    *TINY_FLAGS,
    *("--config.data.batch_size=16", "--config.data.workers=0"),
    "--config.optimizer.warmup_steps=2",
]


def test_a_run_says_once_that_it_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reporter, "unknown_chip", lambda devices: next(devices).device_kind)
    directories = [f"--config.data.data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
    assert main([*RUN, *directories]) == 0
    assert capsys.readouterr().out.count("no MFU: the peak speed of cpu is unknown\n") == 1


def test_a_run_logs_it_where_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir = f"--config.data.data_dir={tmp_path / 'data'}"
    for name, more, is_logged in (
        ("unknown", [], False),
        ("known", [], True),
        # Frozen layers have fewer products than are counted.
        ("frozen", ["--config.optimizer.freeze=('blocks/.*',)"], False),
    ):
        if name != "unknown":
            monkeypatch.setitem(peaks._GPUS, "cpu", peaks._Chip(0.001, 1, 1, "this test"))
        workdir = tmp_path / name
        assert main([*RUN, data_dir, *more, f"--workdir={workdir}"]) == 0
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        reports = [line for line in lines if "time/images_per_second" in line]
        assert [("time/mfu" in line) for line in reports] == [is_logged] * 2
        assert ("MFU" in capsys.readouterr().out) == is_logged
        for line in reports if is_logged else []:
            # A block of T = 16 patches of 2x2x3, all of width 16: 4 T D^2 + 2 T^2 D + 2 T D MLP.
            macs = 4 * 16**3 + 2 * 16**3 + 2 * 16**3 + 16 * 12 * 16 + 16 * 10
            speed = line["time/images_per_second"]
            assert line["time/mfu"] == pytest.approx(6 * macs * speed / 0.001e12)
