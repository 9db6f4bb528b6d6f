"""A run's directory in S3: claimed by one run, and what refuses it is one line with a command."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_server import s3_bucket
from vit_jax.errors import StorageError, UserError
from vit_jax.runs.claim import Claim, Intervals
from vit_jax.runs.directory import RunDirectory
from vit_jax.storage import s3_arrays
from vit_jax.storage.s3 import S3

RUN = "s3://bkt/runs/first"
CONFIG = {"optimizer": {"lr": 0.01}, "total_steps": 10}
QUICK = Intervals(renew=0.1, stale=0.5, watch=0.05)


@pytest.fixture(scope="module", autouse=True)
def bucket() -> Iterator[str]:
    yield from s3_bucket()


def test_a_second_start_is_refused_and_a_lost_claim_taken_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = Claim(RUN, intervals=QUICK)
    with pytest.raises(UserError, match="is in use by another run, on host"):
        Claim(RUN, intervals=QUICK)
    first._released.set()  # As if its process were killed.
    first._thread.join()
    second = Claim(RUN, intervals=QUICK)
    assert "this one takes over" in caplog.text
    second.release()
    Claim(RUN, intervals=QUICK).release()  # At once.


def test_a_directory_is_claimed_and_resumed() -> None:
    with RunDirectory(RUN, CONFIG, writer=True) as first:
        pass
    with RunDirectory(RUN, CONFIG, writer=True) as second:
        assert second.identity == first.identity


def test_no_bucket_is_one_line() -> None:
    with pytest.raises(StorageError, match=r"s3://nope: .*`aws s3 mb s3://nope`"):
        RunDirectory("s3://nope/run", CONFIG, writer=True)


@pytest.mark.parametrize("method", ["put_object", "get_object"])
def test_no_access_is_one_line(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As S3 answers an account that may only read, or nothing at all."""
    once = S3.__mro__[1]._call_s3

    async def denied(self: S3, called: str, *args: object, **options: object) -> object:
        if called == method or method == "get_object":
            raise PermissionError("Access Denied")
        return await once(self, called, *args, **options)

    monkeypatch.setattr(S3.__mro__[1], "_call_s3", denied)
    with pytest.raises(StorageError, match=r"no access .*`aws s3api put-bucket-policy --bucket"):
        RunDirectory("s3://bkt/runs/other", CONFIG, writer=True)


def test_no_credentials_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    S3.clear_instance_cache()
    with pytest.raises(StorageError, match="no access without credentials; log in by `aws config"):
        RunDirectory("s3://bkt/runs/other", CONFIG, writer=True)
    S3.clear_instance_cache()


def test_arrays_go_where_all_else_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys that a role or a login gives reach TensorStore by a file, others as they are."""
    store = s3_arrays.key_value_store(f"{RUN}/state/")
    assert (store["bucket"], store["path"]) == ("bkt", "runs/first/state/")
    assert store["endpoint"].startswith("http://127.0.0.1:")
    assert store["aws_credentials"] == {"type": "environment"}
    # 0.25, 0.5, ... 16 s, and as many of 16 s as fit into 120 s.
    assert store["s3_request_retries"]["max_retries"] == 12
    given = s3_arrays._written("key", "secret", "token")
    text = Path(given["credentials_file"]).read_text()
    assert "aws_session_token = token" in text and f"[{given['profile']}]" in text
    assert Path(given["credentials_file"]).stat().st_mode & 0o077 == 0
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    S3.clear_instance_cache()
    store = s3_arrays.key_value_store("s3://other/run/")
    assert "endpoint" not in store and "aws_region" not in store  # They follow from the bucket.
    S3.clear_instance_cache()
