"""Google Cloud Storage through gcsfs, for this package, etils and Orbax alike."""

import json
import os
import re
import urllib.parse
from typing import Any

import aiohttp
import fsspec
import gcsfs.retry
import google.auth.exceptions
import requests.exceptions
from gcsfs.core import GCSFileSystem

from vit_jax.errors import StorageError
from vit_jax.storage.fences import fences
from vit_jax.storage.retrying import CONNECT, PASSING_STATUS, READ, retrying

# Bytes at the beginning of an upload that hold the object's name, of up to 1,024 bytes.
_MAX_DESCRIPTION = 2**16


class GoogleCloud(GCSFileSystem):
    """gcsfs with one bound for all requests that are made again, and with errors of one line.

    gcsfs itself makes a request up to six times, in silence, and waits five minutes for each.

    Raises:
      StorageError: for all requests: no answer, no access, no bucket, a wrong name.
    """

    protocol = ("gs", "gcs")

    def __init__(self, **options: Any):
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=READ)
        # Without a cache of listings, as others write here too.
        ours: dict[str, Any] = {"use_listings_cache": False, "requests_timeout": timeout}
        if os.environ.get("STORAGE_EMULATOR_HOST"):
            ours["token"] = "anon"  # It wants no credentials, and gcsfs would look for some.
        super().__init__(**(ours | options))
        self._seen = set[str]()

    async def _request(self, method: str, path: str, *args: Any, **options: Any) -> Any:
        once = GCSFileSystem._request.__wrapped__  # Without gcsfs' own retries.
        bucket, key = _parts(path, args)

        async def attempt() -> Any:
            if method.upper() != "GET":
                fences.check(f"gs://{bucket}/{key or _uploaded(path, options)}")
            return await once(self, method, path, *args, **options)

        try:
            answer = await retrying.request(attempt, _words(method, bucket, key), _is_passing)
        except FileNotFoundError:
            if bucket not in self._seen:
                await self._require_bucket(bucket, is_missing=not key)
            raise
        except Exception as error:
            if (explained := _explained(error, bucket, key)) is None:
                raise
            raise explained from error
        self._seen.add(bucket)
        return answer

    async def _rm_files(self, paths: list[str]) -> list[Any]:
        async def check() -> None:  # One request deletes them all, and names no object.
            for path in paths:
                fences.check(f"gs://{path}")

        await retrying.request(check, f"deleting gs://{paths[0]}", _is_passing)
        return list(await super()._rm_files(paths))

    async def _require_bucket(self, bucket: str, *, is_missing: bool) -> None:
        # A list and an upload find nothing only if there is no bucket; an object may be missing.
        if not is_missing:
            await self._call("GET", "b/{}/o", bucket, json_out=True, maxResults=1)
            return
        raise StorageError(
            f"gs://{bucket}: there is no such bucket; correct the name, or make it by `gcloud "
            f"storage buckets create gs://{bucket} --location=REGION`"
        ) from None

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        try:
            return bytes(await super()._cat_file(path, start=start, end=end, **options))
        except gcsfs.retry.HttpError as error:
            if str(error.code) == "416":  # The range begins behind the end.
                return b""
            raise

    def write_if(self, path: str, data: bytes, version: str | None) -> str | None:
        """Writes a small object if it has this version still; with None, if there is none.

        https://cloud.google.com/storage/docs/request-preconditions

        Returns:
          The new version; None if the object has another one.
        """
        bucket, key, _ = self.split_path(path)
        try:
            written = self.call(
                "POST",
                f"{self._location}/upload/storage/v1/b/{bucket}/o",
                uploadType="media",
                name=key,
                ifGenerationMatch=version or "0",
                headers={"Content-Type": "application/octet-stream"},
                data=data,
                json_out=True,
            )
        except (FileExistsError, FileNotFoundError):  # Another one, or none where one was.
            return None
        return str(written["generation"])

    def version(self, path: str) -> str:
        """The generation of an object.

        Raises:
          FileNotFoundError: there is none.
        """
        bucket, key, _ = self.split_path(path)
        return str(self.call("GET", "b/{}/o/{}", bucket, key, json_out=True)["generation"])


def _parts(path: str, args: tuple[Any, ...]) -> tuple[str, str]:
    """The bucket and the object of a request; the latter is empty in lists and uploads."""
    if args:
        return str(args[0]), str(args[1]) if len(args) > 1 else ""
    found = re.search(r"/b/([^/?]+)(?:/o/([^?]+))?", "/" + path)
    return (found[1], urllib.parse.unquote(found[2] or "")) if found else ("", "")


def _uploaded(path: str, options: dict[str, Any]) -> str:
    """The object that an upload is of; the pieces of a long one do not say."""
    if named := options.get("name") or urllib.parse.parse_qs(path.partition("?")[2]).get("name"):
        return named if isinstance(named, str) else named[0]
    if options.get("uploadType") == "multipart":
        described = bytes(options["data"][:_MAX_DESCRIPTION]).split(b"\n\n", 1)[1]
        return str(json.JSONDecoder().raw_decode(described.decode(errors="replace"))[0]["name"])
    return ""


def _words(method: str, bucket: str, key: str) -> str:
    doing = {"GET": "reading", "DELETE": "deleting"}.get(method.upper(), "writing")
    return f"{doing} gs://{bucket}/{key}"


def _explained(error: Exception, bucket: str, key: str) -> StorageError | None:
    """What a person can do about a refusal."""
    where, text = f"gs://{bucket}/{key}", " ".join(str(error).split())
    code = str(getattr(error, "code", ""))
    if code == "401" or isinstance(error, google.auth.exceptions.GoogleAuthError):
        return StorageError(
            f"{where}: no access without credentials ({text}); log in by `gcloud auth "
            "application-default login`, or run as a service account"
        )
    if code == "403" or (isinstance(error, OSError) and text.startswith("Forbidden")):
        return StorageError(
            f"{where}: no access ({text}); let the account in by `gcloud storage buckets "
            f"add-iam-policy-binding gs://{bucket} --member=user:NAME@DOMAIN "
            "--role=roles/storage.objectUser`"
        )
    if code == "400" or (isinstance(error, ValueError) and text.startswith("Bad Request")):
        return StorageError(
            f"{where}: not a valid name ({text}); list your buckets by `gcloud storage ls`"
        )
    return None


def _is_passing(error: Exception) -> bool:
    if isinstance(error, gcsfs.retry.HttpError):
        return str(error.code).isdecimal() and int(error.code) in PASSING_STATUS
    passing = (
        aiohttp.ClientError,
        requests.exceptions.RequestException,
        google.auth.exceptions.TransportError,
        gcsfs.retry.ChecksumError,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(error, passing) and not isinstance(error, aiohttp.InvalidURL)


fsspec.register_implementation("gs", GoogleCloud, clobber=True)
fsspec.register_implementation("gcs", GoogleCloud, clobber=True)
