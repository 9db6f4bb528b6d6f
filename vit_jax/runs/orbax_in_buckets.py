"""Lets Orbax write to S3 as it writes to Google Cloud Storage.

Orbax lists `s3://` among the places it knows, but makes `s3:/` of it as it writes arrays, and would
complete a checkpoint there by a rename, which no bucket has. It has no hook for either. So its
functions that tell a bucket from a disk are replaced here: everything it does in `gs://` it then
does in `s3://` too, with TensorStore's driver of S3. `tests/runs/test_checkpoints_in_s3.py` fails
if a later Orbax no longer asks them.
"""

import logging
import os
from pathlib import PurePath
from typing import Any

import tensorstore
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint._src.serialization import tensorstore_utils

from vit_jax.errors import UserError
from vit_jax.storage.paths import is_bucket
from vit_jax.storage.retrying import CONNECT, READ, retrying

# What is replaced, and which versions have.
_REPLACED = (
    *((gcs_utils, name) for name in ("is_gcs_path", "get_kvstore_for_gcs")),
    *((tensorstore_utils, name) for name in ("_use_gcs_driver", "_normalize_path")),
)
_is_known = all(hasattr(module, name) for module, name in _REPLACED)
_VERSIONS = "orbax-checkpoint==0.12.8"

_log = logging.getLogger(__name__)

# TensorStore would wait for an answer for ever.
os.environ.setdefault("TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS", f"{CONNECT:.0f}")
os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", f"{READ:.0f}")
os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")

# Before each deletion Orbax would ask, by another library, what kind of bucket it is. An account
# that may use objects only is not allowed to. A hierarchical bucket then keeps empty folders.
gcs_utils.is_hierarchical_namespace_enabled = lambda path: False


def require_known_by_orbax(path: str | os.PathLike[str]) -> None:
    """Refuses an address in S3 with an Orbax that cannot be taught to write there.

    Raises:
      UserError: so it is.
    """
    if os.fspath(path).startswith("s3://") and not _is_known:
        raise UserError(
            f"{path}: this version of Orbax writes no checkpoints to S3; type `pip install "
            f"{_VERSIONS}`"
        )


class Repeats:
    """Counts the requests that TensorStore has made again since the last look; it logs none."""

    def __init__(self) -> None:
        self._seen = _repeats()

    def tell(self, directory: str | os.PathLike[str]) -> None:
        """Logs a line if there were some."""
        found = _repeats()
        if found > self._seen:
            _log.warning(
                "%s: %d requests for arrays failed and were made again",
                directory,
                found - self._seen,
            )
        self._seen = found


def _repeats() -> int:
    metrics = tensorstore.experimental_collect_matching_metrics("/tensorstore/kvstore/")
    return sum(
        int(value["value"])
        for metric in metrics
        if metric["name"].endswith("/retries")
        for value in metric["values"]
    )


def _is_bucket(path: PurePath) -> bool:
    return is_bucket(path.as_posix())


def _use_driver(directory: str) -> bool:
    return is_bucket(directory)


def _normalize(path: str) -> str:
    scheme, mark, inside = path.rpartition("://")
    return scheme + mark + os.path.normpath(inside)


def _key_value_store(path: str) -> dict[str, Any]:
    if not path.startswith("s3://"):
        store: dict[str, Any] = _for_google(path)
        if store["driver"] == "gcs":  # By itself it would try 32 times, for a quarter of an hour.
            store["gcs_request_retries"] = retrying.patience.for_tensorstore
        return store
    # Here, as it needs the extra `s3`.
    from vit_jax.storage import s3_arrays

    return s3_arrays.key_value_store(path)


if _is_known:
    _for_google = gcs_utils.get_kvstore_for_gcs
    gcs_utils.is_gcs_path = _is_bucket
    gcs_utils.get_kvstore_for_gcs = _key_value_store
    tensorstore_utils._use_gcs_driver = _use_driver
    tensorstore_utils._normalize_path = _normalize
