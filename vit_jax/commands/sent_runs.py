"""Runs that somebody sent: what their configs name is reached only if the user says so."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.errors import UserError
from vit_jax.storage.paths import bucket_of

_BUCKET = re.compile(r"(?:gs|s3)://[^/]+")


def refuse_remote(
    run: str | os.PathLike[str], config: Mapping[str, Any], changes: Sequence[str]
) -> None:
    """Refuses data that would be read over a network, unless the user names its address too.

    What lies in the bucket that the run itself is read from is read.

    Args:
      run: its directory.
      config: nested, as it says where data lies, with changes made.
      changes: what the user typed, as `--config.data.dataset=gs://photos/cats`.

    Raises:
      UserError: it names data at an address; the message says what to add.
    """
    for flag, address in remote_data(config):
        if any(change.startswith(f"{flag}=") for change in changes):
            continue
        found = _BUCKET.search(address)  # A name may say before it what lies there.
        if found is not None and found[0] == bucket_of(run):
            continue
        raise UserError(
            f"the run's config names data at {address}, which is read over a network only if "
            f"you say so: add {flag}={address}"
        )


def remote_data(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where a config names data by an address: flags as `--config.data.dataset`, with addresses."""
    evals = config.get("evals")
    sections = {"data": config.get("data")}
    if isinstance(evals, Mapping):
        sections |= {f"evals.{name}": each for name, each in evals.items()}
    return [
        (f"--config.{section}.{key}", address)
        for section, each in sections.items()
        for key in ("data_dir", "dataset")
        if isinstance(each, Mapping) and "://" in (address := str(each.get(key)))
    ]
