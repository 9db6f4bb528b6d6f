"""Every family of models takes two steps on meshes of eight simulated devices, as on one."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax import P
from jax.sharding import AbstractMesh

from tests.eight_devices import EightDevices
from tests.programs.two_steps import one_device, two_steps
from vit_jax.models.config import ModelConfig
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.parallel.sharding import partition_spec, state_shardings
from vit_jax.parameters import find

# Half as wide, since the loops over weights take most of the time.
RESNET = {"stages": (1, 1), "width_factor": 0.5}
MODELS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "ViT-Ti/8": (
        {"depth": 2, "width": 64, "mlp_dim": 256, "num_heads": 8, "dropout": 0.1},
        ["blocks/mlp/dense1/kernel", "blocks/mlp/dense2/kernel"],
    ),
    "R50x1": (RESNET, ["backbone/stage2/unit1/conv2/kernel", "backbone/stage2/unit1/conv3/kernel"]),
    "BiT-R50x1": (RESNET, ["backbone/stage2/unit1/conv2/kernel"]),
    "R50+ViT-mu/8": (
        {**RESNET, "width": 64, "mlp_dim": 256, "num_heads": 8, "dropout": 0.1},
        ["backbone/stage2/unit1/projection/kernel", "embedding/kernel", "blocks/mlp/dense1/kernel"],
    ),
    "Mixer-S/4": (
        {"depth": 2, "width": 64, "mlp_dim": 256, "token_mlp_dim": 32, "stochastic_depth": 0.1},
        ["blocks/channel_mixing/dense1/kernel"],
    ),
    "AxialViT-Ti/4": (
        {"depth": 2, "width": 64, "mlp_dim": 256, "num_heads": 8, "dropout": 0.1},
        ["blocks/rows/mlp/dense1/kernel", "blocks/columns/mlp/dense2/kernel"],
    ),
    # Without a stride at the end: group norms of lines of one position are ill-conditioned.
    "AxialResNet-50": ({"stages": (1,)}, ["backbone/stage1/unit1/conv3/kernel"]),
}


# The first has every axis. The others, and what they must split in eight parts, take longer.
EVERY_AXIS = MeshConfig(data=2, fsdp=2, tensor=2, sequence=True)
FSDP = MeshConfig(data=1, fsdp=8)
OTHERS = {"data": MeshConfig(), "tensor": MeshConfig(data=1, tensor=8), "fsdp": FSDP}


def _cases() -> Iterator[Any]:
    for name in MODELS:
        yield pytest.param(name, EVERY_AXIS, id=f"{name}-2x2x2")
        for axis, mesh in OTHERS.items():
            # The other ResNet has the first two.
            if not name.startswith("BiT") or axis == "fsdp":
                yield pytest.param(name, mesh, marks=pytest.mark.slow, id=f"{name}-{axis}")


@pytest.mark.parametrize(("name", "mesh"), _cases())
def test_loss_and_gradients_are_the_same_on_every_mesh(
    name: str, mesh: MeshConfig, eight_devices: EightDevices
) -> None:
    options, split = MODELS[name]
    model = ModelConfig(name, image_size=16, num_classes=10, **options).completed()
    expected = eight_devices.run(one_device, model)
    found = eight_devices.run(two_steps, model, mesh, 8)
    largest = [np.abs(leaf).max() for leaf in jax.tree.leaves(expected.grads)]
    # The gradients can be told apart from noise.
    assert np.median(largest) > 0.01 * max(largest)
    assert expected.losses[0] != expected.losses[1]
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * max(largest)),
        found.grads,
        expected.grads,
    )
    if mesh == FSDP:
        assert all(found.parts[path] == 8 for path in split), found.parts


def _mesh(data: int = 1, fsdp: int = 1, tensor: int = 1) -> Any:
    return AbstractMesh((data, fsdp, tensor), ("data", "fsdp", "tensor"))


def test_convolutions_are_split_by_channels() -> None:
    mesh = _mesh(fsdp=8, tensor=2)
    table = parameter_table(ModelConfig("R50x1", num_classes=10))
    for path, shape, axis in [
        ("backbone/stage2/unit2/conv1/kernel", (1, 1, 512, 128), 2),
        ("opt_state/0/mu/backbone/stage4/unit1/projection/kernel", (1, 1, 1024, 2048), 3),
        ("backbone/stage3/unit2/conv2/kernel", (3, 3, 256, 256), 2),
    ]:
        expected = [None] * 4
        expected[axis] = "fsdp"
        assert partition_spec(find(table, path), shape, mesh) == P(*expected)
    # Below what is worth splitting.
    root = table["backbone/root/kernel"]
    assert partition_spec(root, (7, 7, 3, 64), mesh) == P(*(None,) * 4)


def test_hidden_units_of_mixers_are_split_by_tensor() -> None:
    mesh = _mesh(fsdp=2, tensor=4)
    table = parameter_table(ModelConfig("Mixer-B/16", num_classes=10))
    kernels = {
        "blocks/token_mixing/dense1/kernel": P(None, "fsdp", "tensor"),
        "blocks/token_mixing/dense2/kernel": P(None, "tensor", "fsdp"),
        "blocks/channel_mixing/dense1/bias": P(None, "tensor"),
    }
    shapes = {"kernel": (12, 196, 384), "bias": (12, 3072)}
    for path, expected in kernels.items():
        shape = shapes[path.rpartition("/")[2]]
        shape = (12, 384, 196) if "dense2" in path else shape
        assert partition_spec(table[path], shape, mesh) == expected, path


@pytest.mark.parametrize("name", ["R50x1", "BiT-R50x3", "R50+ViT-B/16", "Mixer-L/16"])
def test_no_large_array_stays_whole(name: str) -> None:
    model = ModelConfig(name, num_classes=1000)
    params = abstract_params(model)
    placed = state_shardings(params, parameter_table(model), _mesh(fsdp=8))
    for (path, leaf), sharding in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(placed), strict=True
    ):
        if leaf.size * 4 > 2**20:
            assert "fsdp" in sharding.spec, path
