import dataclasses
import math
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax import P
from jax.sharding import AbstractMesh

from vit_jax.errors import UserError
from vit_jax.models.config import ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import (
    OnMesh,
    batch_sharding,
    constrain_batch,
    partition_spec,
    replicated,
    state_shardings,
)
from vit_jax.parameters import find
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.schedule import make_schedule
from vit_jax.training.step import init_state

# ViT-B/16 (Table 1) with a representation layer and ImageNet's classes.
BASE = ModelConfig("ViT-B/16", num_classes=1000, representation_size=768)
TABLE_OF_BASE = parameter_table(BASE)


def _mesh(data: int = 1, fsdp: int = 1, tensor: int = 1) -> Any:
    return AbstractMesh((data, fsdp, tensor), ("data", "fsdp", "tensor"))


def _by_path(tree: Any) -> Any:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


def _state(optimizer: Any, model: Any = BASE) -> Any:
    params = abstract_params(model)
    schedule = make_schedule(optimizer, 10)
    transformation = make_optimizer(optimizer, schedule, params, parameter_table(model))
    return jax.eval_shape(lambda p: init_state(p, transformation, average=True), params)


def _specs(tree: Any, mesh: Any, model: Any = BASE) -> Any:
    shardings = state_shardings(tree, parameter_table(model), mesh)
    return {path: s.spec for path, s in _by_path(shardings).items()}


# Each with its place on meshes of fsdp=8, of tensor=4, and of both.
TABLE = {
    "embedding/kernel": (P(None, None, None, "fsdp"), P(), P(None, None, None, "fsdp")),
    "embedding/bias": (P(), P(), P()),
    "cls": (P(), P(), P()),
    "pos_embedding": (P(None, None, "fsdp"), P(), P(None, None, "fsdp")),
    "blocks/norm1/scale": (P(), P(), P()),
    "blocks/attention/query/kernel": (
        P(None, "fsdp"),
        P(None, None, "tensor"),
        P(None, "fsdp", "tensor"),
    ),
    "blocks/attention/value/bias": (P(), P(None, "tensor"), P(None, "tensor")),
    "blocks/attention/out/kernel": (
        P(None, None, None, "fsdp"),
        P(None, "tensor"),
        P(None, "tensor", None, "fsdp"),
    ),
    "blocks/attention/out/bias": (P(), P(), P()),
    "blocks/mlp/dense1/kernel": (
        P(None, None, "fsdp"),
        P(None, None, "tensor"),
        P(None, "fsdp", "tensor"),
    ),
    "blocks/mlp/dense1/bias": (P(None, "fsdp"), P(None, "tensor"), P(None, "tensor")),
    "blocks/mlp/dense2/kernel": (
        P(None, "fsdp"),
        P(None, "tensor"),
        P(None, "tensor", "fsdp"),
    ),
    "blocks/mlp/dense2/bias": (P(), P(), P()),
    "pre_logits/kernel": (P("fsdp"), P(), P("fsdp")),
    "head/kernel": (P(None, "fsdp"), P(None, "tensor"), P("fsdp", "tensor")),
    "head/bias": (P(), P("tensor"), P("tensor")),
}


def _is(spec: Any, expected: Any) -> Any:
    """Equal but for the length, which trailing axes that are not split add to."""
    return spec == P(*expected, *(None,) * (len(spec) - len(expected)))


def test_places_of_parameters() -> None:
    params, table = _by_path(abstract_params(BASE)), parameter_table(BASE)
    meshes = (_mesh(fsdp=8), _mesh(data=2, tensor=4), _mesh(fsdp=8, tensor=4))
    for path, expected in TABLE.items():
        for mesh, place in zip(meshes, expected, strict=True):
            spec = partition_spec(table[path], params[path].shape, mesh)
            assert _is(spec, place), (path, mesh.shape, spec)


@pytest.mark.parametrize("name", ["ViT-Ti/16", "ViT-B/32", "ViT-L/16", "ViT-H/14", "ViT-g/14"])
def test_a_data_mesh_splits_no_state(name: str) -> None:
    model = ModelConfig(name, num_classes=21843)
    specs = _specs(_state(OptimizerConfig(), model), _mesh(data=8), model)
    assert all(_is(spec, P()) for spec in specs.values())


@pytest.mark.parametrize(
    "optimizer",
    [
        OptimizerConfig(momentum_dtype="bfloat16", weight_decay=0.1, clip_norm=1.0),
        OptimizerConfig("sgd", clip_norm=1.0),
    ],
)
@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"tensor": 4}, {"fsdp": 4, "tensor": 2}])
def test_moments_and_averages_lie_where_their_parameters_do(
    optimizer: Any, sizes: dict[str, Any]
) -> None:
    state = _state(optimizer)
    specs, shapes = _specs(state, _mesh(**sizes)), _by_path(state)
    params = {p.removeprefix("params/"): s for p, s in specs.items() if p.startswith("params/")}
    others = {p: s for p, s in specs.items() if not p.startswith("params/") and shapes[p].shape}
    for path, spec in others.items():
        (owner,) = [name for name in params if path.endswith(f"/{name}")]
        assert spec == params[owner], path
    copies = 3 if optimizer.name == "adamw" else 2  # moments and the average
    assert len(others) == copies * len(params)
    scalars = [spec for path, spec in specs.items() if not shapes[path].shape]
    assert scalars and all(spec == P() for spec in scalars)


def test_moments_of_what_is_not_frozen_lie_where_their_parameters_do() -> None:
    state = _state(OptimizerConfig("sgd", freeze=("(?!head/|blocks/11/mlp/dense1/).*",)))
    specs = _specs(state.opt_state, _mesh(fsdp=4, tensor=2))
    params = _specs(state.params, _mesh(fsdp=4, tensor=2))
    trained = [p for p in params if p.startswith(("head/", "blocks/mlp/dense1/"))]
    for path in trained:
        (moment,) = [spec for name, spec in specs.items() if name.endswith(f"/trace/{path}")]
        assert moment == params[path]
    assert len(specs) == len(trained) + 2  # the norm of the gradient and the schedule's count


@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"fsdp": 16, "tensor": 2}, {"data": 4, "fsdp": 64}])
@pytest.mark.parametrize("name", ["ViT-Ti/16", "ViT-B/16", "ViT-L/16", "ViT-H/14", "ViT-g/14"])
@pytest.mark.parametrize("pooling", ["token", "attention"])
def test_no_large_array_stays_whole_and_no_stack_is_split(
    sizes: Any, name: Any, pooling: Any
) -> None:
    mesh = _mesh(**sizes)
    model = ModelConfig(name, num_classes=21843, pooling=pooling)
    params = abstract_params(model)
    specs = _specs(params, mesh, model)
    for path, leaf in _by_path(params).items():
        spec = specs[path]
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        first = int(path.startswith("blocks/"))
        divisible = any(length % mesh.shape["fsdp"] == 0 for length in leaf.shape[first:])
        if size > 2**20 and divisible:
            assert "fsdp" in spec, (path, leaf.shape)
        if size <= 2**15:
            assert "fsdp" not in spec, (path, leaf.shape)
        if first:
            assert spec[0] is None, path
        for length, axis in zip(leaf.shape, spec, strict=True):
            assert axis is None or length % mesh.shape[axis] == 0, (path, leaf.shape)


def test_what_cannot_be_divided_stays_whole() -> None:
    # ViT-Ti has 3 heads; 21,843 classes are odd.
    mesh = _mesh(tensor=2)
    table = parameter_table(BASE)
    query, head = table["blocks/attention/query/kernel"], table["head/kernel"]
    assert _is(partition_spec(query, (12, 192, 3, 64), mesh), P())
    assert _is(partition_spec(head, (192, 21843), mesh), P())
    assert _is(partition_spec(head, (1021, 1023), _mesh(fsdp=2)), P())


def test_names_inside_a_stack_are_told_from_those_beside_it() -> None:
    mesh = _mesh(fsdp=8)
    table = parameter_table(dataclasses.replace(BASE, pooling="attention"))
    pooling = find(table, "averaged/pooling/attention/query/kernel")
    assert _is(partition_spec(pooling, (768, 12, 64), mesh), P("fsdp"))
    stacked = find(table, "opt_state/0/mu/blocks/mlp/dense1/kernel")
    assert _is(partition_spec(stacked, (4096, 8, 8), mesh), P(None, "fsdp"))


def test_a_large_array_that_no_table_describes_is_an_error() -> None:
    shape = jax.ShapeDtypeStruct((128, 128), np.float32)
    with pytest.raises(UserError, match="'params/adapter/kernel' is not in the table"):
        state_shardings({"params": {"adapter": {"kernel": shape}}}, TABLE_OF_BASE, _mesh(data=8))
    small = {"counter": jax.ShapeDtypeStruct((), np.int32)}
    assert _specs(small, _mesh(fsdp=8)) == {"counter": P()}


def test_a_parameter_that_is_not_in_the_table_is_an_error_at_the_start() -> None:
    params = abstract_params(BASE) | {"scale": jax.ShapeDtypeStruct((1,), np.float32)}
    with pytest.raises(UserError, match="'scale' is not in the table of parameters"):
        make_optimizer(OptimizerConfig(), optax.constant_schedule(1.0), params, TABLE_OF_BASE)


def test_a_parameter_with_other_axes_than_the_table_names_is_an_error() -> None:
    params = {"head": {"bias": jax.ShapeDtypeStruct((2, 3), np.float32)}}
    with pytest.raises(UserError, match="'head/bias' has 2 axes.*1: classes"):
        state_shardings(params, TABLE_OF_BASE, _mesh(fsdp=8))


def test_the_batch_is_split_over_data_and_fsdp() -> None:
    mesh = _mesh(data=2, fsdp=4, tensor=2)
    assert batch_sharding(mesh).shard_shape((32, 224, 224, 3)) == (4, 224, 224, 3)
    assert replicated(mesh).shard_shape((32,)) == (32,)


def test_constraints_keep_values() -> None:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    x = np.arange(24.0).reshape(2, 3, 4)
    for constrain in (
        constrain_batch(mesh, axis=1),
        OnMesh(mesh).constrain,
        OnMesh(mesh, sequence=True).constrain,
    ):
        np.testing.assert_array_equal(jax.jit(constrain)(x), x)
