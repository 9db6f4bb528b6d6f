"""Weight files scored one after the other, without a run and without training data."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import jax
from jax.sharding import Mesh

from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import EvalContext
from vit_jax.evaluation.evaluator import Scores
from vit_jax.evaluation.opening import Evaluations, open_evaluations
from vit_jax.losses import Loss
from vit_jax.models.config import INHERITED, ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import Params, abstract_params
from vit_jax.parallel.agreement import on_all_processes
from vit_jax.parallel.sharding import state_shardings
from vit_jax.weights.catalogue.names import resolve
from vit_jax.weights.files import open_weights
from vit_jax.weights.load import params_for
from vit_jax.weights.placing import place


class ScoredModel(NamedTuple):
    """Opened weights as an evaluation sees them.

    Attributes:
      params: nested, still to be read from the file.
      config: completed, so that no key is left open.
      class_names: of the head, None if nothing beside the file names them.
      loss: that the head was trained with, None if nothing beside the file records it.
    """

    params: Params
    config: ModelConfig
    class_names: tuple[str, ...] | None
    loss: Loss | None


def open_scored(
    weights: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int] | None = None,
    like: ModelConfig | None = None,
) -> ScoredModel:
    """Opens weights with their own head.

    Args:
      weights: a file, the directory of a run that has ended, or a name as `resolve` takes it.
      image_size: pixels, a side or (height, width); None is that of `like`, or of the weights.
      like: what the model must be apart from its head; None is what the weights are.

    Raises:
      UserError: the file is missing or damaged, or is not of such a model.
    """
    if like is not None and image_size is not None:
        like = dataclasses.replace(like, image_size=image_size)
    opened = open_weights(resolve(os.fspath(weights)), like.image_size if like else image_size)
    own = opened.model
    if like is None:
        # What is left open follows the weights; the kind of attention depends on the devices.
        defaults = {field.name: field.default for field in dataclasses.fields(ModelConfig)}
        open_keys: dict[str, Any] = {key: defaults[key] for key in (*INHERITED, "preprocessing")}
        size = own.image_size if image_size is None else image_size
        wanted = dataclasses.replace(own, **open_keys, attention="xla", image_size=size)
    else:
        wanted = dataclasses.replace(
            like,
            num_classes=own.num_classes if like.num_classes is None else like.num_classes,
            representation_size=like.representation_size or own.representation_size,
        )
    params, config = params_for(opened, wanted, keep_head=True)
    return ScoredModel(params, config, opened.class_names, opened.extra.get("loss"))


class Scorer:
    """Scores models one after the other; programs and workers serve all that are alike."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._evaluations: Evaluations | None = None

    def score(
        self,
        model: ScoredModel,
        evals: Mapping[str, EvalConfig],
        *,
        mesh: Mesh,
        context: EvalContext,
        check: Callable[[Evaluations], object] = lambda evaluations: None,
        progress: Callable[[str, int, int], object] = lambda source, done, total: None,
    ) -> Iterator[tuple[str, str, Scores]]:
        """Scores a model.

        Args:
          check: called with evaluations that have just been opened.
          progress: as in `Evaluations.run`.

        Yields:
          The name, the sources and the scores of each evaluation.

        Raises:
          UserError: the data is missing, does not fit the model or cannot be read, or a device has
            too little memory.
        """
        key = (model.config, tuple(evals.items()), mesh, context)
        if key != self._key or self._evaluations is None:
            self.close()
            with on_all_processes():
                self._evaluations = open_evaluations(
                    evals, model=model.config, mesh=mesh, context=context
                )
            self._key = key
            check(self._evaluations)
        shapes = abstract_params(model.config)
        shardings = state_shardings(shapes, parameter_table(model.config), mesh)
        like = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
        )
        with on_all_processes():
            params = place(model.params, like)
        sources = self._evaluations.sources()
        for name, scores in self._evaluations.run(list(evals), params, progress=progress):
            own = [s.name for key, s in sources.items() if key.partition("/")[0] == name]
            yield name, ", ".join(own), scores

    def close(self) -> None:
        """Ends the workers."""
        if self._evaluations is not None:
            self._evaluations.close()
            self._evaluations, self._key = None, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
