"""The training step as a program over a mesh: what goes in, what comes out, and where it lives.

Nothing here needs data, or devices that are present, so that it can be compiled for absent ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from vit_jax.data.batches import batch_spec
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import Params, abstract_params, init_params
from vit_jax.parallel.sharding import OnMesh, batch_sharding, replicated, state_shardings
from vit_jax.parameters import Table, moments, nested
from vit_jax.training.config import TrainConfig
from vit_jax.training.norms import PartNorms
from vit_jax.training.objectives import OWN, Objective, ObjectiveContext, split_params
from vit_jax.training.optimizer import make_optimizer
from vit_jax.training.schedule import make_schedule
from vit_jax.training.step import TrainState, init_state, make_train_step, pass_steps


@dataclass(frozen=True)
class Program:
    """The training step of one config on one mesh.

    Attributes:
      config: with nothing of the model left open.
      schedule: the rate of update s = 0, 1, ...
      max_labels: the training data's; None for one label a record.
      norms: what a step computes for the log; None if the config asks for none.
    """

    config: TrainConfig
    mesh: Mesh
    objective: Objective
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    max_labels: int | None = None
    norms: PartNorms | None = None

    @property
    def table(self) -> Table:
        """Describes the model's parameters and the objective's own."""
        return _table(self.config, self.objective)

    @property
    def fixed_table(self) -> Table:
        """Describes the objective's fixed arrays, which may be parameters of another model."""
        return {**self.table, **self.objective.parameters}

    @cached_property
    def state(self) -> TrainState:
        """Shapes, types and shardings of the state, as `jax.ShapeDtypeStruct`."""
        state = jax.eval_shape(lambda: self._init(None))
        own = moments(self.table, state.params, state.opt_state)
        return self._placed(state, {**self.table, **own})

    @property
    def model_params(self) -> Params:
        """Shapes, types and shardings of the model's parameters."""
        return split_params(self.state.params)[0]

    @cached_property
    def fixed(self) -> Any:
        """Shapes, types and shardings of the objective's fixed arrays."""
        return self._placed(self.objective.fixed, self.fixed_table)

    @cached_property
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, types and shardings of a batch."""
        config, sharding = self.config, batch_sharding(self.mesh)
        spec = batch_spec(self.max_labels, config.data.batch_size, config.model.input_size)
        return {name: jax.ShapeDtypeStruct(*each, sharding=sharding) for name, each in spec.items()}

    def start(self, params: Params | None = None) -> TrainState:
        """The state before the first step, on the mesh.

        Args:
          params: the model's, to start from. Their memory becomes the state's: they are gone
            afterwards. None draws fresh ones.
        """
        shardings = jax.tree.map(lambda x: x.sharding, self.state)
        return jax.jit(self._init, out_shardings=shardings, donate_argnums=0)(params)

    def step(self) -> "jax.stages.Wrapped":
        """The jitted step (state, batch, fixed) -> (next state, scalars).

        The next state takes the memory of the one before.
        """
        config = self.config
        step: Callable[..., Any] = make_train_step(
            self.objective,
            self.optimizer,
            self.mesh,
            micro_batches=config.optimizer.micro_batches,
            average=config.optimizer.average,
            seed=config.seed,
            norms=self.norms,
        )
        state, fixed = (jax.tree.map(lambda x: x.sharding, x) for x in (self.state, self.fixed))
        return jax.jit(
            step,
            in_shardings=(state, batch_sharding(self.mesh), fixed),
            out_shardings=(state, replicated(self.mesh)),
            donate_argnums=0,
        )

    def pass_steps(self, state: TrainState, count: int) -> TrainState:
        """As `step.pass_steps`; the state returned takes the memory of the one given."""
        shardings = jax.tree.map(lambda x: x.sharding, self.state)
        later = jax.jit(pass_steps, out_shardings=shardings, donate_argnums=0)
        return later(state, jnp.int32(count))

    def compile(self) -> jax.stages.Compiled:
        """Traces and compiles the step; allocates nothing on the devices."""
        return self.step().lower(self.state, self.batch, self.fixed).compile()

    def _init(self, params: Params | None) -> TrainState:
        config = self.config
        if params is None:
            params = init_params(config.model, config.seed)
        own = _own_params(self.objective, config.seed)
        return init_state(
            params | own, self.optimizer, average=config.optimizer.average is not None
        )

    def _placed(self, tree: Any, table: Table) -> Any:
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            tree,
            state_shardings(tree, table, self.mesh),
        )


def make_program(
    config: TrainConfig,
    total_steps: int,
    mesh: Mesh,
    max_labels: int | None = None,
    class_weights: tuple[float, ...] | None = None,
) -> Program:
    """The step of a config.

    Args:
      config: with nothing of the model left open.
      max_labels: the training data's; None for one label a record.
      class_weights: as in `ObjectiveContext`.

    Raises:
      UserError: the objective, the schedule or the optimizer does not fit the model or the steps.
    """
    schedule = make_schedule(config.optimizer, total_steps)
    objective = make_objective(config, mesh, class_weights)
    own = jax.eval_shape(lambda: _own_params(objective, config.seed))
    params = abstract_params(config.model) | own
    table = _table(config, objective)
    optimizer = make_optimizer(config.optimizer, schedule, params, table)
    norms = PartNorms(params, table, config.optimizer.freeze) if config.log_norms else None
    return Program(config, mesh, objective, schedule, optimizer, max_labels, norms)


def make_objective(
    config: TrainConfig, mesh: Mesh, class_weights: tuple[float, ...] | None = None
) -> Objective:
    """The objective of a config, for its model on this mesh.

    Args:
      class_weights: as in `ObjectiveContext`.

    Raises:
      UserError: as `ObjectiveConfig.make`.
    """
    context = ObjectiveContext(
        model=config.model,
        placement=OnMesh(mesh, config.mesh.sequence),
        loss=config.loss,
        label_smoothing=config.label_smoothing,
        data=config.data,
        class_weights=class_weights,
    )
    return config.objective.make(context)


def _table(config: TrainConfig, objective: Objective) -> Table:
    return {**parameter_table(config.model), **nested(OWN, objective.parameters)}


def _own_params(objective: Objective, seed: int) -> Params:
    """The objective's own parameters under their name; {} if it has none."""
    # No step has this number, so that no step draws from this key.
    own = objective.init(jax.random.fold_in(jax.random.key(seed), 2**32 - 1))
    return {OWN: own} if own else {}
