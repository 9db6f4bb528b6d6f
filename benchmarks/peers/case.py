"""What is measured, and who does it."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params

CLASSES = 1000
RATE, WEIGHT_DECAY, CLIP_NORM = 1e-3, 0.1, 1.0
# Logits of the first image, or values of the first head, that are compared.
SHOWN = 64
Job = Literal["forward", "train", "attention"]


def model(name: str, small: bool, dtype: Literal["float32", "bfloat16"]) -> ModelConfig:
    """A model at 224 pixels; a `small` one only shows that everything runs."""
    config = ModelConfig(name, num_classes=CLASSES, dtype=dtype).completed()
    if not small:
        return config
    return dataclasses.replace(config, image_size=64, depth=2, width=64, mlp_dim=128, num_heads=2)


@dataclass(frozen=True)
class Case:
    """One model and batch.

    `forward` is inference on a batch; `train` is a step of AdamW on it, with clipping and the
    cross-entropy of the softmax. Both start from uint8 pixels on the device. `attention` is the
    attention of one block alone, forward and backward, from queries, keys and values.
    """

    job: Job
    config: ModelConfig
    batch_size: int

    @property
    def title(self) -> str:
        """As in `S/16 at 224, training step, batch 8`."""
        name = self.config.name.removeprefix("ViT-")
        done = {"forward": "forward", "train": "training step"}.get(self.job, self.job)
        return f"{name} at {self.config.input_size[0]}, {done}, batch {self.batch_size}"

    def sized(self, batch_size: int) -> "Case":
        """The same with another batch."""
        return dataclasses.replace(self, batch_size=batch_size)

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [batch, height, width, 3] and labels int32 [batch]."""
        rng = np.random.default_rng(0)
        shape = (self.batch_size, *self.config.input_size, 3)
        images = rng.integers(0, 256, shape, np.uint8)
        return images, rng.integers(0, CLASSES, self.batch_size, np.int32)

    def heads(self) -> list[np.ndarray]:
        """Queries, keys and values, float32 [batch, T, heads, size]."""
        size, rng = self.config.size, np.random.default_rng(2)
        shape = (self.batch_size, self.config.sequence_length, size.num_heads)
        return [
            rng.standard_normal((*shape, size.width // size.num_heads), np.float32)
            for _ in range(3)
        ]

    def params(self) -> dict[str, Any]:
        """Parameters in our layout that are the same in every process, with a head that is not 0.

        Fresh ones have a head of zeros, so that all models would give the same loss.
        """
        rng = np.random.default_rng(1)

        def draw(path: tuple[Any, ...], x: Any) -> np.ndarray:
            values = 0.02 * rng.standard_normal(x.shape, np.float32)
            return values + np.float32(path[-1].key == "scale")

        import jax  # Its devices stay untouched.

        return jax.tree_util.tree_map_with_path(draw, abstract_params(self.config))


class Work(Protocol):
    """A case that is ready to run."""

    def run(self, count: int) -> list[float]:
        """Does it `count` times, one after the other, and waits.

        Returns:
          The loss of each step, or the first logits or values of the last batch.
        """
        ...


class Contender(Protocol):
    """A way to do the work; a module's `make`."""

    def __call__(self, case: Case, params: dict[str, Any] | None, **options: Any) -> Work:
        """Prepares a case.

        Args:
          params: from `Case.params`; None draws fresh ones as this contender does.
        """
        ...


# By name: the module that has `make`, and its options.
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours": ("benchmarks.peers.ours", {}),
    "ours, cuDNN": ("benchmarks.peers.ours", {"attention": "cudnn"}),
    "plain Flax": ("benchmarks.peers.plain", {}),
    "plain Flax, scanned": ("benchmarks.peers.plain", {"scan": True}),
    "timm": ("benchmarks.peers.timm_vit", {}),
    "timm, compiled": ("benchmarks.peers.timm_vit", {"compiled": True}),
}
BASE = "plain Flax"
GPU_ONLY = "ours, cuDNN"
