"""Runs whose terminal sends signals."""

import os
import signal
from pathlib import Path

import pytest

from vit_jax.commands.processes import explain
from vit_jax.errors import Stopped
from vit_jax.parallel.processes import Preemption
from vit_jax.training.loop import explain_interrupt


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_signal_asks_a_run_to_stop_and_decides_its_exit_code(
    number: signal.Signals, code: int
) -> None:
    before = signal.getsignal(number)
    with Preemption() as preemption:
        assert not preemption.reached()
        os.kill(os.getpid(), number)
        assert preemption.reached()
    assert signal.getsignal(number) is before
    assert explain(Stopped("asked to end", preemption.code)) == code


def test_an_ignored_hang_up_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not preemption.reached()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupted_run_says_what_is_left_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for made, left in ((None, "no step is saved yet"), ("20", "resumes after step 20")):
        if made is not None:
            (tmp_path / "checkpoints" / made).mkdir(parents=True)
            (tmp_path / "checkpoints" / "30.orbax-checkpoint-tmp").mkdir()
        with pytest.raises(KeyboardInterrupt) as raised, explain_interrupt(tmp_path):
            raise KeyboardInterrupt
        assert explain(raised.value) == 130
        assert left in capsys.readouterr().err
