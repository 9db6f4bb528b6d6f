"""S3, and what speaks as it does, through s3fs."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import botocore.exceptions
import botocore.handlers
import fsspec
from s3fs import S3FileSystem

from vit_jax.errors import StorageError
from vit_jax.storage.fences import fences
from vit_jax.storage.retrying import CONNECT, PASSING_STATUS, READ, retrying

T = TypeVar("T")


class S3(S3FileSystem):
    """s3fs with one bound for all requests that are made again, and with errors of one line.

    Raises:
      StorageError: for all requests: no answer, no access, no bucket, a wrong name.
    """

    retries = 1  # Its own, which are silent.

    def __init__(self, **options: Any):
        network = {
            "connect_timeout": CONNECT,
            "read_timeout": READ,
            "retries": {"total_max_attempts": 1},
        }
        # Without a cache of listings, as others write here too.
        ours: dict[str, Any] = {"use_listings_cache": False, "config_kwargs": network}
        super().__init__(**(ours | options))

    async def set_session(self, *args: Any, **options: Any) -> Any:
        """As s3fs makes a client, but a write sends its bytes at once."""
        client = await super().set_session(*args, **options)
        # It would ask first whether it may: one more answer to wait for, and where that is lost,
        # both sides wait.
        client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
        return client

    async def _call_s3(self, method: str, *args: Any, **options: Any) -> Any:
        bucket, key = options.get("Bucket", ""), options.get("Key") or options.get("Prefix") or ""
        once = super()._call_s3

        async def attempt() -> Any:
            if not method.startswith(("get_", "head_", "list_")):
                deleted = options.get("Delete", {}).get("Objects", [])
                for name in [each["Key"] for each in deleted] or [key]:
                    fences.check(f"s3://{bucket}/{name}")
            return await once(method, *args, **options)

        return await _request(attempt, method.replace("_", " "), bucket, key)

    async def _cat_file(
        self, path: str, version_id: Any = None, start: Any = None, end: Any = None, **options: Any
    ) -> bytes:
        bucket, key, _ = self.split_path(path)
        once = super()._cat_file

        async def attempt() -> bytes:  # Its body is read after the call, and may be cut.
            return bytes(await once(path, version_id=version_id, start=start, end=end, **options))

        try:
            return await _request(attempt, "get object", bucket, key)
        except OSError as error:
            if _status(error) == 416:  # The range begins behind the end.
                return b""
            raise

    def write_if(self, path: str, data: bytes, version: str | None) -> str | None:
        """Writes a small object if it has this version still; with None, if there is none.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html

        Returns:
          The new version; None if the object has another one.
        """
        bucket, key, _ = self.split_path(path)
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            written = self.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
        except FileNotFoundError:  # None where one was.
            return None
        except OSError as error:
            if _status(error) in (409, 412):
                return None
            raise
        return str(written["ETag"])

    def version(self, path: str) -> str:
        """The entity tag of an object.

        Raises:
          FileNotFoundError: there is none.
        """
        bucket, key, _ = self.split_path(path)
        return str(self.call_s3("head_object", Bucket=bucket, Key=key)["ETag"])


async def _request(attempt: Callable[[], Awaitable[T]], doing: str, bucket: str, key: str) -> T:
    where = f"s3://{bucket}/{key}"
    try:
        return await retrying.request(attempt, f"{doing} of {where}", _is_passing)
    except StorageError:
        raise
    except PermissionError as error:
        raise StorageError(
            f"{where}: no access ({error}); see who you are by `aws sts get-caller-identity`, and "
            f"let that account in by `aws s3api put-bucket-policy --bucket {bucket} --policy FILE`"
        ) from error
    except FileNotFoundError as error:
        if "bucket does not exist" not in str(error):
            raise
        raise StorageError(
            f"s3://{bucket}: there is no such bucket; correct the name, or make it by `aws s3 mb "
            f"s3://{bucket}`"
        ) from error
    except botocore.exceptions.NoCredentialsError as error:
        raise StorageError(
            f"{where}: no access without credentials; log in by `aws configure`"
        ) from error
    except botocore.exceptions.ParamValidationError as error:
        raise StorageError(
            f"{where}: not a valid name ({error}); list your buckets by `aws s3 ls`"
        ) from error


def _status(error: BaseException | None) -> int | None:
    """The status of an HTTP answer, where s3fs has made an exception of its own of it."""
    while error is not None:
        if isinstance(error, botocore.exceptions.ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return int(status) if status else None
        error = error.__cause__
    return None


def _is_passing(error: Exception) -> bool:
    passing = (
        aiohttp.ClientError,
        botocore.exceptions.HTTPClientError,
        botocore.exceptions.ConnectionError,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(error, passing) or _status(error) in PASSING_STATUS


fsspec.register_implementation("s3", S3, clobber=True)
fsspec.register_implementation("s3a", S3, clobber=True)
