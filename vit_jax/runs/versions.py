"""`versions.json` of a run: what its latest start ran on."""

import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import sys
from typing import Any

import jax

from vit_jax.data.images.crops import resizer
from vit_jax.data.images.jpeg import DECODER
from vit_jax.runs.config_file import write_json
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path
from vit_jax.version import __version__

_log = logging.getLogger(__name__)

_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets"),
    *("array-record", "ml-collections", "numpy", "pillow"),
)
# Some platforms lack these.
_OPTIONAL_PACKAGES = ("simplejpeg", "opencv-python-headless")


def warn_of_other_version(path: str | os.PathLike[str]) -> None:
    """Logs a line for what last wrote the run and is another now: this package, or its libraries.

    Those are the ones that pixels depend on.
    """
    try:
        versions = json.loads(objects.read_small(as_path(path) / "versions.json"))
        version, images = versions["vit_jax"], dict(versions.get("images", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # Killed before the file was written, or damaged: nothing depends on it.
    if version != __version__:
        _log.warning(
            "%s was written by vit_jax %s, and this is %s: losses agree to about 1e-5, not bit for "
            "bit",
            path,
            version,
            __version__,
        )
    here = _images()
    for what, library in images.items():
        if library != here.get(what, library):
            _log.warning(
                "%s was trained on images whose %s %s did, and here %s does it: pixels may differ "
                "by one level",
                path,
                what,
                library,
                here[what],
            )


def write_versions(path: str | os.PathLike[str]) -> None:
    """Writes what this process runs on: versions, devices, processes, and the command line."""
    versions: dict[str, Any] = {
        "vit_jax": __version__,
        "python": platform.python_version(),
        "packages": _packages(),
        "images": _images(),
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "command": sys.argv,
    }
    write_json(as_path(path) / "versions.json", versions)


def _images() -> dict[str, str]:
    """What makes pixels of files, by the names that a line uses."""
    return {"JPEG decoding": DECODER, "resizing": resizer()}


def _packages() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    for name in _OPTIONAL_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
