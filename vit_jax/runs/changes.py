"""What may change when a run resumes: what changes nothing of what was computed."""

import json
from collections.abc import Mapping
from typing import Any

from vit_jax.data.sources.open import has_own_files
from vit_jax.schema import difference

# Where and how fast a run goes, who hears of it, how often it is saved, and what a failure does.
_MAY_CHANGE = (
    ("mesh",),
    ("data", "workers"),
    ("data", "data_dir"),
    ("data", "cache_dir"),
    ("data", "cache_gib"),
    ("data", "max_labels"),
    ("data", "on_error"),
    ("callbacks",),
    ("model", "attention"),
    ("model", "remat"),
    ("model", "scan"),
    ("log_every",),
    ("log_norms",),
    ("max_minutes",),
    ("checkpoint",),
    ("on_non_finite",),
    ("on_spike",),
    ("spike_multiple",),
    ("max_rewinds",),
)


def changes(saved: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The differences for which a run cannot resume, as `optimizer.lr: 0.01 -> 0.03`.

    Args:
      saved: the run's config.
      config: the one that is to resume it.
    """
    plain = [json.loads(json.dumps(values)) for values in (saved, config)]
    keeps_micro_batches = any(_depends_on_micro_batches(values) for values in plain)
    before, after = (_comparable(values, keeps_micro_batches) for values in plain)
    return difference(before, after)


def _comparable(config: dict[str, Any], keeps_micro_batches: bool) -> dict[str, Any]:
    for *sections, key in _MAY_CHANGE:
        section = config
        for name in sections:
            section = section.get(name, {})
        section.pop(key, None)
    if not keeps_micro_batches:
        config.get("optimizer", {}).pop("micro_batches", None)
    evals, judge = config.get("evals") or {}, (config.get("early_stop") or {}).get("eval")
    for name, section in evals.items():
        # Without `every_steps`, an evaluation scores the final weights.
        if name != judge and section.get("every_steps") is not None:
            section["every_steps"] = "(any)"
    for section in (config.get("data", {}), *evals.values()):
        # They may have moved; the list of their files tells whether they are the same.
        if has_own_files(section.get("dataset") or ""):
            section["dataset"] = "(a path)"
    return config


def _depends_on_micro_batches(config: Mapping[str, Any]) -> bool:
    """Whether random draws of a step depend on the number of its micro-batches."""
    model, objective = config.get("model", {}), config.get("objective", {})
    drops = model.get("dropout", 0) or model.get("stochastic_depth", 0)
    return bool(drops) or objective.get("kind", "supervised") != "supervised"
