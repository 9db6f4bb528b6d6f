import re
from types import SimpleNamespace

import jax
import pytest

from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_module
from vit_jax.parallel.mesh import MeshConfig, make_mesh


@pytest.fixture
def make_sizes(monkeypatch):
    """The sizes that `make_mesh` asks for, given so many devices."""

    def fake(sizes, names, types, devices):
        assert names == ("data", "fsdp", "tensor")
        return dict(zip(names, sizes, strict=True))

    monkeypatch.setattr(mesh_module.jax, "make_mesh", fake)
    return lambda count, **sizes: make_mesh(MeshConfig(**sizes), [SimpleNamespace()] * count)


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (1, {}, (1, 1, 1)),
        (8, {}, (8, 1, 1)),
        (8, {"fsdp": 2}, (4, 2, 1)),
        (8, {"fsdp": 2, "tensor": 4}, (1, 2, 4)),
        (8, {"data": 1, "fsdp": -1}, (1, 8, 1)),
        (8, {"data": 2, "fsdp": -1, "tensor": 2}, (2, 2, 2)),
        (8, {"data": 2, "fsdp": 1, "tensor": -1}, (2, 1, 4)),
        (256, {"data": 8, "fsdp": 32}, (8, 32, 1)),
        (6, {"tensor": 3}, (2, 1, 3)),
    ],
)
def test_sizes(make_sizes, count, sizes, expected):
    assert tuple(make_sizes(count, **sizes).values()) == expected


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (8, {"data": 4}),
        (8, {"data": 16}),
        (8, {"fsdp": 3}),
        (8, {"fsdp": 16}),
        (8, {"data": 3, "fsdp": -1}),
        (1, {"tensor": 2}),
    ],
)
def test_sizes_that_do_not_fit_the_devices(make_sizes, count, sizes):
    named = {"data": -1, "fsdp": 1, "tensor": 1} | sizes
    told = ", ".join(f"{name}={size}" for name, size in named.items())
    with pytest.raises(UserError, match=f"^config.mesh: {re.escape(told)} .*the {count} devices"):
        make_sizes(count, **sizes)


@pytest.mark.parametrize(
    "sizes", [{"data": 0}, {"fsdp": -2}, {"tensor": 0}, {"data": -1, "tensor": -1}, {"fsdp": -1}]
)
def test_sizes_that_mean_nothing(sizes):
    with pytest.raises(UserError, match="at least 1, or -1 for one of them"):
        MeshConfig(**sizes)


def test_it_spans_all_devices():
    mesh = make_mesh(MeshConfig())
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert list(mesh.devices.flat) == jax.devices()
    assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1, "tensor": 1}
