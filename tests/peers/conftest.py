"""Tests against torch, timm and transformers: collected only where these are installed."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PEERS = ("torch", "torchvision", "timm", "transformers")
if importlib.util.find_spec("jax2onnx") is None:
    collect_ignore = ["test_onnx.py"]
if any(importlib.util.find_spec(peer) is None for peer in PEERS):
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    # As many processes as cores run these tests.
    torch.set_num_threads(1)
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # Built for another torch, its compiled part is out of reach. All that its import wants of
        # that part is that these operators are declared, for as long as this object lives.
        operators = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            operators.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")


@pytest.fixture(autouse=True)
def leave_no_files(tmp_path: Path) -> Iterator[Any]:
    """Removes what a test wrote: B's weights are large, and pytest keeps files of three runs."""
    yield
    shutil.rmtree(tmp_path)
