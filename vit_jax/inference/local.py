"""A model on the devices of this process, for passes that no other process takes part in."""

import jax
from jax.sharding import Mesh

from vit_jax.models.functional import Params, model_params
from vit_jax.models.model import Model
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import replicated


def on_local_devices(model: Model) -> tuple[Mesh, Params]:
    """A mesh of this process's devices, and the model's parameters whole on each of them."""
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    return mesh, jax.device_put(model_params(model), replicated(mesh))
