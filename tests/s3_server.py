"""A server that speaks as S3 does, with one bucket."""

from collections.abc import Iterator

import boto3
import pytest
from etils.epath import backend
from moto.server import ThreadedMotoServer

from vit_jax.storage.s3 import S3


def s3_bucket() -> Iterator[str]:
    """Yields the address of an empty bucket; the environment leads there meanwhile."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # An earlier test of this process had another server.
        S3.clear_instance_cache()
        backend.fsspec_backend._get_filesystem.cache_clear()
        boto3.client("s3").create_bucket(Bucket="bkt")
        yield "s3://bkt"
    server.stop()
