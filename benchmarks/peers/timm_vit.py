"""The work by timm's ViT: eager or compiled, with SDPA, and bfloat16 by autocast.

The GELU is the tanh form, as in ours, so that all compute the same.
"""

import contextlib
import functools
import os
from typing import Any

# Compilers that are no children of this process, or that find their work done, cost no CPU time.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"

import numpy as np
import torch

from benchmarks.peers.case import CLASSES, CLIP_NORM, RATE, SHOWN, WEIGHT_DECAY, Case
from vit_jax.weights.layouts.timm import to_timm

try:
    import torchvision  # noqa: F401  timm imports it.
except RuntimeError:
    # Built for another torch, its compiled part is out of reach. All that its import wants of that
    # part is that these operators are declared, for as long as this object lives.
    _operators = torch.library.Library("torchvision", "DEF")
    for _operator in ("nms", "qnms"):
        _operators.define(f"{_operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")

import timm
from timm.models.vision_transformer import VisionTransformer

torch.set_num_threads(len(os.sched_getaffinity(0)))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe() -> tuple[str, str, str]:
    """Platform, device and versions."""
    words = f"torch {torch.__version__}, timm {timm.__version__}"
    if DEVICE.type == "cuda":
        return "gpu", torch.cuda.get_device_name(), words
    return "cpu", "cpu", words


def _model(case: Case, params: Any) -> Any:
    config = case.config
    model = VisionTransformer(
        img_size=config.input_size,
        patch_size=config.patch_size,
        num_classes=CLASSES,
        embed_dim=config.size.width,
        depth=config.size.depth,
        num_heads=config.size.num_heads,
        mlp_ratio=config.size.mlp_dim / config.size.width,
        act_layer=functools.partial(torch.nn.GELU, approximate="tanh"),
    )
    if params is not None:
        arrays = to_timm(params, config)
        model.load_state_dict(
            {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}
        )
    return model.to(DEVICE)


class _Module(torch.nn.Module):
    """A model on uint8 pixels [batch, 3, height, width], in the type of a case."""

    def __init__(self, case: Case, params: Any):
        super().__init__()
        self.model, self._dtype = _model(case, params), case.config.dtype

    def forward(self, images: Any) -> Any:
        """Returns float32 logits [batch, classes]."""
        mixed: Any = contextlib.nullcontext()
        if self._dtype == "bfloat16":
            mixed = torch.autocast(DEVICE.type, torch.bfloat16)
        with mixed:
            return self.model(images.float() / 127.5 - 1).float()


def _images(images: np.ndarray) -> Any:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(DEVICE)


def wait() -> None:
    """Until the device has done all."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


class Training:
    """Steps of PyTorch's fused AdamW."""

    def __init__(self, case: Case, params: Any, compiled: bool):
        module = _Module(case, params).train()
        self._parameters = list(module.parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        images, labels = case.batch()
        self._batch = _images(images), torch.from_numpy(labels).long().to(DEVICE)
        self._module = torch.compile(module) if compiled else module

    def run(self, count: int) -> list[float]:
        """See `Work`."""
        losses = [self.step(*self._batch) for _ in range(count)]
        wait()
        return [float(loss) for loss in losses]

    def step(self, images: Any, labels: Any) -> Any:
        """One step on uint8 [batch, 3, height, width] and int64 labels; returns the loss."""
        images, labels = (x.to(DEVICE, non_blocking=True) for x in (images, labels))
        loss = torch.nn.functional.cross_entropy(self._module(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach()


class Forward:
    """The forward pass without gradients."""

    def __init__(self, case: Case, params: Any, compiled: bool):
        module = _Module(case, params).eval()
        self._module = torch.compile(module) if compiled else module
        self._images = _images(case.batch()[0])

    def run(self, count: int) -> list[float]:
        """See `Work`."""
        with torch.inference_mode():
            for _ in range(count):
                logits = self._module(self._images)
        wait()
        return logits[0, :SHOWN].tolist()


class AttentionAlone:
    """The gradient of the sum of what SDPA gives, for queries, keys and values."""

    def __init__(self, case: Case):
        dtype = getattr(torch, case.config.dtype)
        self._heads = [
            torch.from_numpy(x).to(DEVICE, dtype).transpose(1, 2).requires_grad_()
            for x in case.heads()
        ]

    def run(self, count: int) -> list[float]:
        """See `Work`."""
        for _ in range(count):
            mixed = torch.nn.functional.scaled_dot_product_attention(*self._heads)
            torch.autograd.grad(mixed.float().sum(), self._heads)
        wait()
        return mixed[0, 0, 0, :SHOWN].float().tolist()


def make(case: Case, params: Any, *, compiled: bool = False) -> Training | Forward | AttentionAlone:
    """See `Contender`.

    Args:
      compiled: by torch.compile.
    """
    if case.job == "attention":
        return AttentionAlone(case)
    return (Training if case.job == "train" else Forward)(case, params, compiled)
