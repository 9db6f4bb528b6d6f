"""Configs of runs that an earlier version wrote, in today's words."""

import copy
from collections.abc import Mapping
from typing import Any

from vit_jax.models.saved import upgrade


def upgrade_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run, as this version would have written it.

    Keys that are new since then stay missing: their defaults are what the earlier version did.

    Args:
      values: the object in `config.json`.
    """
    upgraded: dict[str, Any] = copy.deepcopy(dict(values))
    if isinstance(model := upgraded.get("model"), dict):
        upgraded["model"] = upgrade(model)
    return upgraded
