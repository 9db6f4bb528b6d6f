"""The plan of a training: what its step needs, what would make it fit, and how long it takes."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vit_jax.analysis.peaks import source_of_peaks
from vit_jax.data.sources.records import Source
from vit_jax.experiments.planning.compiling import Compiled, TooLarge, compile_step
from vit_jax.experiments.planning.costs import Duration, seconds_at
from vit_jax.experiments.planning.settings import Candidate, Candidates
from vit_jax.runs.cost import Hardware
from vit_jax.training.config import TrainConfig

# Settings that are compiled at most: of a search, and to find one that fits.
_SEARCHED, _REMEDIES = 5, 2


@dataclass(frozen=True)
class Tried:
    """A setting that was compiled."""

    candidate: Candidate
    result: Compiled | TooLarge
    fits: bool


@dataclass(frozen=True)
class Plan:
    """What was found about a run on some devices.

    Attributes:
      own: the config's own setting, with its estimates.
      available: bytes that a device has for programs; None if they are not known.
      tried: the settings that were compiled; without a search, the config's own comes first.
      remedies: settings that change one key and fit by their estimates; empty where the config's
        own fits.
      ranked: number of settings that fit by their estimates; 0 if none were looked for.
      skipped: number of them that were not compiled.
      peaks: where the devices' peaks are published; None if they are not known.
      at_mfu: the duration at `mfu`; None if the devices' peak is not known.
      at_bound: the duration at the devices' peaks.
    """

    hardware: Hardware
    own: Candidate
    available: float | None
    tried: tuple[Tried, ...]
    remedies: tuple[Candidate, ...]
    ranked: int
    skipped: int
    total_steps: int
    mfu: float
    peaks: str | None
    at_mfu: Duration | None
    at_bound: Duration | None

    @property
    def fitting(self) -> Tried | None:
        """The first setting that was compiled and fits."""
        return next((each for each in self.tried if each.fits), None)


def make_plan(
    config: TrainConfig,
    source: Source,
    devices: Sequence[Any],
    *,
    mfu: float,
    search: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> Plan:
    """Compiles the step of a run, and others if it does not fit or a search is wanted.

    Args:
      source: the training data, or its sizes.
      devices: may be absent.
      mfu: model FLOPs utilization in (0, 1], for the duration.
      say: gets a line before each compilation.

    Raises:
      UserError: the run does not fit the data, or the devices cannot split it.
    """
    candidates = Candidates(config, source, devices)
    setup = candidates.setup(candidates.own)
    own = candidates.estimate(candidates.own)
    tried = [] if search else _until_fits([own], candidates, 1, say)
    ranked: list[Candidate] = []
    remedies: list[Candidate] = []
    if search or not tried[0].fits:
        ranked = candidates.ranked()
        remedies = candidates.remedies()
        others = [each for each in ranked if search or each.setting != own.setting]
        tried += _until_fits(others, candidates, _SEARCHED if search else _REMEDIES, say)
    fitting = next((each.candidate for each in tried if each.fits), own)
    hardware, steps = Hardware.of(devices), setup.total_steps
    seconds = seconds_at(mfu, fitting.work, devices)
    return Plan(
        hardware,
        own,
        candidates.available,
        tuple(tried),
        tuple(remedies),
        len(ranked),
        sum(all(each != one.candidate for one in tried) for each in ranked),
        steps,
        mfu,
        source_of_peaks(devices[0]),
        None if seconds is None else Duration.of(seconds, steps, hardware),
        None if fitting.bound is None else Duration.of(fitting.bound.seconds, steps, hardware),
    )


def as_values(plan: Plan) -> dict[str, Any]:
    """The numbers of a plan as nested dicts and lists, for JSON."""
    values = dataclasses.asdict(plan)
    values["hardware"] = plan.hardware._asdict()
    return values


def _until_fits(
    ranked: Iterable[Candidate], candidates: Candidates, most: int, say: Callable[[str], object]
) -> list[Tried]:
    """Compiles one setting after the other until one fits."""
    tried: list[Tried] = []
    for candidate in list(ranked)[:most]:
        say(f"compiling {candidate.setting} ...")
        result = compile_step(candidates.setup(candidate.setting).program)
        available = candidates.available
        fits = isinstance(result, Compiled) and (available is None or result.peak <= available)
        tried.append(Tried(candidate, result, fits))
        if fits:
            break
    return tried
