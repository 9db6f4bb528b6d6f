"""Paths that may lie in a bucket."""

import functools
import os
from pathlib import Path

import fsspec
from etils import epath

from vit_jax.errors import UserError

# Prefixes of objects in buckets: Google Cloud Storage, and S3 and what speaks as it does.
SCHEMES = ("gs://", "s3://")

# Where TensorFlow is installed, etils would import it to reach a bucket.
os.environ.setdefault("EPATH_USE_TF", "false")


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether a path names an object, or a directory of objects, in a bucket."""
    return os.fspath(path).startswith(SCHEMES)


def as_path(path: str | os.PathLike[str]) -> epath.Path:
    """A path as a person gave it; on a disk with `~` expanded, and absolute.

    Raises:
      UserError: it names no bucket, or is an address that went through `pathlib`.
    """
    if is_bucket(path):
        scheme, _, inside = os.fspath(path).partition("://")
        if not inside.strip("/"):
            raise UserError(f"{scheme}:// names no bucket; type {scheme}://BUCKET/NAME")
        _register()
        return epath.Path(path)
    _refuse_one_slash(path)
    # Not `abspath`, to which `link/..` is the directory that holds the link.
    return epath.Path(Path(os.path.expanduser(path)).absolute())


def given_path(path: str | os.PathLike[str]) -> epath.Path:
    """As `as_path`, but a relative path stays one, as messages show it."""
    if is_bucket(path):
        return as_path(path)
    _refuse_one_slash(path)
    # Any other address is a path to pathlib, but not to etils.
    return epath.Path(Path(path).expanduser())


def _refuse_one_slash(path: str | os.PathLike[str]) -> None:
    """Refuses what `pathlib` makes of an address: all would go into a directory named `gs:`."""
    scheme, _, inside = os.fspath(path).partition(":/")
    if f"{scheme}://" in SCHEMES:
        raise UserError(f"{path} has one slash; type {scheme}://{inside} as a text, not as a Path")


def bucket_of(path: str | os.PathLike[str]) -> str | None:
    """The bucket that an address names, as `gs://NAME`; None for a path on a disk."""
    if not is_bucket(path):
        return None
    return "/".join(os.fspath(path).split("/", 3)[:3])


@functools.cache
def _register() -> None:
    """Lets etils, and so Orbax, make its requests by our classes, imported when needed."""
    for protocol in ("gs", "gcs"):
        fsspec.register_implementation(
            protocol, "vit_jax.storage.google_cloud.GoogleCloud", clobber=True
        )
    fsspec.register_implementation("s3", "vit_jax.storage.s3.S3", clobber=True)
