"""Top-1, top-5 and loss over every example of a data set exactly once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from vit_jax.data.batches import Chunks
from vit_jax.data.images.transforms import EvalTransform
from vit_jax.data.loader import Loader, local_rows
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.losses import Loss, cross_entropy, weighted_sum
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params, apply_model
from vit_jax.parallel.sharding import OnMesh, batch_sharding, replicated
from vit_jax.preprocessing import PreprocessingConfig, normalize

# More evaluations than any run has: the loader that serves them all wants an end.
_MANY = 2**20


@dataclass(frozen=True)
class EvalConfig:
    """One evaluation of a run; its name in `evals` prefixes its metrics."""

    # In TFDS syntax, such as `test` or `train[98%:]`.
    split: str
    # None is the training data's.
    dataset: str | None = None
    # None evaluates after the last step only.
    every_steps: int | None = None

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps < 1:
            raise UserError(f"every_steps must be at least 1, not {self.every_steps}")


class Classification:
    """Scores a model on one data set, as often as asked; workers stay between evaluations.

    Rows that fill up the last batch and images that cannot be read have weight 0. Of an example
    with several labels, any of them is right; one without labels has no right answer and is not
    counted, as is the custom with ReaL's (arXiv 2006.07159).

    Attributes:
      source: the data set.
    """

    def __init__(
        self,
        model: ModelConfig,
        preprocessing: PreprocessingConfig,
        source: Source,
        mesh: Mesh,
        *,
        batch_size: int,
        loss: Loss,
        workers: int,
        on_error: Literal["stop", "skip"],
    ):
        apply = apply_model(model)
        placement = OnMesh(mesh)

        def count(params: Params, batch: dict[str, Array]) -> dict[str, Array]:
            images = normalize(batch["images"], preprocessing)
            logits = apply(params, images, placement=placement)
            best = jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]
            labels = batch["labels"].reshape(len(best), -1)
            hits = (best[:, :, None] == labels[:, None]).any(axis=-1)
            losses = cross_entropy(logits, batch["labels"], loss, label_smoothing=0.0)
            values = {"top1": hits[:, 0], "top5": hits.any(axis=1), "loss": losses}
            weights = batch["weights"] * (labels >= 0).any(axis=-1)
            sums = {k: weighted_sum(v.astype(jnp.float32), weights) for k, v in values.items()}
            return sums | {"examples": weights.sum()}

        self.source = source
        self._count = jax.jit(count, out_shardings=replicated(mesh))
        self._sharding = batch_sharding(mesh)
        self._chunks = Chunks(
            source,
            EvalTransform(model.input_size, preprocessing),
            size=model.input_size,
            rows=local_rows(batch_size, self._sharding),
            batch_size=batch_size,
            seed=0,
            shuffle=False,
        )
        self._workers, self._on_error = workers, on_error
        self._loader: Loader | None = None

    def evaluate(
        self, params: Params, should_stop: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """Shares `top1` and `top5` of right answers, mean `loss` in nats, number of `examples`.

        Args:
          should_stop: asked before each batch; when it says so, the answer is None.

        Raises:
          UserError: an image cannot be read and `on_error` is "stop", or none can be.
        """
        steps = self._chunks.steps_per_epoch
        if self._loader is None:
            self._loader = Loader(
                self._chunks,
                self._sharding,
                start=0,
                stop=_MANY * steps,
                workers=self._workers,
                on_error=self._on_error,
            )
        counts = []
        for _ in range(steps):
            if should_stop():
                # The batches left would be taken for those of the next evaluation.
                self.close()
                return None
            counts.append(self._count(params, next(self._loader)))
        counts = jax.device_get(counts)
        # In float64 on the host: float32 counts of millions would lose examples.
        sums = {
            name: float(np.sum([count[name] for count in counts], dtype=np.float64))
            for name in counts[0]
        }
        examples = sums.pop("examples")
        if examples == 0:
            raise UserError(
                f"{self._chunks.source.name}: not one image can be read and has a label"
            )
        return {name: value / examples for name, value in sums.items()} | {"examples": examples}

    def close(self) -> None:
        """Ends the workers."""
        if self._loader is not None:
            self._loader.close()
            self._loader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()
