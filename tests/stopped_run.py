"""A run that is interrupted and resumed, beside one that is not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vit_jax.__main__ import main
from vit_jax.training.reporter import Reporter


def weights_of_two_runs(command: Sequence[str], directory: Path) -> tuple[bytes, bytes]:
    """The files of weights of a run, and of one that Ctrl-C stops after step 5 and that resumes.

    Args:
      directory: gets the runs, `whole` and `stopped`.
    """
    assert main([*command, f"--workdir={directory / 'whole'}"]) == 0
    log_step = Reporter.log_step

    def interrupt(self: Any, step: int, scalars: Any, *, waited: Any) -> None:
        log_step(self, step, scalars, waited=waited)
        if step == 5:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reporter, "log_step", interrupt)
        assert main([*command, f"--workdir={directory / 'stopped'}"]) == 130
    assert main([*command, f"--workdir={directory / 'stopped'}"]) == 0
    whole, stopped = (
        (directory / run / "weights.npz").read_bytes() for run in ("whole", "stopped")
    )
    return whole, stopped
