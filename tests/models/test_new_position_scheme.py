"""A position scheme is one class: this file adds one, and changes nothing in the package.

Factorised positions: an embedding for each row plus one for each column. On a grid of R x C they
take R + C embeddings instead of R * C.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array, P
from jax.sharding import AbstractMesh

from tests.small_models import random_params, refusal, small_vit
from vit_jax.errors import UserError
from vit_jax.models import positions
from vit_jax.models.config import ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params, bind_model, init_params
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import partition_spec, state_shardings
from vit_jax.parameters import Parameter, Table
from vit_jax.schema import build, to_dict
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.step import init_state, make_train_step
from vit_jax.training.supervised import Supervised


class Factorised(positions.Positions):
    def check(self, config: ModelConfig) -> None:
        if config.pooling == "attention":
            raise UserError("positions='factorised' needs another pooling")

    def parameters(self, config: ModelConfig) -> Table:
        return {
            "row_embedding": Parameter(("positions", "width"), "embedding", "position"),
            "column_embedding": Parameter(("positions", "width"), "embedding", "position"),
        }

    def init(self, config: ModelConfig, rngs: nnx.Rngs) -> dict[str, Array]:
        draw, (rows, columns) = nnx.initializers.normal(0.02), config.grid
        return {
            "row_embedding": draw(rngs.params(), (rows, config.size.width)),
            "column_embedding": draw(rngs.params(), (columns, config.size.width)),
        }

    def on_patches(self, patches: Array, params: Mapping[str, Array], config: ModelConfig) -> Array:
        sums = params["row_embedding"][:, None] + params["column_embedding"][None]
        return patches + sums.reshape(1, -1, config.size.width).astype(patches.dtype)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    positions.register("factorised")(Factorised)
    yield
    del positions._SCHEMES["factorised"]


ROWS, COLUMNS, WIDTH = 2, 4, 16


def _model() -> ModelConfig:
    return small_vit(image_size=(16, 32), num_classes=3, depth=1, positions="factorised")


def test_tokens_are_patches_plus_row_plus_column() -> None:
    model, params = _model(), random_params(_model())
    bound = bind_model(model)(params)
    images = np.random.default_rng(0).normal(size=(2, 16, 32, 3)).astype(np.float32)
    patches = bound.patches(images)
    tokens = np.asarray(bound.tokens(patches))
    assert patches.shape == (2, ROWS * COLUMNS, WIDTH)
    np.testing.assert_array_equal(tokens[:, 0], np.broadcast_to(params["cls"][0], (2, WIDTH)))
    for row in range(ROWS):
        for column in range(COLUMNS):
            i = row * COLUMNS + column
            expected = patches[:, i] + params["row_embedding"][row]
            expected += params["column_embedding"][column]
            np.testing.assert_allclose(tokens[:, 1 + i], expected, rtol=1e-5, atol=1e-6)
    assert bound(images).shape == (2, 3)


def test_its_parameters_are_in_the_table_and_counted() -> None:
    table, shapes = parameter_table(_model()), abstract_params(_model())
    assert shapes["row_embedding"].shape == (ROWS, WIDTH)
    assert shapes["column_embedding"].shape == (COLUMNS, WIDTH)
    assert "pos_embedding" not in shapes
    assert table["row_embedding"].part == "position"
    assert parameter_table(dataclasses.replace(_model(), positions="none")).keys() == (
        table.keys() - {"row_embedding", "column_embedding"}
    )


def test_a_large_embedding_is_split_over_eight_devices() -> None:
    table, mesh = parameter_table(_model()), AbstractMesh((1, 8, 1), ("data", "fsdp", "tensor"))
    spec = partition_spec(table["column_embedding"], (64, 1024), mesh)
    assert spec == P(None, "fsdp")
    placed = state_shardings(abstract_params(_model()), table, mesh)
    assert placed["row_embedding"].spec == P(None, None)  # too small to split


def test_it_trains() -> None:
    model, table = _model(), parameter_table(_model())
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    config = OptimizerConfig("sgd", momentum=0.0, layer_decay=0.5, freeze=("column_embedding",))
    params = init_params(model, 0)
    params["head"]["kernel"] = jnp.ones_like(params["head"]["kernel"]).at[:, 0].set(-1)
    optimizer = make_optimizer(config, lambda _: 1.0, params, table)
    step = make_train_step(
        Supervised(model), optimizer, mesh, micro_batches=1, average=None, seed=0
    )
    rng = np.random.default_rng(0)
    batch = {
        "images": rng.integers(0, 256, (8, 16, 32, 3), np.uint8),
        "labels": rng.integers(0, 3, 8, np.int32),
        "weights": np.ones(8, np.float32),
    }
    state, metrics = jax.jit(step)(init_state(params, optimizer, average=False), batch, ())
    assert np.isfinite(metrics["loss"])
    moved = {
        name: np.abs(state.params[name] - params[name]).max() for name in table if "/" not in name
    }
    assert moved["row_embedding"] > 0
    assert moved["column_embedding"] == 0


def test_it_is_named_in_a_config() -> None:
    assert build(ModelConfig, to_dict(_model())) == _model()
    message = refusal(build, ModelConfig, {"positions": "factorized"})
    assert "positions" in message and "'factorised'" in message
    assert "another pooling" in refusal(dataclasses.replace, _model(), pooling="attention")


def test_names_that_the_model_uses_are_refused() -> None:
    class Taken(Factorised):
        def parameters(self, config: ModelConfig) -> Table:
            return {"cls": Parameter(("batch", "token", "width"), "embedding", "position")}

    positions.register("taken")(Taken)
    try:
        with pytest.raises(ValueError, match="the model has its own cls"):
            parameter_table(dataclasses.replace(_model(), positions="taken"))
    finally:
        del positions._SCHEMES["taken"]
