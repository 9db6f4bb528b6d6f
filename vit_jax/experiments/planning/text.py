"""A plan in words, as tables."""

from collections.abc import Iterator

from vit_jax.experiments.planning.compiling import Compiled, TooLarge
from vit_jax.experiments.planning.costs import Duration
from vit_jax.experiments.planning.memory import Memory
from vit_jax.experiments.planning.plan import Plan, Tried
from vit_jax.experiments.planning.settings import Candidate

Row = tuple[str, str]


def tables(plan: Plan) -> Iterator[tuple[str, list[Row]]]:
    """The titles and rows of a plan's tables."""
    own = plan.own.setting
    for tried in plan.tried:
        yield _title(plan, tried), [*_memory(plan, tried)]
        if isinstance(tried.result, Compiled):
            yield "collectives of a step, on a device", [*_collectives(tried.result)]
        if tried.candidate.setting == own and plan.ranked + len(plan.remedies):
            yield "what would make it fit, by estimates", [*_remedies(plan)]
    yield "time", [*_time(plan)]


def memory_rows(memory: Memory) -> list[Row]:
    """An estimate by kind, and its sum."""
    return [
        ("parameters", gib(memory.parameters)),
        ("optimizer state", gib(memory.optimizer)),
        ("batch", gib(memory.batch)),
        ("gradients", gib(memory.gradients)),
        ("kept activations", gib(memory.activations)),
        ("temporaries", gib(memory.temporaries)),
        ("peak", gib(memory.peak)),
    ]


def verdict(plan: Plan) -> str:
    """One line: whether the run fits, or what to type so that it does."""
    fitting, own = plan.fitting, plan.own.setting
    count = f"{plan.hardware.devices} x {plan.hardware.kind}"
    skipped = f"; {plan.skipped:,} more fit by estimates and were not compiled"
    if fitting is None:
        tried = len(plan.tried)
        return f"nothing that was compiled fits {count} ({tried} settings){skipped}"
    flags = fitting.candidate.setting.flags(own)
    text = f"it fits {count} with {flags}" if flags else f"it fits {count} as it is"
    return text + (skipped if plan.ranked else "")


def _title(plan: Plan, tried: Tried) -> str:
    flags = tried.candidate.setting.flags(plan.own.setting)
    return f"{flags or 'as the config is'}: {tried.candidate.setting}"


def _memory(plan: Plan, tried: Tried) -> Iterator[Row]:
    memory, result = tried.candidate.memory, tried.result
    available = "" if plan.available is None else f" of {gib(plan.available)}"
    if isinstance(result, TooLarge):
        *kinds, (_, peak) = memory_rows(memory)
        yield from kinds
        yield "peak", f"{peak} (estimated)"
        needed = f"needs at least {gib(result.needed)}" if result.needed else "is too large"
        yield "fits", f"no: the compiler says that it {needed}{available}"
        return
    yield from memory_rows(memory)[:3]
    yield "gradients and temporaries", gib(result.peak - result.arguments)
    yield "peak", f"{gib(result.peak)}{available} (estimated {gib(memory.peak)})"
    yield "fits", "yes" if tried.fits else "no"


def _collectives(result: Compiled) -> Iterator[Row]:
    for kind, sent in result.sent.items():
        yield kind, f"{sent.number:,}, together {gib(sent.bytes)}"
    if not result.sent:
        yield "none", ""


def _remedies(plan: Plan) -> Iterator[Row]:
    for candidate in plan.remedies:
        yield candidate.setting.flags(plan.own.setting), _estimate(candidate, plan.own)
    if not plan.remedies:
        yield "no key alone", "remat, fsdp and micro-batches have to change together"


def _estimate(candidate: Candidate, own: Candidate) -> str:
    more = candidate.work.flops / own.work.flops
    return f"{gib(candidate.memory.peak)}, {more:.2f} times the operations"


def _time(plan: Plan) -> Iterator[Row]:
    candidate = plan.own if plan.fitting is None else plan.fitting.candidate
    work, least = candidate.work, candidate.bound
    yield "FLOPs a step", f"{work.flops:.4g} in products, {work.model_flops:.4g} for MFU"
    yield "steps", f"{plan.total_steps:,}"
    if plan.at_mfu is None or plan.at_bound is None or least is None:
        yield "duration", f"unknown: no published peak of {plan.hardware.kind}"
        return
    yield f"at {plan.mfu:.0%} MFU", _duration(plan.at_mfu)
    bounds = f"{least.compute:.3g} s by compute, {least.memory:.3g} s by memory"
    yield "at the bound", f"{_duration(plan.at_bound)} ({bounds}; no collectives)"
    yield "peaks", f"{plan.peaks}"


def _duration(duration: Duration) -> str:
    return (
        f"{duration.step_seconds:.3g} s a step, {duration.days:.3g} days, "
        f"{duration.device_hours:,.0f} device-hours, {duration.core_days:,.0f} core-days"
    )


def gib(number: float) -> str:
    """Bytes in GiB."""
    return f"{number / 2**30:.2f} GiB"
