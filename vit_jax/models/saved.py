"""The `model` section of configs and descriptions that an earlier version wrote."""

from collections.abc import Mapping
from typing import Any

# Version 0.1.0 wrote null where a field was inherited or its family lacks it.
_NULL_WAS_INHERIT = ("positions", "pooling", "gelu")


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a model section in today's words; one that this version wrote stays as it is.

    Args:
      values: the section as JSON holds it, such as `model` in `config.json` or `weights.json`.
    """
    upgraded = dict(values)
    for key in _NULL_WAS_INHERIT:
        if key in upgraded and upgraded[key] is None:
            upgraded[key] = "inherit"
    if upgraded.get("positions") == "absent":
        upgraded["positions"] = "none"
    return upgraded
