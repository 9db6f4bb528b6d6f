import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax.errors import UserError
from vit_jax.parameters import Parameter
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.schedule import make_schedule

PEAK, WARMUP, TOTAL = 3e-3, 10, 50


def _rates(steps: int = TOTAL, **options: Any) -> Any:
    schedule = make_schedule(OptimizerConfig(lr=PEAK, **options), TOTAL)
    return np.array([schedule(step) for step in range(steps)])


def _decay(kind: str, warmup: Any) -> Any:
    """Rates after the warm-up, in closed form."""
    progress = np.arange(TOTAL - warmup) / (TOTAL - warmup)
    return {
        "cosine": PEAK * (1 + np.cos(math.pi * progress)) / 2,
        "linear": PEAK + (1e-5 - PEAK) * progress,
        "constant": np.full(len(progress), PEAK),
    }[kind]


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 2, WARMUP])
def test_schedules(kind: str, warmup: Any) -> None:
    warm = PEAK * np.arange(1, warmup + 1) / max(warmup, 1)
    expected = np.concatenate([warm, _decay(kind, warmup)])
    actual = _rates(schedule=kind, warmup_steps=warmup)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-9)


def test_no_update_is_lost() -> None:
    rates = _rates(schedule="cosine", warmup_steps=WARMUP)
    assert rates[0] == pytest.approx(PEAK / WARMUP)
    assert rates.max() == rates[WARMUP - 1] == rates[WARMUP] == pytest.approx(PEAK)
    assert rates[-1] > 0


@pytest.mark.parametrize(("kind", "end"), [("cosine", 0.0), ("linear", 1e-5)])
def test_decay_ends_after_the_last_update(kind: str, end: float) -> None:
    rates = _rates(TOTAL + 3, schedule=kind, warmup_steps=WARMUP)
    np.testing.assert_allclose(rates[TOTAL:], end, atol=1e-9)
    assert rates[TOTAL - 1] > end


def test_the_step_schedule_is_the_hyper_rule() -> None:
    """30, 60 and 90 % of 50 updates, each to a tenth; warm-up counts as part of the run."""
    rates = _rates(schedule="step", warmup_steps=WARMUP)
    warm = PEAK * np.arange(1, 11) / 10
    rest = PEAK * np.repeat([1, 0.1, 0.01, 0.001], [5, 15, 15, 5])
    np.testing.assert_allclose(rates, np.concatenate([warm, rest]), rtol=1e-5)


def test_the_inverse_square_root_with_a_cool_down() -> None:
    """Each rate by itself: lr / sqrt(1 + steps since the warm-up / timescale), then a line to 0."""
    rates = _rates(schedule="rsqrt", warmup_steps=WARMUP, timescale=5, cooldown_steps=8)
    for step, rate in enumerate(rates):
        since, left = step - WARMUP, TOTAL - step
        expected = PEAK * (step + 1) / WARMUP if since < 0 else PEAK / math.sqrt(1 + since / 5)
        assert rate == pytest.approx(expected * min(1, left / 8), rel=1e-5), step
    # 5 and 15 steps after the warm-up it is 1 / sqrt(2) and a half of its peak.
    np.testing.assert_allclose(rates[[15, 25]], [PEAK / math.sqrt(2), PEAK / 2], rtol=1e-5)


def test_a_constant_rate_with_a_cool_down() -> None:
    rates = _rates(TOTAL + 1, schedule="constant", cooldown_steps=4)
    falls = PEAK * np.array([1, 3 / 4, 2 / 4, 1 / 4, 0])
    np.testing.assert_allclose(rates, np.r_[np.full(TOTAL - 4, PEAK), falls], rtol=1e-5, atol=1e-9)


def test_the_cool_down_needs_room() -> None:
    config = OptimizerConfig(schedule="rsqrt", warmup_steps=30, cooldown_steps=21)
    with pytest.raises(UserError, match=r"cooldown_steps: 21, and 30 of warm-up, are more than"):
        make_schedule(config, TOTAL)


def test_a_milestone_at_the_end_of_the_warmup() -> None:
    rates = _rates(schedule="step", warmup_steps=WARMUP, milestones=(0.2, 0.5))
    expected = np.repeat([PEAK, 0.1 * PEAK, 0.01 * PEAK], [1, 15, 25])
    np.testing.assert_allclose(rates[WARMUP - 1 :], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("warmup", "total", "milestones"),
    [(16, 50, None), (0, 50, (0.001, 0.5)), (0, 4, (0.5, 0.51)), (0, 4, (0.5, 0.99))],
)
def test_each_fall_of_the_rate_needs_a_step_after_the_warmup(
    warmup: int, total: int, milestones: tuple[float, ...] | None
) -> None:
    config = OptimizerConfig(schedule="step", warmup_steps=warmup, milestones=milestones)
    with pytest.raises(UserError, match="milestones: the rate would drop after steps .* of"):
        make_schedule(config, total)


def test_schedule_is_traced() -> None:
    schedule = make_schedule(OptimizerConfig(lr=PEAK, warmup_steps=WARMUP), TOTAL)
    actual = jax.jit(jax.vmap(schedule))(jnp.arange(TOTAL))
    np.testing.assert_allclose(actual, _rates(warmup_steps=WARMUP), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("warmup", [50, 51])
def test_warmup_must_end_before_the_run(warmup: int) -> None:
    with pytest.raises(UserError, match=f"warmup_steps: {warmup} .* 50 steps"):
        make_schedule(OptimizerConfig(warmup_steps=warmup), 50)


def _trees(number: Any = 5) -> Any:
    """Parameters and gradients of a few steps."""
    rng = np.random.default_rng(0)

    def draw() -> Any:
        shapes = {"head": {"kernel": (3, 4), "bias": (4,)}, "cls": (2,)}
        return jax.tree.map(
            lambda shape: np.asarray(rng.normal(size=shape), np.float32),
            shapes,
            is_leaf=lambda x: isinstance(x, tuple),
        )

    return draw(), [draw() for _ in range(number)]


TABLE = {
    "head/kernel": Parameter(("features", "classes"), "kernel", "head"),
    "head/bias": Parameter(("classes",), "bias", "head"),
    "cls": Parameter(("width",), "embedding", "token"),
}


def _descend(config: Any, schedule: Any, params: Any, grads: Any) -> Any:
    optimizer = make_optimizer(config, schedule, params, TABLE)
    state = optimizer.init(params)
    for grad in grads:
        updates, state = optimizer.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def _assert_close(actual: Any, expected: Any, rtol: float = 2e-5) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, atol=1e-6), actual, expected)


@pytest.mark.parametrize("mask", ["all", "kernels"])
@pytest.mark.parametrize(("b1", "b2"), [(None, None), (0.8, 0.95)])
def test_adamw_with_decay_times_the_rate(mask: Any, b1: Any, b2: Any) -> None:
    params, grads = _trees()
    config = OptimizerConfig("adamw", weight_decay=0.3, decay_mask=mask, b1=b1, b2=b2)
    rates = 0.1 / np.arange(1, 6)
    actual, _ = _descend(config, lambda step: jnp.asarray(rates)[step], params, grads)

    beta1, beta2 = b1 or 0.9, b2 or 0.999
    decays = {"head": {"kernel": 0.3, "bias": 0.3}, "cls": 0.3}
    if mask == "kernels":
        decays = {"head": {"kernel": 0.3, "bias": 0.0}, "cls": 0.0}

    def adamw(p: Any, decay: Any, *gs: Any) -> Any:
        p, m, v = p.astype(np.float64), 0.0, 0.0
        for t, (g, rate) in enumerate(zip(gs, rates, strict=True), start=1):
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
            step = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + 1e-8)
            p = p - rate * (step + decay * p)
        return p

    _assert_close(actual, jax.tree.map(adamw, params, decays, *grads))


@pytest.mark.parametrize(("momentum", "decay"), [(None, 0.0), (0.5, 0.1)])
def test_sgd_keeps_decay_out_of_the_momentum(momentum: float | None, decay: float) -> None:
    params, grads = _trees()
    config = OptimizerConfig("sgd", momentum=momentum, weight_decay=decay)
    actual, _ = _descend(config, lambda step: 0.1, params, grads)

    def sgd(p: Any, *gs: Any) -> Any:
        trace = 0.0
        for g in gs:
            trace = g + (0.9 if momentum is None else momentum) * trace
            p = p - 0.1 * (trace + decay * p)
        return p

    _assert_close(actual, jax.tree.map(sgd, params, *grads))


def test_weight_decay_with_factors() -> None:
    """The first pattern that matches counts, also a factor of zero; biases do not decay here."""
    params, (grad, *_) = _trees()
    decays = (("cls", 0.0), ("head/kernel", 100.0), (".*", 7.0))
    config = OptimizerConfig("sgd", weight_decay=0.1, decays=decays)
    actual, _ = _descend(config, lambda step: 0.1, params, [grad])
    decay = {"head": {"kernel": 10.0, "bias": 0.7}, "cls": 0.0}
    _assert_close(actual, jax.tree.map(lambda p, g, d: p - 0.1 * (g + d * p), params, grad, decay))
    config = OptimizerConfig("sgd", weight_decay=0.1, decay_mask="kernels", decays=decays)
    actual, _ = _descend(config, lambda step: 0.1, params, [grad])
    decay["head"]["bias"] = 0.0
    _assert_close(actual, jax.tree.map(lambda p, g, d: p - 0.1 * (g + d * p), params, grad, decay))


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_clipping_at_the_global_norm(scale: float) -> None:
    params, (grad, *_) = _trees()
    norm = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in jax.tree.leaves(grad)))
    grad = jax.tree.map(lambda g: g * np.float32(scale / norm), grad)
    config = OptimizerConfig("sgd", clip_norm=1.0)
    actual, _ = _descend(config, lambda step: 1.0, params, [grad])
    _assert_close(actual, jax.tree.map(lambda p, g: p - g * min(1, 1 / scale), params, grad))


@pytest.mark.parametrize(("name", "slot"), [("sgd", "trace"), ("adamw", "mu")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_of_the_momentum(name: Any, slot: Any, dtype: Any) -> None:
    params, grads = _trees()
    config = OptimizerConfig(name, momentum_dtype=dtype)
    params, state = _descend(config, lambda step: 0.1, params, grads)
    moments = optax.tree_utils.tree_get(state, slot)
    assert {m.dtype for m in jax.tree.leaves(moments)} == {jnp.dtype(dtype)}
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    if name == "adamw":
        second = optax.tree_utils.tree_get(state, "nu")
        assert {m.dtype for m in jax.tree.leaves(second)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "sgd", "b1": 0.9}, "b1 would be ignored: sgd has none"),
        ({"name": "sgd", "b2": 0.9}, "b2 would be ignored: sgd has none"),
        ({"name": "adamw", "momentum": 0.9}, "momentum would be ignored: adamw has none"),
        (
            {"decay_mask": "kernels"},
            "weight_decay is 0; raise that, or set decay_mask=all",
        ),
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": 1e-5, "schedule": "linear"}, "lr must be above 1e-05"),
        ({"milestones": (0.5,)}, "milestones would be ignored"),
        ({"schedule": "step", "milestones": (0.5, 0.4)}, "milestones must ascend between 0 and 1"),
        ({"schedule": "step", "milestones": (0.5, 1.0)}, "milestones must ascend between 0 and 1"),
        ({"schedule": "step", "milestones": ()}, "milestones must ascend between 0 and 1"),
        ({"timescale": 5}, "timescale would be ignored: it needs schedule='rsqrt'"),
        ({"schedule": "rsqrt", "timescale": 0}, "timescale must be at least 1, not 0"),
        ({"cooldown_steps": 5}, "cooldown_steps would be ignored: schedule=cosine falls"),
        ({"schedule": "rsqrt", "cooldown_steps": -1}, "cooldown_steps must not be negative"),
        ({"decays": (("head/.*", 9.0),)}, "decays would be ignored: weight_decay is 0"),
        ({"warmup_steps": -1}, "must not be negative"),
        ({"weight_decay": -0.1}, "must not be negative"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"micro_batches": 0}, "micro_batches must be at least 1"),
        ({"average": 1.0}, r"average must be in \[0, 1\)"),
        ({"b1": -0.1}, r"b1 must be in \[0, 1\)"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**options)
