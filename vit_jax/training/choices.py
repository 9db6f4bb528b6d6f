"""Choices that a config leaves open with the word `auto`: made once, from data and devices.

A value of `auto` is chosen at the start of a new run, printed with its reason, and written to
`config.json` like any other. A run that resumes reads it from there, so that it is the same run.
`configs/photos.py` leaves open what `choosing.py` can choose. Whatever a person sets stays. The
commit of weights of the Hugging Face Hub is such a choice too, where `init_from` names none.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax

from vit_jax.errors import UserError
from vit_jax.parallel.agreement import gather_texts, on_all_processes
from vit_jax.runs.config_file import is_run, read_config
from vit_jax.runs.directory import has_checkpoint
from vit_jax.schema import build
from vit_jax.training.choosing import SHAPE, Choices
from vit_jax.training.config import TrainConfig, as_values
from vit_jax.training.open_keys import AUTO, open_keys
from vit_jax.weights.catalogue.names import is_here, is_pin_of, pinned

_log = logging.getLogger(__name__)


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
        return dataclasses.replace(config, init_from=pinned_start(config.init_from, workdir))
    with on_all_processes():
        values = as_values(config)
    values["init_from"] = pinned_start(values.get("init_from"), workdir)
    return build(TrainConfig, complete(values, workdir, max_minutes=max_minutes))


def pinned_start(start: Any, *workdirs: str | os.PathLike[str]) -> Any:
    """The weights to start from, those of the Hub with the commit that a run's record has.

    Without a record it is the commit of now, the same one on all processes.

    Args:
      start: as `init_from`; what is no text is returned as it is.
      workdirs: of runs, begun or not, that start from the same weights.

    Raises:
      UserError: as `resolve`.
    """
    if not isinstance(start, str):
        return start
    with on_all_processes():
        stored = [read_config(each).get("init_from") for each in workdirs if is_run(each)]
        found = next((each for each in stored if is_pin_of(each, start)), None) or pinned(start)
    if found == start:
        return start
    if jax.process_index() == 0:
        again = ", as this run started" if found in stored else ""
        _log.info("init_from=%s is %s%s", start, found, again)
    return gather_texts(found)[0]


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
            is_open = filled.get("init_from") == AUTO
            _fill(filled, read_config(workdir))
            if is_open and not has_checkpoint(workdir):
                _require_here(filled["init_from"])
        if jax.process_index() == 0 and any(open_keys(filled)):
            Choices(filled, max_minutes, say or functools.partial(print, flush=True)).make()
    # Process 0's choices are everyone's.
    chosen: dict[str, Any] = json.loads(gather_texts(json.dumps(filled))[0])
    return chosen


def _require_here(start: Any) -> None:
    """A run may have been sent by someone; what its record says reaches no network by itself."""
    if isinstance(start, str) and start != AUTO and not is_here(start):
        raise UserError(
            f"the run's config starts from {start}, which is downloaded only if you say so: add "
            f"--config.init_from={start}"
        )


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
