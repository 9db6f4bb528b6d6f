"""`cost.json` of a run: what it has taken so far, added up over its starts.

    device-hours = sum over starts of devices x hours
    core-days    = sum over starts of cores x days
    images       = steps that led to the state x batch size
    exaFLOPs     = 6 x multiply-adds of a forward pass x images / 10^18

Time runs from the beginning of a start to its end: opening, compiling, evaluating and saving
count, and so do steps that a kill made the next start take again. Images and exaFLOPs count each
step once.

A core is a core of a TPU. A chip of TPUv3 has two, and JAX shows each as a device, so that on
TPUv3 these are the TPUv3-core-days of the paper (arXiv 2010.11929, Table 2). A GPU counts as one
core, and so does a device of CPUs; their days do not compare with TPUv3's. exaFLOPs compare with
the paper's Table 6.
"""

import json
import logging
import math
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

from vit_jax.errors import TakenOverError
from vit_jax.runs.config_file import write_json
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path

_log = logging.getLogger(__name__)

# Seconds after which the file is written again: what a kill can leave out of it.
_EVERY = 60.0
_NAME = "cost.json"


class Hardware(NamedTuple):
    """The devices of a start.

    Attributes:
      kind: as JAX names the first of them.
      devices: their number over all processes.
      cores: of all of them.
    """

    kind: str
    devices: int
    cores: int

    @classmethod
    def of(cls, devices: Iterable[Any]) -> Self:
        """Counts JAX's devices, of which there is at least one."""
        each = list(devices)
        cores = sum(d.num_cores if d.platform == "tpu" else 1 for d in each)
        return cls(each[0].device_kind, len(each), cores)


@dataclass(frozen=True)
class Cost:
    """What a run has taken, or several runs together.

    Attributes:
      exaflops: None where the formula does not hold, as with frozen parameters.
    """

    device_hours: float
    core_days: float
    images: int
    exaflops: float | None

    @classmethod
    def total(cls, costs: Iterable["Cost"]) -> "Cost":
        """The sum of several runs' costs; its exaFLOPs are None if one run's are."""
        each = list(costs)
        flops = [cost.exaflops for cost in each if cost.exaflops is not None]
        return cls(
            device_hours=math.fsum(cost.device_hours for cost in each),
            core_days=math.fsum(cost.core_days for cost in each),
            images=sum(cost.images for cost in each),
            exaflops=math.fsum(flops) if len(flops) == len(each) else None,
        )

    def __str__(self) -> str:
        flops = "exaFLOPs unknown" if self.exaflops is None else f"{self.exaflops:.3g} exaFLOPs"
        return (
            f"{self.device_hours:.3g} device-hours, {self.core_days:.3g} core-days, "
            f"{self.images:,} images, {flops}"
        )


def read_cost(directory: str | os.PathLike[str]) -> Cost | None:
    """What the run in a directory has taken; None if the file is missing or damaged."""
    stored = _read(directory)
    try:
        flops = stored["exaflops"]
        return Cost(
            device_hours=float(stored["device_hours"]),
            core_days=float(stored["core_days"]),
            images=int(stored["images"]),
            exaflops=None if flops is None else float(flops),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


class CostFile:
    """Keeps `cost.json` up to date during a start, on process 0.

    Args:
      hardware: of this start.
      step: the step after which this start takes steps.
      passed: steps up to that one that passed without an update.
      batch_size: images in one step.
      flops_per_image: of training on one image; None if they are unknown.
      began: when this start began, by `time.monotonic`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        hardware: Hardware,
        *,
        step: int,
        passed: int,
        batch_size: int,
        flops_per_image: int | None,
        began: float,
    ):
        self._file, self._hardware = as_path(directory) / _NAME, hardware
        self._batch_size, self._flops_per_image = batch_size, flops_per_image
        self._start, self._step, self._passed, self._began = step, step, passed, began
        self._written = -math.inf
        self._earlier = _starts(directory)
        if step and not self._earlier:
            _log.warning("%s lacks the earlier starts: their time does not count", self._file)

    def note(self, step: int, passed: int) -> None:
        """Notes the newest step; writes the file once a minute.

        Args:
          passed: all steps up to this one that passed without an update.
        """
        self._step, self._passed = step, passed
        if time.monotonic() - self._written >= _EVERY:
            self.write()

    def write(self) -> Cost:
        """Writes the file and returns the cost; if there is no room, a line says so."""
        self._written = time.monotonic()
        seconds = self._written - self._began
        steps = {"first_step": self._start, "last_step": self._step}
        starts = [*self._earlier, {**steps, "seconds": seconds, **self._hardware._asdict()}]
        images, flops = (self._step - self._passed) * self._batch_size, self._flops_per_image
        cost = Cost(
            device_hours=math.fsum(each["devices"] * each["seconds"] for each in starts) / 3600,
            core_days=math.fsum(each["cores"] * each["seconds"] for each in starts) / 86400,
            images=images,
            exaflops=None if flops is None else flops * images / 1e18,
        )
        try:
            write_json(self._file, {**asdict(cost), "starts": starts})
        except TakenOverError:
            pass  # The run ends with a line that says so.
        except OSError as error:
            _log.warning("%s cannot be written (%s)", self._file, error.strerror)
        return cost


def _read(directory: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        value = json.loads(objects.read_small(as_path(directory) / _NAME))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _starts(directory: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The starts that the file holds, without damaged ones."""
    found = _read(directory).get("starts")
    return [each for each in found if _is_start(each)] if isinstance(found, list) else []


def _is_start(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), int | float) for key in ("devices", "cores", "seconds")
    )
