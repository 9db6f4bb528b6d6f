"""The benchmark of peers: timm does the same work as ours."""

from typing import Any

import numpy as np
import pytest

from benchmarks.peers import ours, timm_vit
from benchmarks.peers.case import Case, model


@pytest.mark.parametrize("job", ["train", "forward", "attention"])
def test_timm_does_our_work(job: Any) -> None:
    case = Case(job, model("ViT-Ti/16", True, "float32"), 2)
    works = [contender.make(case, case.params()) for contender in (ours, timm_vit)]
    expected, actual = (work.run(3) for work in works)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
