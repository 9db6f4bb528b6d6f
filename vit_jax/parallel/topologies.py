"""TPUs that are not there, to compile for."""

import importlib.util
import os
import re
from typing import Any

from jax.experimental import topologies

from vit_jax.errors import UserError


def topology_devices(name: str, num_slices: int = 1) -> list:
    """The devices of a TPU topology, which can be compiled for but hold no arrays.

    Args:
      name: generation and chips along each axis, such as `v5e:16x16` or `v4:8x8x8`.
      num_slices: how many such slices are joined by the data-centre network.

    Raises:
      UserError: there is no such topology, or the TPU compiler is not installed.
    """
    # Libtpu asks a cloud's metadata and locks the chips otherwise, of which there are none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options: dict[str, Any] = {} if num_slices == 1 else {"num_slices": num_slices}
    if name.startswith("v4:"):
        options["chip_config_name"] = "megacore"  # One device a chip, as on TPUs that are there.
    if re.fullmatch(r"\w+:1(x1)*", name):
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return list(topologies.get_topology_desc(name, "tpu", **options).devices)
    except Exception as error:  # Of several types, from the compiler's plugin.
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(
                f"no TPU topology {name!r} to compile for: there is no TPU compiler; install it "
                "with the extra 'tpu'"
            ) from error
        reason = " ".join(str(error).split())
        raise UserError(
            f"no TPU topology {name!r} to compile for ({reason}); write one such as v5e:4x4"
        ) from error
