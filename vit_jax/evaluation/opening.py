"""A set of evaluations of one model, open: passes are shared, scores are the same everywhere."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

import jax
from jax.sharding import Mesh

from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.evaluation import builtin  # noqa: F401 (registers the kinds)
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import EvalContext, Opener
from vit_jax.evaluation.evaluator import Evaluator, Scores
from vit_jax.inference.memory import OutOfMemory, ProgramMemory
from vit_jax.inference.passes import Pass
from vit_jax.inference.requests import Answer, Request
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params
from vit_jax.parallel.agreement import gather_texts, on_all_processes

_log = logging.getLogger(__name__)

# An evaluation's name and the role of one of its sources.
_Key = tuple[str, str]


def open_evaluations(
    evals: Mapping[str, EvalConfig], *, model: ModelConfig, mesh: Mesh, context: EvalContext
) -> "Evaluations":
    """Opens the data of all evaluations and checks that it fits the model; reads no image.

    Evaluators that want the same source, preprocessing and border share a pass, in the smallest of
    the batch sizes that they name.

    Raises:
      NoDataError: a data set is missing.
      UserError: a data set does not fit its evaluation.
    """
    sources: dict[tuple[str, str], Source] = {}
    evaluators: dict[str, Evaluator] = {}
    for name, config in evals.items():
        evaluators[name] = config.make(Opener(name, model, context, sources))
    grouped: dict[tuple[object, ...], dict[_Key, Request]] = {}
    for name, evaluator in evaluators.items():
        for role, request in evaluator.requests.items():
            preprocessing = request.preprocessing or model.preprocessing
            key = (id(request.source), preprocessing, request.border)
            grouped.setdefault(key, {})[name, role] = request
    passes = []
    for requests in grouped.values():
        sizes = [evals[name].batch_size or context.batch_size for name, _ in requests]
        given = [size for size in sizes if size is not None]
        passes.append(
            Pass(
                model,
                mesh,
                requests,
                batch_size=min(given, default=None),
                workers=context.workers,
                on_error=context.on_error,
                on_error_flag=context.on_error_flag,
            )
        )
    return Evaluations(evaluators, passes, context)


class Evaluations:
    """Open evaluations by name. Workers stay between runs; `close` ends them.

    Attributes:
      names: in the order of the config.
    """

    def __init__(
        self,
        evaluators: Mapping[str, Evaluator],
        passes: Sequence[Pass[_Key]],
        context: EvalContext,
    ):
        self.names = tuple(evaluators)
        self._evaluators, self._passes, self._context = dict(evaluators), passes, context

    def sources(self) -> dict[str, Source]:
        """Every evaluation's sources, by its name, or by name and role where it has several."""
        return {
            name if len(evaluator.requests) == 1 else f"{name}/{role}": request.source
            for name, evaluator in self._evaluators.items()
            for role, request in evaluator.requests.items()
        }

    def score_names(self, name: str) -> tuple[str, ...]:
        """The scores that an evaluation gives."""
        return self._evaluators[name].score_names

    def lower_is_better(self, name: str, score: str) -> bool:
        """Whether this score is better when it is lower."""
        return score in self._evaluators[name].lower_is_better

    def run(
        self,
        names: Sequence[str],
        params: Params,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Callable[[str, int, int], object] = lambda source, done, total: None,
    ) -> Iterator[tuple[str, Scores]]:
        """Scores the model, one evaluation after the other, in the order of `names`.

        Args:
          params: the weights to score, raw or averaged, on the mesh.
          should_stop: asked before each batch, by every process at the same points.
          progress: called after each batch with the source's name, and the number of its examples
            so far and in all.

        Yields:
          The name and the scores of each evaluation as soon as it is done; equal on all processes.

        Raises:
          Interrupted: `should_stop()` was true. Evaluations that have been yielded are complete.
          UserError: an image cannot be read, no example can be scored, or a device has too little
            memory.
        """
        answers: dict[_Key, Answer] = {}
        for name in names:
            wanted = {(name, role) for role in self._evaluators[name].requests}
            for each in self._passes:
                due = [key for key in each.requests if key[0] in names]
                if wanted & set(due) - answers.keys():
                    done = 0

                    def count(examples: int, each: Pass[_Key] = each) -> None:
                        nonlocal done
                        done += examples
                        progress(each.source.name, done, len(each.source))

                    with self._explaining_memory(each):
                        answers |= each.run(params, due, should_stop=should_stop, progress=count)
            found = {role: answers.pop((name, role)) for _, role in sorted(wanted)}
            yield name, _score(self._evaluators[name], found)

    def compile(self, params: Params) -> None:
        """Compiles the largest program, so that a lack of memory shows before any work is done.

        Args:
          params: arrays on the mesh, or their shapes with shardings.

        Raises:
          UserError: a device has too little memory.
        """
        if self._passes:
            largest = self._largest()
            with self._explaining_memory(largest):
                largest.compile(params)

    def memory(self, params: Params) -> ProgramMemory:
        """The memory on each device of the program that `compile` compiles."""
        return self._largest().compile(params)

    def _largest(self) -> Pass[_Key]:
        def size(each: Pass[_Key]) -> tuple[int, int]:
            outputs = {output for request in each.requests.values() for output in request.outputs}
            return each.batch_size, len(outputs)

        return max(self._passes, key=size)

    def close(self) -> None:
        """Ends the workers."""
        for each in self._passes:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _explaining_memory(self, each: Pass[_Key]) -> Iterator[None]:
        try:
            yield
        except OutOfMemory as error:
            names = list(dict.fromkeys(name for name, _ in each.requests))
            option = self._context.option(names[0], "batch_size")
            raise UserError(
                f"evaluation {', '.join(names)} needs more memory than a device has ({error}); "
                f"use {option} below {each.batch_size}"
            ) from error


def _score(evaluator: Evaluator, answers: Mapping[str, Answer]) -> Scores:
    """Scores on process 0, told to the others: features are not sent, scores are."""
    scores = None
    with on_all_processes():
        if jax.process_index() == 0:
            scores = evaluator.scores(answers)
    texts = gather_texts(json.dumps(scores))
    values, line = json.loads(texts[0])
    return Scores(values, line)
