"""CPU time of the training step and of the forward pass, beside a plain ViT in Flax Linen.

    python -m benchmarks.step
    python -m benchmarks.step --tasks train:S/16:8:4 --forms plain scan unroll --rounds 25

The plain one (`benchmarks/plain_vit.py`) unrolls its blocks, as the published code does by default.
All run in one process and take turns, in both orders: float32, 224 pixels, AdamW with clipping and
its first moment in bfloat16. Times are CPU seconds of all threads; the table shows their quartiles
over --rounds, the ratio of lower quartiles to the first form's, and CPU seconds to trace and
compile. A task is `train:SIZE:BATCH[:DEPTH]`, `forward:SIZE:BATCH[:DEPTH]`, or `first:SIZE:BATCH`,
which is compiling and the first 100 steps, at the median of a step. Recorded in
`benchmarks/results/step.md`.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.machine import machine
from benchmarks.plain_vit import plain_params, plain_vit, train_step
from vit_jax.experiments.synthetic import ADAMW, CLASSES, random_batch, synthetic_program
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import apply_model, init_params
from vit_jax.parallel.mesh import MeshConfig

FORMS: dict[str, dict[str, Any]] = {"plain": {}, "scan": {"scan": True}, "unroll": {"scan": False}}
TASKS = ["train:S/16:8", "first:Ti/16:8", "forward:Ti/16:32", "forward:B/16:32"]
_FIRST_STEPS = 100


class Task(NamedTuple):
    """What is timed."""

    kind: str
    model: str
    batch_size: int
    depth: int | None

    @classmethod
    def read(cls, text: str) -> "Task":
        """Reads KIND:SIZE:BATCH[:DEPTH]."""
        kind, size, batch_size, *depth = text.split(":")
        return cls(kind, f"ViT-{size}", int(batch_size), int(depth[0]) if depth else None)

    def config(self, **options: Any) -> ModelConfig:
        """The model in one form."""
        return ModelConfig(self.model, num_classes=CLASSES, depth=self.depth, **options).completed()


def runner(task: Task, form: str) -> Callable[[], None]:
    """Compiles one form of a task and returns what runs it once, to its end."""
    return (_forward if task.kind == "forward" else _train)(task, form)


def _forward(task: Task, form: str) -> Callable[[], None]:
    config = task.config(**FORMS[form])
    params = jax.jit(lambda: init_params(config, 0))()
    images = jnp.zeros((task.batch_size, *config.input_size, 3))
    if form == "plain":
        model = plain_vit(config)
        arguments = {"params": plain_params(params)}, images
        program = jax.jit(model.apply).lower(*arguments).compile()
    else:
        arguments = params, images
        program = jax.jit(apply_model(config)).lower(*arguments).compile()
    return lambda: jax.block_until_ready(program(*arguments))


def _train(task: Task, form: str) -> Callable[[], None]:
    program = synthetic_program(
        task.model,
        task.batch_size,
        MeshConfig(),
        jax.devices()[:1],
        depth=task.depth,
        **FORMS[form],
    )
    batch = random_batch(program)
    if form == "plain":
        optimizer = optax.chain(
            optax.clip_by_global_norm(ADAMW.clip_norm or 0),
            optax.adamw(ADAMW.lr, mu_dtype=jnp.bfloat16, weight_decay=ADAMW.weight_decay),
        )
        params = plain_params(jax.jit(lambda: init_params(program.config.model, 0))())
        state: Any = (params, jax.jit(optimizer.init)(params))
        rest: Any = (batch["images"], batch["labels"])
        step = jax.jit(
            train_step(plain_vit(program.config.model), optimizer), donate_argnums=(0, 1)
        )
        compiled = step.lower(*state, *rest).compile()

        def advance(state: Any) -> Any:
            return compiled(*state, *rest)[:2]
    else:
        state = program.start()
        compiled = program.compile()

        def advance(state: Any) -> Any:
            return compiled(state, batch, ())[0]

    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(advance(state))

    return run


def measure(task: Task, forms: list[str], rounds: int) -> None:
    """Prints the rows of a task."""
    runs, compiling = {}, {}
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    for form in forms:
        began = time.process_time()
        runs[form] = runner(task, form)
        compiling[form] = time.process_time() - began
        runs[form]()
    for number in range(rounds):
        for form in forms if number % 2 else forms[::-1]:
            began = time.process_time()
            runs[form]()
            seconds[form].append(time.process_time() - began)
    name = f"{task.kind} {task.model}, batch {task.batch_size}"
    name += "" if task.depth is None else f", {task.depth} blocks"
    quartiles = {form: np.quantile(seconds[form], [0.25, 0.5, 0.75]) for form in forms}
    if task.kind == "first":
        name += f", {_FIRST_STEPS} steps"
        for form in forms:
            quartiles[form] = quartiles[form] * _FIRST_STEPS + compiling[form]
    for form in forms:
        low, median, high = quartiles[form]
        ratio = low / quartiles[forms[0]][0]
        print(
            f"| {name} | {form} | {low:.3f} | {median:.3f} | {high:.3f} | {ratio:.3f} | "
            f"{compiling[form]:.1f} |",
            flush=True,
        )


def main(tasks: list[str], forms: list[str], rounds: int) -> None:
    print(f"{machine()}, {rounds} rounds\n")
    print("| task | form | lower quartile | median | upper quartile | ratio | compile |")
    print("|" + " --- |" * 7)
    for text in tasks:
        measure(Task.read(text), forms, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="TASK")
    parser.add_argument("--forms", nargs="+", default=["plain", "scan"], choices=list(FORMS))
    parser.add_argument("--rounds", type=int, default=15)
    main(**vars(parser.parse_args()))
