"""A state that is saved on one mesh of eight devices and restored on others."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import state_shardings
from vit_jax.parameters import Parameter
from vit_jax.runs.checkpoints import CheckpointConfig, Checkpoints
from vit_jax.runs.checksums import summarize

TABLE = {
    "blocks/mlp/dense1/kernel": Parameter(("block", "width", "hidden"), "kernel", "block"),
    "head/bias": Parameter(("classes",), "bias", "head"),
}


def check_moves(directory: Path) -> None:
    """Checksums do not depend on the mesh, and what is restored is the same bit for bit."""
    rng = np.random.default_rng(0)
    moment = rng.normal(size=(2, 64, 256)).astype(jnp.bfloat16)
    state: dict[str, Any] = {
        "params/blocks/mlp/dense1/kernel": rng.normal(size=(2, 64, 256)).astype(np.float32),
        "opt_state/mu/blocks/mlp/dense1/kernel": moment,
        "params/head/bias": rng.normal(size=16).astype(np.float32),
        "step": np.int32(7),
    }
    devices = jax.devices()
    assert len(devices) == 8
    meshes = {
        "2x4": make_mesh(MeshConfig(data=2, fsdp=4)),
        "8x1": make_mesh(MeshConfig(data=8)),
        "1x2x4": make_mesh(MeshConfig(data=1, fsdp=2, tensor=4)),
        "one": make_mesh(MeshConfig(), devices[:1]),
    }
    shardings = {name: state_shardings(state, TABLE, mesh) for name, mesh in meshes.items()}
    kernel = "params/blocks/mlp/dense1/kernel"
    assert shardings["2x4"][kernel].spec == jax.P(None, None, "fsdp")
    placed = {name: jax.device_put(state, shardings[name]) for name in meshes}
    checksums = {name: summarize(placed[name])[0].tolist() for name in meshes}
    assert len({str(c) for c in checksums.values()}) == 1, checksums

    with Checkpoints(directory, CheckpointConfig()) as checkpoints:
        checkpoints.save(7, placed["2x4"])
        checkpoints.wait()
        for name in ("8x1", "1x2x4", "one"):
            like = {
                k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings[name][k])
                for k, x in state.items()
            }
            found = checkpoints.restore(like)
            assert found is not None
            step, restored, _ = found
            assert step == 7
            for k, x in state.items():
                assert restored[k].sharding == shardings[name][k], (name, k)
                assert np.asarray(restored[k]).tobytes() == x.tobytes(), (name, k)
