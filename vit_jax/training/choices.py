"""Choices that a config leaves open with the word `auto`: made once, from data and devices.

A value of `auto` is chosen at the start of a new run, printed with its reason, and written to
`config.json` like any other. A run that resumes reads it from there, so that it is the same run.
`configs/photos.py` leaves open what `choosing.py` can choose. Whatever a person sets stays.
"""

from __future__ import annotations

import copy
import functools
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax

from vit_jax.parallel.agreement import gather_texts, on_all_processes
from vit_jax.runs.config_file import is_run, read_config
from vit_jax.schema import build
from vit_jax.training.choosing import SHAPE, Choices
from vit_jax.training.config import TrainConfig, as_values
from vit_jax.training.open_keys import AUTO, open_keys


def completed(
    config: TrainConfig | Mapping[str, Any] | str,
    workdir: str | os.PathLike[str],
    max_minutes: float | None,
) -> TrainConfig:
    """A config in any of the forms that `vit_jax.train` takes, with its choices made.

    Raises:
      UserError: as `complete`; an unknown key, a wrong value, or values that do not go together.
    """
    if isinstance(config, TrainConfig):
        return config
    with on_all_processes():
        values = as_values(config)
    return build(TrainConfig, complete(values, workdir, max_minutes=max_minutes))


def complete(
    values: Mapping[str, Any],
    workdir: str | os.PathLike[str] | None = None,
    *,
    max_minutes: float | None = None,
    say: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Replaces each `auto` of a config by the run's own value, otherwise by a choice.

    Args:
      values: a nested dict, as `load_config` returns it.
      workdir: of the run; None chooses anew.
      max_minutes: as for `train`; None is the config's.
      say: gets a line for each choice, on process 0; None prints it.

    Raises:
      UserError: the data or the weights cannot be opened, or a key has no choice.
    """
    filled = copy.deepcopy(dict(values))
    if not any(open_keys(filled)):
        return filled
    with on_all_processes():
        if workdir is not None and is_run(workdir):
            _fill(filled, read_config(workdir))
        if jax.process_index() == 0 and any(open_keys(filled)):
            Choices(filled, max_minutes, say or functools.partial(print, flush=True)).make()
    # Process 0's choices are everyone's.
    chosen: dict[str, Any] = json.loads(gather_texts(json.dumps(filled))[0])
    return chosen


def _fill(values: dict[str, Any], stored: Mapping[str, Any]) -> None:
    """Takes what is open from the run's own config, with the shape that goes with a name."""
    if values.get("name") == AUTO:
        values |= {key: stored[key] for key in SHAPE if stored.get(key) and key not in values}
    for key, value in values.items():
        if isinstance(value, dict):
            section = stored.get(key)
            _fill(value, section if isinstance(section, Mapping) else {})
        elif value == AUTO and key in stored:
            values[key] = stored[key]
