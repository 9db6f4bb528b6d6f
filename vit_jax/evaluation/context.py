"""What an evaluation takes from outside: defaults for its data, and the model's classes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Self

from vit_jax.data.config import DataConfig
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.losses import Loss
from vit_jax.models.config import ModelConfig
from vit_jax.storage.cache import Cache


def config_option(name: str, key: str) -> str:
    """How a user sets a key of an evaluation that a config names."""
    return f"--config.evals.{name}.{key}"


@dataclass(frozen=True)
class EvalContext:
    """What evaluations share that their configs do not name.

    Attributes:
      class_names: of the model's head, in its order; None if they are not known.
      dataset: the data set of evaluations that name none.
      data_dir, test_fraction, label, max_labels: as in `data.sources.open.open_source`.
        `test_fraction` and `label` apply to `dataset` only.
      cache: keeps what is read from shards; None reads all of it from its place each time.
      workers: processes that decode images, for each source.
      on_error: what an image that cannot be read does: end the evaluation, or be left out.
      loss: the one that the head was trained with.
      batch_size: of evaluations that name none. None takes 32 a device, and half of that as often
        as the program does not fit.
      option: how a user sets a key of an evaluation, by its name and the key; for messages.
      on_error_flag: how a user sets `on_error`, for messages.
    """

    class_names: tuple[str, ...] | None
    dataset: str | None = None
    data_dir: str | None = None
    test_fraction: float | None = None
    label: str | None = None
    max_labels: int | None = None
    cache: Cache | None = None
    workers: int = 0
    on_error: Literal["stop", "skip"] = "stop"
    loss: Loss = "softmax"
    batch_size: int | None = None
    option: Callable[[str, str], str] = config_option
    on_error_flag: str = "--config.data.on_error"

    @classmethod
    def of_run(
        cls,
        data: DataConfig,
        *,
        class_names: tuple[str, ...] | None,
        loss: Loss,
        batch_size: int | None,
    ) -> Self:
        """The context of a run's evaluations: what they leave open is as in its training data."""
        return cls(
            class_names=class_names,
            dataset=data.dataset,
            data_dir=data.data_dir,
            test_fraction=data.test_fraction,
            label=data.label,
            max_labels=data.max_labels,
            cache=data.cache(),
            workers=data.workers,
            on_error=data.on_error,
            loss=loss,
            batch_size=batch_size,
        )


@dataclass(frozen=True)
class Opener:
    """Opens what one evaluation needs.

    Attributes:
      name: the evaluation's.
      model: completed, so that no key is left open.
      sources: those that evaluations have opened so far. Evaluations of the same data get the same
        object, and so share a pass.
    """

    name: str
    model: ModelConfig
    context: EvalContext
    sources: dict[tuple[str, str], Source] = field(default_factory=dict)

    def source(self, split: str, dataset: str | None = None) -> Source:
        """Opens part of a data set.

        Args:
          split: in TFDS syntax.
          dataset: None is the context's.

        Raises:
          NoDataError: the data set is missing.
          UserError: the data set is not as its options say, or none is named.
        """
        context = self.context
        dataset = dataset or context.dataset
        if dataset is None:
            raise UserError(f"no data set to evaluate on: give {self.option('dataset')}=DATASET")
        is_default = dataset == context.dataset
        if (dataset, split) not in self.sources:
            self.sources[dataset, split] = open_source(
                dataset,
                split,
                data_dir=context.data_dir,
                test_fraction=context.test_fraction if is_default else None,
                label=context.label if is_default else None,
                max_labels=context.max_labels,
                cache=context.cache,
            )
        return self.sources[dataset, split]

    def option(self, key: str) -> str:
        """How a user sets a key of this evaluation."""
        return self.context.option(self.name, key)
