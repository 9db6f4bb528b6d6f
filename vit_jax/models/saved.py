"""The `model` section of configs and descriptions that an earlier version wrote."""

from collections.abc import Mapping
from typing import Any

from vit_jax.errors import UserError
from vit_jax.models.sizes import parse_name

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
    # A section that a program wrote has every field. Before `root_pool` there was only this form.
    if "head_bias" in upgraded and "root_pool" not in upgraded and _is_bit(upgraded.get("name")):
        upgraded["root_pool"] = "inf"
    return upgraded


def _is_bit(name: Any) -> bool:
    try:
        return isinstance(name, str) and parse_name(name).order == "pre"
    except UserError:  # Refused where the name is read.
        return False
