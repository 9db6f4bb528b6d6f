"""A pass: one model runs once over every example of a source, in record order.

A pass owns the order of the records, padding, stopping, preprocessing and gathering. Whoever wants
something of a source writes a `Request`; a pass answers several requests in one run of one compiled
program.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, Self

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from vit_jax.data.batches import Chunks
from vit_jax.data.images.transforms import EvalTransform
from vit_jax.data.loader import Loader, local_rows
from vit_jax.inference.memory import (
    OutOfMemory,
    ProgramMemory,
    check_memory,
    noticing_lack_of_memory,
)
from vit_jax.inference.requests import Answer, Arrays, BatchAnswer, Interrupted, K, Request
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import Params, apply_model
from vit_jax.parallel.sharding import BATCH_AXES, OnMesh, batch_sharding, replicated
from vit_jax.preprocessing import normalize

# Images on each device in a batch whose size nobody has chosen.
IMAGES_PER_DEVICE = 32
# The loader serves all runs of a pass, and a loader must have an end: more runs than any use has.
_MANY_RUNS = 2**20


class Pass(Generic[K]):
    """One model, one source, one preprocessing and one batch size.

    Worker processes stay between runs, until `close`.

    Args:
      requests: by names of the caller's choice, all with the same source, preprocessing and border.
      batch_size: rows over all devices, rounded up to a multiple of the devices that split the
        batch. None takes 32 a device, and half of that as often as the program does not fit.
      workers: processes that decode; 0 decodes in threads.
      on_error: for an image that cannot be read. "stop" raises a UserError, "skip" logs it and
        "ignore" leaves it to the caller.
      on_error_flag: how a user sets `on_error`, for messages.
    """

    def __init__(
        self,
        model: ModelConfig,
        mesh: Mesh,
        requests: Mapping[K, Request],
        *,
        batch_size: int | None,
        workers: int,
        on_error: Literal["stop", "skip", "ignore"],
        on_error_flag: str = "--config.data.on_error",
    ):
        (self.source,) = {id(r.source): r.source for r in requests.values()}.values()
        (preprocessing,) = {r.preprocessing or model.preprocessing for r in requests.values()}
        assert preprocessing is not None
        (self._border,) = {request.border for request in requests.values()}
        self.requests = dict(requests)
        self._model, self._mesh, self._preprocessing = model, mesh, preprocessing
        self._workers, self._on_error, self._on_error_flag = workers, on_error, on_error_flag
        self._may_halve = batch_size is None
        processes = {device.process_index for device in mesh.devices.flat}
        self._is_shared, self._is_first = len(processes) > 1, jax.process_index() == min(processes)
        self._splits = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
        wanted = batch_size or IMAGES_PER_DEVICE * self._splits
        # Few examples need no larger batch.
        self._set_batch_size(min(wanted, len(self.source)))
        self._loader: Loader | None = None

    @property
    def batches(self) -> int:
        """Number of batches in one run."""
        return self._chunks.steps_per_epoch

    @property
    def waited(self) -> float:
        """Seconds that the runs since the workers started have waited for batches."""
        return 0.0 if self._loader is None else self._loader.waited

    def run(
        self,
        params: Params,
        names: Sequence[K] | None = None,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int], object] = lambda examples: None,
    ) -> dict[K, Answer]:
        """Answers requests over all examples.

        Args:
          names: the requests; None is all.
          should_stop: asked before each batch, by every process at the same points.
          progress: called after each batch with its number of examples.

        Raises:
          Interrupted: `should_stop()` was true.
          OutOfMemory: the program needs more memory than a device has.
          UserError: an image cannot be read and `on_error` is "stop".
        """
        names = tuple(self.requests if names is None else names)
        batches = []
        for batch in self.stream(params, names, should_stop=should_stop):
            batches.append(batch)
            progress(len(batch.readable))
        readable = [batch.start + np.flatnonzero(batch.readable) for batch in batches]
        return {
            name: Answer(
                _totals([batch.sums[name] for batch in batches]),
                _joined([(batch.rows[name], batch.readable) for batch in batches]),
                np.concatenate(readable),
            )
            for name in names
        }

    def stream(
        self,
        params: Params,
        names: Sequence[K] | None = None,
        *,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[BatchAnswer[K]]:
        """As `run`, batch by batch; one batch is computed while the one before is handed out."""
        names = tuple(self.requests if names is None else names)
        pending: tuple[int, Any] | None = None
        try:
            step = 0
            while step < self.batches:
                if should_stop():
                    raise Interrupted
                try:
                    outputs = self._next(params, names, wait=step == 0)
                except OutOfMemory:
                    # Other processes may have had room, and are a batch ahead.
                    if step or self._is_shared or not self._halve():
                        raise
                    continue
                if pending is not None:
                    yield self._fetch(*pending)
                pending = step, outputs
                step += 1
            if pending is not None:
                yield self._fetch(*pending)
        except BaseException:
            # The batches that are left would be taken for those of the next run.
            self.close()
            raise

    def compile(self, params: Params, names: Sequence[K] | None = None) -> ProgramMemory:
        """Compiles the program that answers these requests, and returns the memory that it needs.

        Args:
          params: arrays, or their shapes with shardings.

        Raises:
          OutOfMemory: it needs more than a device has.
        """
        names = tuple(self.requests if names is None else names)
        while True:
            try:
                return self._program(params, names)[1]
            except OutOfMemory:
                if not self._halve():
                    raise

    def close(self) -> None:
        """Ends the workers; the next run starts new ones."""
        if self._loader is not None:
            self._loader.close()
            self._loader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set_batch_size(self, batch_size: int) -> None:
        self.batch_size = -(-max(batch_size, 1) // self._splits) * self._splits
        self._chunks = Chunks(
            self.source,
            EvalTransform(self._model.input_size, self._preprocessing, self._border),
            size=self._model.input_size,
            rows=local_rows(self.batch_size, batch_sharding(self._mesh)),
            batch_size=self.batch_size,
            seed=0,
            shuffle=False,
        )
        self._programs: dict[Any, tuple[jax.stages.Compiled, ProgramMemory]] = {}

    def _halve(self) -> bool:
        """Halves the batch size and returns True; False if it is fixed or cannot be halved."""
        if not self._may_halve or self.batch_size == self._splits:
            return False
        self.close()
        self._set_batch_size(self.batch_size // 2)
        return True

    def _next(self, params: Params, names: tuple[K, ...], *, wait: bool) -> Any:
        program, _ = self._program(params, names)
        if self._loader is None:
            self._loader = Loader(
                self._chunks,
                batch_sharding(self._mesh),
                start=0,
                stop=_MANY_RUNS * self.batches,
                workers=self._workers,
                on_error=self._on_error,
                on_error_flag=self._on_error_flag,
            )
        with noticing_lack_of_memory():
            outputs = program(params, next(self._loader))
            # A lack of memory shows in the first batch, or never.
            return jax.block_until_ready(outputs) if wait else outputs

    def _program(
        self, params: Params, names: tuple[K, ...]
    ) -> tuple[jax.stages.Compiled, ProgramMemory]:
        leaves, structure = jax.tree.flatten(params)
        kinds = tuple((x.shape, x.dtype, getattr(x, "sharding", None)) for x in leaves)
        key = (names, structure, kinds)
        if key not in self._programs:
            lack = None
            try:
                self._programs[key] = self._compile(params, names)
            except OutOfMemory as error:
                lack = error
            # On all processes or on none: they must take the same batches.
            if self._is_shared:
                others = multihost_utils.process_allgather(np.array(lack is not None)).any()
            else:
                others = False
            if lack is not None or others:
                raise lack or OutOfMemory("another process has too little memory")
        return self._programs[key]

    def _compile(
        self, params: Params, names: tuple[K, ...]
    ) -> tuple[jax.stages.Compiled, ProgramMemory]:
        sharding = batch_sharding(self._mesh)
        batch = {
            name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=sharding)
            for name, spec in self._chunks.spec.items()
        }
        answer = jax.jit(self._make_answer(names), out_shardings=replicated(self._mesh))
        with noticing_lack_of_memory():
            compiled = answer.lower(params, batch).compile()
        memory = ProgramMemory.of(compiled)
        check_memory(memory, jax.tree.leaves(params), self._mesh)
        return compiled, memory

    def _make_answer(self, names: tuple[K, ...]) -> Callable[[Params, Arrays], Any]:
        apply, placement = apply_model(self._model), OnMesh(self._mesh)
        requests = {name: self.requests[name] for name in names}
        capture = sorted({output for request in requests.values() for output in request.outputs})

        def answer(params: Params, batch: Arrays) -> Any:
            images = normalize(batch["images"], self._preprocessing)
            outputs: Any = apply(params, images, placement=placement, capture=capture)
            logits, captured = outputs if capture else (outputs, {})
            given = {"logits": logits, **batch}
            sums, rows = {}, {}
            for name, request in requests.items():
                wanted = given | {output: captured[output] for output in request.outputs}
                sums[name] = request.sums(wanted) if request.sums is not None else {}
                rows[name] = request.rows(wanted) if request.rows is not None else {}
            return batch["weights"], sums, rows

        return answer

    def _fetch(self, step: int, outputs: Any) -> BatchAnswer[K]:
        """Waits for the outputs of a batch. They are whole on every device: see `_program`."""
        weights, sums, rows = outputs
        start = step * self.batch_size
        count = min(self.batch_size, len(self.source) - start)
        if not self._is_first:
            rows = {name: {} for name in rows}
        weights, sums, rows = jax.device_get((weights, sums, rows))
        cut = {name: {k: v[:count] for k, v in arrays.items()} for name, arrays in rows.items()}
        return BatchAnswer(start, weights[:count] > 0, sums, cut)


def _totals(sums: list[dict[str, np.ndarray]]) -> dict[str, float]:
    # In float64: float32 counts of millions would lose examples.
    return {
        name: float(np.sum([batch[name] for batch in sums], dtype=np.float64)) for name in sums[0]
    }


def _joined(batches: list[tuple[dict[str, np.ndarray], np.ndarray]]) -> dict[str, np.ndarray]:
    names = batches[0][0]
    return {
        name: np.concatenate([rows[name][readable] for rows, readable in batches]) for name in names
    }
