"""Weights that lie in a bucket: a file, or a run's directory."""

from pathlib import Path

import pytest

from tests.bucket_api import Bucket
from tests.small_models import SMALL, assert_same, random_params, refusal
from vit_jax.weights.catalogue.names import resolve
from vit_jax.weights.files import open_weights, write_weights

RUN = "gs://bkt/runs/one"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_directory_and_a_file_are_read_once(bucket: Bucket) -> None:
    params = random_params(SMALL)
    write_weights(f"{RUN}/weights.npz", params, SMALL, class_names=tuple("abcde"))
    for kind in ("ranged read", "read"):  # Ten in all, so that several are met.
        bucket.faults.inject(kind, "503", "cut", every=2)
    for address in (RUN, f"{RUN}/", f"{RUN}/weights.npz"):
        weights = open_weights(resolve(address))
        assert_same(weights.params, params)
        assert (weights.model, weights.class_names) == (SMALL, tuple("abcde"))
    assert bucket.faults.counts["read", "well"] + bucket.faults.counts["ranged read", "well"] == 2


def test_weights_that_were_replaced_are_downloaded_anew(bucket: Bucket) -> None:
    for seed in (0, 1):
        write_weights(f"{RUN}/weights.npz", random_params(SMALL, seed), SMALL)
        assert_same(open_weights(resolve(RUN)).params, random_params(SMALL, seed))


def test_a_run_that_has_not_ended(bucket: Bucket) -> None:
    bucket.objects.write("bkt", "runs/one/config.json", b"{}", "application/json", {})
    assert "finish it with the same train command" in refusal(resolve, RUN)


def test_what_is_not_there_or_may_not_be_read_is_one_line(bucket: Bucket) -> None:
    assert "no such object" in refusal(resolve, f"{RUN}/other.npz")
    assert "nothing of this name" in refusal(resolve, "gs://bkt/nothing")
    assert "there is no such bucket" in refusal(resolve, "gs://other/weights.npz")
    bucket.faults.access = "none"
    assert "no access" in refusal(resolve, f"{RUN}/weights.npz")
