"""Runs whose loss and state become NaN, or a thousand times as large, in chosen steps.

As a program: the steps, such as 7,23, then the arguments of a command. With `--spikes` before
them, the loss becomes large. With `--kill`, the program kills itself when it is about to save what
a rewind gave.
"""

import dataclasses
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import vit_jax
from vit_jax.__main__ import main
from vit_jax.training import spikes
from vit_jax.training.program import Program
from vit_jax.training.run import Run

# The losses of which spikes take the median here, so that few steps are enough.
WINDOW = 6
SPIKE = 1000.0


@contextmanager
def poisoned(steps: Sequence[int], factor: float = jnp.nan) -> Iterator[None]:
    """Steps, from 1, that spoil whatever they compute; the program itself stays what it was."""
    jitted = Program.step

    def step(self: Program) -> Any:
        plain, spoil = jitted(self), jax.jit(lambda tree: jax.tree.map(lambda x: x * factor, tree))

        def poisoned_step(state: Any, *more: Any) -> Any:
            number = int(state.step.addressable_data(0)) + 1
            new, metrics = plain(state, *more)
            if number not in steps:
                return new, metrics
            metrics["loss"] = spoil(metrics["loss"])
            return dataclasses.replace(new, params=spoil(new.params)), metrics

        return poisoned_step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Program, "step", step)
        patch.setattr(spikes, "WINDOW", WINDOW)
        yield


def train_poisoned(
    steps: Sequence[int], config: dict[str, Any], workdir: Path, factor: float = jnp.nan
) -> Path:
    """Trains to the end in this process; returns the file of weights."""
    with poisoned(steps, factor):
        return vit_jax.train(config, workdir).weights


def _die_before_saving(self: Run, *_: object) -> None:
    if self.notes.passed:
        os.kill(os.getpid(), signal.SIGKILL)
    _save(self, *_)


if __name__ == "__main__":
    text, *arguments = sys.argv[1:]
    by = jnp.nan
    if arguments[0] == "--spikes":
        del arguments[0]
        by = SPIKE
    if arguments[0] == "--kill":
        del arguments[0]
        _save: Any = Run._save
        Run._save = _die_before_saving  # type: ignore[assignment, method-assign]
    with poisoned([int(step) for step in text.split(",")], by):
        sys.exit(main(arguments))
