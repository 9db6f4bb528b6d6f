"""Every family of models takes two steps on meshes of eight simulated devices, as on one."""

import os
import subprocess
import sys

import jax
import pytest
from jax import P
from jax.sharding import AbstractMesh

from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params
from vit_jax.parallel.sharding import partition_spec, state_shardings

TWO_STEPS = """
import sys
import jax, jax.numpy as jnp, numpy as np
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params, init_params
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import OnMesh, batch_sharding, replicated, state_shardings
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from vit_jax.training.step import init_state, make_train_step
from vit_jax.training.supervised import Supervised

name, options, split_paths = sys.argv[1], eval(sys.argv[2]), sys.argv[3].split()
model = ModelConfig(name, image_size=16, num_classes=10, **options).following()
RATE = 0.1
config = OptimizerConfig("sgd", lr=RATE, schedule="constant", micro_batches=2)
optimizer = make_optimizer(config, make_schedule(config, 10), abstract_params(model))
rng = np.random.default_rng(0)
batch = {
    "images": rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
    "labels": rng.integers(0, 10, 16, np.int32),
    "weights": np.array([0] + [1] * 15, np.float32),
}


def init():
    params = init_params(model, 0)
    # With the zeros of the head and of the units' last norms, few other gradients are seen.
    params = jax.tree.map(lambda leaf: jnp.where(leaf == 0, 0.3, leaf), params)
    head = params["head"]["kernel"]
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), head.shape)
    return init_state(params, optimizer, average=True)


def run(config, devices):
    mesh = make_mesh(config, devices)
    shardings = state_shardings(jax.eval_shape(init), mesh)
    step = make_train_step(
        Supervised(model, OnMesh(mesh, config.sequence), label_smoothing=0.1, flip=True),
        optimizer, mesh, micro_batches=2, average=0.9, seed=0,
    )
    step = jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
    )
    states, losses = [jax.device_put(start, shardings)], []
    for _ in range(2):
        state, metrics = step(states[-1], jax.device_put(batch, batch_sharding(mesh)))
        states.append(state)
        losses.append(metrics["loss"])
    parts = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        path = jax.tree_util.keystr(path, simple=True, separator="/")
        parts[path] = leaf.size // leaf.addressable_shards[0].data.size
    before, after, _ = (jax.device_get(state.params) for state in states)
    grads = jax.tree.map(lambda a, b: (a - b) / RATE, before, after)
    return grads, jax.device_get(losses), parts


assert jax.device_count() == 8
MESHES = [
    MeshConfig(data=2, fsdp=2, tensor=2, sequence=True), MeshConfig(), MeshConfig(data=1, tensor=8),
    MeshConfig(data=1, fsdp=8),
]
if name.startswith("BiT"):  # The other ResNet has had them.
    del MESHES[1:3]
with jax.default_matmul_precision("highest"):
    start = jax.device_get(jax.jit(init)())
    grads, losses, _ = run(MeshConfig(), jax.devices()[:1])
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
    assert np.median([np.abs(leaf).max() for leaf in jax.tree.leaves(grads)]) > 0.01 * largest
    assert losses[0] != losses[1]
    for mesh in MESHES:
        sharded_grads, sharded_losses, parts = run(mesh, jax.devices())
        np.testing.assert_allclose(sharded_losses, losses, rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), sharded_grads, grads
        )
assert all(parts[path] == 8 for path in split_paths), parts
"""
RESNET = {"stages": (1, 1)}
MODELS = {
    "ViT-Ti/8": (
        {"depth": 2, "width": 64, "mlp_dim": 256, "num_heads": 8, "dropout": 0.1},
        ["blocks/mlp/dense1/kernel", "blocks/mlp/dense2/kernel"],
    ),
    "R50x1": (RESNET, ["backbone/stage1/unit1/conv2/kernel", "backbone/stage2/unit1/conv3/kernel"]),
    "BiT-R50x1": (RESNET, ["backbone/stage1/unit1/conv2/kernel"]),
    "R50+ViT-mu/8": (
        {**RESNET, "width": 64, "mlp_dim": 256, "num_heads": 8, "dropout": 0.1},
        ["backbone/stage2/unit1/projection/kernel", "embedding/kernel", "blocks/mlp/dense1/kernel"],
    ),
    "Mixer-S/4": (
        {"depth": 2, "width": 64, "mlp_dim": 256, "token_mlp_dim": 32, "stochastic_depth": 0.1},
        ["blocks/channel_mixing/dense1/kernel"],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_the_same_on_every_mesh(name):
    options, split = MODELS[name]
    environment = os.environ | {
        # Hardly optimized, for compiling is what takes the time.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-c", TWO_STEPS, name, repr(options), " ".join(split)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    # That XLA had to gather an activation whole, for lack of a better way.
    assert "Involuntary full rematerialization" not in result.stderr


def _mesh(data=1, fsdp=1, tensor=1):
    return AbstractMesh((data, fsdp, tensor), ("data", "fsdp", "tensor"))


def test_convolutions_are_split_by_channels():
    mesh = _mesh(fsdp=8, tensor=2)
    for path, shape, axis in [
        ("backbone/stage2/unit2/conv1/kernel", (1, 1, 512, 128), 2),
        ("opt_state/0/mu/backbone/stage4/unit1/projection/kernel", (1, 1, 1024, 2048), 3),
        ("backbone/stage3/unit2/conv2/kernel", (3, 3, 256, 256), 2),
    ]:
        expected = [None] * 4
        expected[axis] = "fsdp"
        assert partition_spec(path, shape, mesh) == P(*expected)
    # Below what is worth splitting.
    assert partition_spec("backbone/root/kernel", (7, 7, 3, 64), mesh) == P(*(None,) * 4)


def test_hidden_units_of_mixers_are_split_by_tensor():
    mesh = _mesh(fsdp=2, tensor=4)
    kernels = {
        "blocks/token_mixing/dense1/kernel": P(None, "fsdp", "tensor"),
        "blocks/token_mixing/dense2/kernel": P(None, "tensor", "fsdp"),
        "blocks/channel_mixing/dense1/bias": P(None, "tensor"),
    }
    shapes = {"kernel": (12, 196, 384), "bias": (12, 3072)}
    for path, expected in kernels.items():
        shape = shapes[path.rpartition("/")[2]]
        shape = (12, 384, 196) if "dense2" in path else shape
        assert partition_spec(path, shape, mesh) == expected, path


@pytest.mark.parametrize("name", ["R50x1", "BiT-R50x3", "R50+ViT-B/16", "Mixer-L/16"])
def test_no_large_array_stays_whole(name):
    params = abstract_params(ModelConfig(name, num_classes=1000))
    placed = state_shardings(params, _mesh(fsdp=8))
    for (path, leaf), sharding in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(placed), strict=True
    ):
        if leaf.size * 4 > 2**20:
            assert "fsdp" in sharding.spec, path
