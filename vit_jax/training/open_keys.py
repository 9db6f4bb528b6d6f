"""Values that a config leaves open."""

from collections.abc import Iterator, Mapping
from typing import Any

AUTO = "auto"


def open_keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of the values that are open."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from open_keys(value, f"{prefix}{key}.")
        elif value == AUTO:
            yield prefix + key
