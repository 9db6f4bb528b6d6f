"""Devices of TPUs that this machine lacks, to compile programs for."""

import importlib.util
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from vit_jax.errors import UserError


def topology_devices(name: str, num_slices: int = 1) -> list[jax.Device]:
    """Returns the devices of a TPU topology. Programs compile for them, but they hold no arrays.

    Args:
      name: generation and chips along each axis, such as `v5e:16x16` or `v4:8x8x8`.
      num_slices: the number of such slices, joined by the data-centre network.

    Raises:
      UserError: there is no such topology, or the TPU compiler is not installed.
    """
    # Otherwise libtpu asks the cloud's metadata server and locks the chips; there are none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options: dict[str, Any] = {} if num_slices == 1 else {"num_slices": num_slices}
    if name.startswith("v4:"):
        options["chip_config_name"] = "megacore"  # One device a chip, as on real TPUs.
    if re.fullmatch(r"\w+:1(x1)*", name):
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return list(topologies.get_topology_desc(name, "tpu", **options).devices)
    except Exception as error:  # The compiler's plugin raises several types.
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(
                f"no TPU topology {name!r} to compile for: there is no TPU compiler; install it "
                "with the extra 'tpu'"
            ) from error
        reason = " ".join(str(error).split())
        raise UserError(
            f"no TPU topology {name!r} to compile for ({reason}); write one such as v5e:4x4"
        ) from error
