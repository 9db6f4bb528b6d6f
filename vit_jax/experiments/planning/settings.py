"""Settings of a step that trade memory for time, estimated and ranked without compiling them."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vit_jax.analysis.peaks import memory_bytes
from vit_jax.data.sources.records import Source
from vit_jax.errors import UserError
from vit_jax.experiments.planning.costs import Bound, Work, bound, work
from vit_jax.experiments.planning.memory import Memory, Placed, estimate
from vit_jax.experiments.planning.tracing import Traced, trace
from vit_jax.models.rematerialisation import Remat
from vit_jax.parallel.mesh import make_mesh
from vit_jax.training.config import TrainConfig
from vit_jax.training.devices import check_devices
from vit_jax.training.setup import Setup, assemble

_POLICIES: tuple[Remat, ...] = ("none", "dots", "block")
# An estimate above this share of the memory may be of a step that does not fit.
_ENOUGH = 0.95
# Bounds that differ by less are taken as equal.
_EQUAL = 0.01


@dataclass(frozen=True)
class Setting:
    """What a search varies: how devices split the step, and what it keeps."""

    data: int
    fsdp: int
    micro_batches: int
    remat: Remat

    def __str__(self) -> str:
        return (
            f"data {self.data}, fsdp {self.fsdp}, micro-batches {self.micro_batches}, "
            f"remat {self.remat}"
        )

    def flags(self, other: "Setting") -> str:
        """The command-line values that lead from another setting to this one."""
        changes = {
            "model.remat": (self.remat, other.remat),
            "mesh.fsdp": (self.fsdp, other.fsdp),
            "optimizer.micro_batches": (self.micro_batches, other.micro_batches),
        }
        if other.data * other.fsdp == self.data * self.fsdp and self.fsdp != other.fsdp:
            changes["mesh.data"] = (self.data, other.data)
        return " ".join(
            f"--config.{key}={new}" for key, (new, old) in changes.items() if new != old
        )


@dataclass(frozen=True)
class Candidate:
    """A setting with its estimates; `bound` is None where the devices' peaks are not known."""

    setting: Setting
    memory: Memory
    work: Work
    bound: Bound | None


class Candidates:
    """The settings of one run on given devices.

    Args:
      config: as the run's; the model may be incomplete.
      source: the training data, or its sizes.
      devices: may be absent.

    Raises:
      UserError: the run does not fit the data, or the devices cannot split it.
    """

    def __init__(self, config: TrainConfig, source: Source, devices: Sequence[Any]) -> None:
        self._config, self._source, self._devices = config, source, devices
        mesh = make_mesh(config.mesh, devices)
        self._tensor = mesh.shape["tensor"]
        self.own = Setting(
            mesh.shape["data"],
            mesh.shape["fsdp"],
            config.optimizer.micro_batches,
            config.model.remat,
        )
        self._traced: dict[Remat, Traced] = {}
        self._placed: dict[int, Placed] = {}

    @property
    def available(self) -> float | None:
        """Bytes of a device; None if they are not known."""
        return memory_bytes(self._devices[0])

    def setup(self, setting: Setting) -> Setup:
        """The run with a setting.

        Raises:
          UserError: the devices cannot split it so, or the model has no such policy.
        """
        config = self._config
        changed = dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, remat=setting.remat),
            optimizer=dataclasses.replace(config.optimizer, micro_batches=setting.micro_batches),
            mesh=dataclasses.replace(config.mesh, data=setting.data, fsdp=setting.fsdp),
        )
        mesh = make_mesh(changed.mesh, self._devices)
        check_devices(changed, mesh)
        return assemble(changed, mesh, self._source)

    def estimate(self, setting: Setting) -> Candidate:
        """Estimates one setting.

        Raises:
          UserError: as `setup`.
        """
        setup: Setup | None = None
        if setting.fsdp not in self._placed:
            setup = self.setup(setting)
            self._placed[setting.fsdp] = Placed.of(setup.program)
        if setting.remat not in self._traced:
            setup = setup or self.setup(setting)
            labels = self._source.max_labels
            self._traced[setting.remat] = trace(setup.config, labels, self._devices[0])
        placed, traced = self._placed[setting.fsdp], self._traced[setting.remat]
        batch_size = self._config.data.batch_size
        shares: dict[str, Any] = {
            "rows": batch_size / (setting.data * setting.fsdp * setting.micro_batches),
            "micro_batches": setting.micro_batches,
            "tensor": self._tensor,
        }
        done = work(self._config.model, placed, traced, batch_size=batch_size, **shares)
        memory = estimate(placed, traced, **shares)
        return Candidate(setting, memory, done, bound(done, self._devices))

    def fits(self, candidate: Candidate) -> bool:
        """Whether a setting fits the devices by its estimate, with a little room."""
        available = self.available
        return available is None or candidate.memory.peak <= _ENOUGH * available

    def ranked(self) -> list[Candidate]:
        """All settings that fit by their estimates, the fastest first.

        Of equally fast ones the one with fewer micro-batches comes first, then the one that splits
        parameters less: both add collectives, which the bound leaves out.
        """
        fitting = [each for each in self.all() if self.fits(each)]
        return sorted(fitting, key=_rank)

    def all(self) -> list[Candidate]:
        """All settings that these devices can run."""
        found = []
        refused: set[tuple[str, Any]] = set()
        for setting in self._settings():
            keys = {("fsdp", setting.fsdp), ("remat", setting.remat)}
            if keys & refused:
                continue
            try:
                found.append(self.estimate(setting))
            except UserError:
                # With the own value of the other key, it is this one's fault.
                refused |= {(key, value) for key, value in keys if value != getattr(self.own, key)}
        return found

    def remedies(self) -> list[Candidate]:
        """For each of remat, fsdp and micro-batches its fastest value that fits alone."""
        own, fitting = self.own, self.ranked()
        alone = (
            lambda s: (s.fsdp, s.micro_batches) == (own.fsdp, own.micro_batches),
            lambda s: (s.remat, s.micro_batches) == (own.remat, own.micro_batches),
            lambda s: (s.remat, s.fsdp) == (own.remat, own.fsdp),
        )
        firsts = [next((c for c in fitting if only(c.setting)), None) for only in alone]
        return [each for each in firsts if each is not None]

    def _settings(self) -> Iterator[Setting]:
        """The own setting and its variations; those that change one key come first."""
        own, slices = self.own, self._config.mesh.num_slices
        split, batch_size = own.data * own.fsdp, self._config.data.batch_size
        widths = [n for n in range(1, split // slices + 1) if (split // slices) % n == 0]
        parts = [2**k for k in range(math.floor(math.log2(max(batch_size // split, 1))) + 1)]
        policies = dict.fromkeys([own.remat, *_POLICIES])
        every = [
            Setting(split // fsdp, fsdp, micro_batches, remat)
            for remat in policies
            for fsdp in widths
            for micro_batches in sorted({own.micro_batches, *parts})
            if batch_size % (split * micro_batches) == 0
        ]
        return iter(sorted(every, key=lambda s: (s.fsdp != own.fsdp) + (s.remat != own.remat)))


def _rank(candidate: Candidate) -> tuple[int, int, int]:
    setting, least = candidate.setting, candidate.bound
    seconds = candidate.work.flops if least is None else least.seconds
    return round(math.log(seconds) / _EQUAL), setting.micro_batches, setting.fsdp
