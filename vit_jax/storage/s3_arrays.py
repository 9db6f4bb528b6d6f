"""How TensorStore, by which Orbax writes arrays, reaches what s3fs reaches."""

import configparser
import functools
import hashlib
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

import fsspec.asyn

from vit_jax.storage.retrying import retrying
from vit_jax.storage.s3 import S3

# Where botocore has found credentials, and TensorStore finds them too, also after they change.
_FINDS = {"env": "environment", "container-role": "ecs", "iam-role": "imds"}
_FILES = ("shared-credentials-file", "config-file")
# Amazon's own servers, whose address follows from the bucket.
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")


def key_value_store(path: str) -> dict[str, Any]:
    """The spec of TensorStore's store for what lies below an address.

    https://google.github.io/tensorstore/kvstore/s3/

    Args:
      path: `s3://BUCKET/NAME`.

    Raises:
      StorageError: the credentials cannot be had.
    """
    bucket, _, key = path.removeprefix("s3://").partition("/")
    store: dict[str, Any] = {
        "driver": "s3",
        "bucket": bucket,
        "path": key,
        "use_conditional_write": True,
        "s3_request_retries": retrying.patience.for_tensorstore,
    }
    file_system = S3()
    client = file_system.connect()
    address = client.meta.endpoint_url
    if not str(urllib.parse.urlsplit(address).hostname).endswith(_AMAZON):
        region = client.meta.region_name
        store["endpoint"] = address
        store["aws_region"] = "us-east-1" if region in (None, "aws-global") else region
    return store | {"aws_credentials": _credentials(file_system)}


def _credentials(file_system: Any) -> dict[str, str]:
    """What tells TensorStore to take the credentials that s3fs has."""
    if file_system.anon:
        return {"type": "anonymous"}
    session = file_system.session

    async def find() -> Any:
        found = await session.get_credentials()
        return found, None if found is None else await found.get_frozen_credentials()

    found, keys = fsspec.asyn.sync(file_system.loop, find)
    if found is None:
        return {"type": "default"}
    if found.method in _FINDS:
        return {"type": _FINDS[found.method]}
    if found.method in _FILES:
        return {"type": "profile", "profile": session.profile or "default"}
    # A login, or the role of a pod: TensorStore does not know these. The keys last for the save.
    return _written(keys.access_key, keys.secret_key, keys.token)


@functools.lru_cache(2)
def _written(access_key: str, secret_key: str, token: str | None) -> dict[str, str]:
    """A file of credentials that only this user can read; it goes with the process."""
    # TensorStore keeps what it has read of a profile, so that new keys have another name.
    profile = hashlib.sha256(access_key.encode()).hexdigest()[:16]
    content = configparser.RawConfigParser()
    content[profile] = {"aws_access_key_id": access_key, "aws_secret_access_key": secret_key}
    if token:
        content[profile]["aws_session_token"] = token
    file = Path(_directory().name, profile)
    file.touch(mode=0o600)
    with open(file, "w") as opened:
        content.write(opened)
    return {
        "type": "profile",
        "profile": profile,
        "credentials_file": str(file),
        "config_file": str(file),
    }


@functools.cache
def _directory() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="vit_jax_")
