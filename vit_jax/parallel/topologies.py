"""Devices of TPUs and GPUs that this machine lacks, to compile programs for."""

import importlib.util
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from vit_jax.errors import UserError


class _Gpu(NamedTuple):
    """What XLA asks about a GPU, by NVIDIA's white papers and data sheets.

    Attributes:
      shared: bytes of shared memory of a multiprocessor, and the most that a block may have of it.
      memory: in bytes; bandwidth in bytes a second.
    """

    kind: str
    capability: int
    multiprocessors: int
    clock_ghz: float
    shared: tuple[int, int]
    l2_cache: int
    memory: int
    bandwidth: int


_AMPERE, _HOPPER = (167_936, 166_912), (233_472, 232_448)
_GPUS = {
    "a100": _Gpu(
        *("NVIDIA A100-SXM4-80GB", 8, 108, 1.41, _AMPERE, 40 * 2**20),
        *(80 * 10**9, 2039 * 10**9),
    ),
    "h100": _Gpu(
        *("NVIDIA H100 80GB HBM3", 9, 132, 1.98, _HOPPER, 50 * 2**20),
        *(80 * 10**9, 3350 * 10**9),
    ),
    "h200": _Gpu(
        *("NVIDIA H200", 9, 132, 1.98, _HOPPER, 50 * 2**20),
        *(141 * 10**9, 4800 * 10**9),
    ),
    "b200": _Gpu(
        *("NVIDIA B200", 10, 148, 1.965, _HOPPER, 126 * 2**20),
        *(180 * 10**9, 8000 * 10**9),
    ),
}


# Otherwise libtpu asks the cloud's metadata server, locks the chips and complains: there are none.
_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


def topology_devices(name: str, num_slices: int = 1) -> list[jax.Device]:
    """Returns the devices of a topology. Programs compile for them, but they hold no arrays.

    Args:
      name: a TPU's generation and its chips along each axis, such as `v5e:16x16` or `v4:8x8x8`; or
        GPUs of one host, such as `h100:8`, or of several, such as `h100:4x8`.
      num_slices: the number of such TPU slices, joined by the data-centre network.

    Raises:
      UserError: there is no such topology, or its compiler is not installed.
    """
    kind, _, numbers = name.partition(":")
    return _gpus(name, num_slices) if kind in _GPUS and numbers else _tpus(name, num_slices)


def _tpus(name: str, num_slices: int) -> list[jax.Device]:
    for key, value in _ALONE.items():
        os.environ.setdefault(key, value)
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


def _gpus(name: str, num_slices: int) -> list[jax.Device]:
    kind, _, numbers = name.partition(":")
    match = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)", numbers)
    if match is None or num_slices > 1:
        raise UserError(
            f"no GPU topology {name!r}; write the GPUs of a host, such as {kind}:8, or the hosts "
            f"and the GPUs of each, such as {kind}:4x8"
        )
    target = {
        "platform": "cuda",
        "topology": f"1x{match[1] or 1}x{match[2]}",
        "target_config": _target(_GPUS[kind]),
    }
    try:
        return list(topologies.get_topology_desc("", **target).devices)
    except Exception as error:  # As above.
        reason = " ".join(str(error).split())
        raise UserError(
            f"no GPU topology {name!r} to compile for ({reason}); install the GPU compiler with "
            "the extra 'cuda'"
        ) from error


def _target(gpu: _Gpu) -> str:
    """XLA's GpuTargetConfigProto as text. Limits are those of all GPUs since the A100."""
    shared, shared_of_block = gpu.shared
    info = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49_152,
        "shared_memory_per_core": shared,
        "shared_memory_per_block_optin": shared_of_block,
        "threads_per_core_limit": 2048,
        "core_count": gpu.multiprocessors,
        "fpus_per_core": 64 if gpu.capability == 8 else 128,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65_535,
        "block_dim_limit_z": 65_535,
        "memory_bandwidth": gpu.bandwidth,
        "l2_cache_size": gpu.l2_cache,
        "clock_rate_ghz": gpu.clock_ghz,
        "device_memory_size": gpu.memory,
        "registers_per_core_limit": 65_536,
        "registers_per_block_limit": 65_536,
    }
    fields = " ".join(f"{key}: {value}" for key, value in info.items())
    return (
        f"gpu_device_info {{ {fields} cuda_compute_capability {{ major: {gpu.capability} }} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } '
        f'runtime_version {{ major: 12 minor: 8 }} device_description_str: "{gpu.kind}"'
    )
