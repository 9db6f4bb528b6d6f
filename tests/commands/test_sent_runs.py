"""Runs and weights that someone sent: what their files say is data."""

import json
from pathlib import Path

import pytest

from vit_jax.__main__ import main


@pytest.mark.parametrize("address", ["gs://bucket/data", "s3://bucket/data", "http://host/data"])
def test_the_config_of_a_run_reaches_no_network(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"dataset": "digits", "data_dir": address}
    (tmp_path / "config.json").write_text(json.dumps({"data": data, "model": {"name": "ViT-Ti/8"}}))
    (tmp_path / "lock").touch()
    assert main(["evaluate", f"--weights={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert f"add --config.data.data_dir={address}" in error and error.count("\n") == 1
