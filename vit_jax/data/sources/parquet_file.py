"""Opens Parquet files on disks and in buckets, and says what is wrong with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from vit_jax.errors import UserError
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket


def open_parquet(path: str) -> Any:
    """Opens a file as a `pyarrow.parquet.ParquetFile`; a damaged one raises nearly anything."""
    from pyarrow import parquet

    if is_bucket(path):
        return parquet.ParquetFile(objects.open_remote(path), pre_buffer=True)
    return parquet.ParquetFile(path, memory_map=True)


@contextlib.contextmanager
def checked_parquet(path: str) -> Iterator[Any]:
    """As `open_parquet`, for what a whole file must be able to give.

    Raises:
      UserError: it cannot be opened, or what is read of it is damaged.
    """
    try:
        with open_parquet(path) as file:
            yield file
    except UserError:
        raise
    except Exception as error:  # A damaged footer makes pyarrow raise nearly anything.
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: cannot be read as Parquet ({reason}); restore it, or name the other files"
        ) from error
