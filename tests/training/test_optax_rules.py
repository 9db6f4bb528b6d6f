"""Optimizers of optax by name: they do what optax does with the same schedule."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.small_models import refusal
from vit_jax.errors import UserError
from vit_jax.parameters import Parameter
from vit_jax.schema import build, to_dict
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer

RATES = np.array([0.03, 0.01, 0.02, 0.005], np.float32)
# A kernel beside two that are stacked: optax must see three.
TABLE = {
    "kernel": Parameter(("width", "classes"), "kernel", "head"),
    "blocks/kernel": Parameter(("block", "width", "hidden"), "kernel", "block"),
    "blocks/bias": Parameter(("block", "hidden"), "bias", "block"),
}
NAMES = (
    *("adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw"),
    *("adan", "amsgrad", "lamb", "lion", "nadam", "nadamw", "novograd", "optimistic_adam_v2"),
    *("optimistic_gradient_descent", "radam", "rmsprop", "sgd", "sign_sgd", "signum", "sm3"),
    *("yogi", "contrib.acprop", "contrib.ademamix", "contrib.adopt"),
    "contrib.simplified_ademamix",
)
# The others take longer than there is time for in each run of the tests.
QUICK = ("adafactor", "lamb", "lion", "sm3", "contrib.ademamix")
DECOUPLED = (
    *("adamaxw", "adamw", "adan", "lion", "nadamw", "contrib.acprop", "contrib.ademamix"),
    "contrib.simplified_ademamix",
)


def _cases(names: tuple[str, ...]) -> list[Any]:
    marks = {name: () if name in QUICK else (pytest.mark.slow,) for name in names}
    return [pytest.param(name, marks=marks[name]) for name in names]


def _schedule(step: Any) -> Any:
    return jnp.asarray(RATES)[step]


def _trees() -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = {"kernel": (4, 6), "blocks": {"kernel": (2, 4, 6), "bias": (2, 6)}}

    def draw(shape: Any) -> Any:
        return np.asarray(rng.normal(size=shape), np.float32)

    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    return [jax.tree.map(draw, shapes, is_leaf=is_shape) for _ in range(1 + len(RATES))]


def _descend(optimizer: Any, params: Any, gradients: list[Any]) -> Any:
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def _ours(**options: Any) -> Any:
    params, *gradients = _trees()
    optimizer = make_optimizer(OptimizerConfig(**options), _schedule, params, TABLE)
    return _descend(optimizer, params, gradients)


def _apart(tree: Any) -> Any:
    """Each block's parameters as ones of their own."""
    blocks = [jax.tree.map(lambda x: x[i], tree["blocks"]) for i in range(2)]  # noqa: B023
    return {"kernel": tree["kernel"], "blocks": blocks}


def _of_optax(name: str, **arguments: Any) -> Any:
    module = optax.contrib if name.startswith("contrib.") else optax
    optimizer = getattr(module, name.removeprefix("contrib."))
    # This one takes no schedule.
    steps = {"sm3": 1.0}
    rule = optimizer(steps.get(name, _schedule), **arguments)
    if name in steps:
        rule = optax.chain(rule, optax.scale_by_schedule(_schedule))
    params, *gradients = map(_apart, _trees())
    return _descend(rule, params, gradients)


def _assert_same(ours: Any, theirs: Any) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), _apart(ours), theirs
    )


@pytest.mark.parametrize("name", _cases(NAMES))
def test_each_block_is_updated_as_optax_updates_it(name: str) -> None:
    own = {"weight_decay": 0.0} if name in DECOUPLED else {}
    _assert_same(_ours(name=f"optax:{name}"), _of_optax(name, **own))


@pytest.mark.parametrize("name", _cases(DECOUPLED))
def test_our_weight_decay_is_that_of_optax(name: str) -> None:
    ours = _ours(name=f"optax:{name}", weight_decay=0.3)
    _assert_same(ours, _of_optax(name, weight_decay=0.3))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("lion", {"b1": 0.1, "b2": 0.5}),
        ("lamb", {"weight_decay": 0.1}),
        ("novograd", {"weight_decay": 0.1, "b2": 0.5}),
        ("adadelta", {"weight_decay": 0.1}),
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("rmsprop", {"centered": True, "decay": 0.5}),
        ("adafactor", {"multiply_by_parameter_scale": False, "clipping_threshold": None}),
        ("adam", {"mu_dtype": "bfloat16", "eps": 1}),
    ],
)
def test_arguments_go_to_optax(name: str, arguments: dict[str, Any]) -> None:
    ours = _ours(name=f"optax:{name}", arguments=arguments)
    own = {"weight_decay": 0.0} if name in DECOUPLED else {}
    _assert_same(ours, _of_optax(name, **own, **arguments))
    without = _ours(name=f"optax:{name}")
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), ours, without))) > 0


def test_the_decay_of_kernels_alone_freezing_and_rates_keep_their_meaning() -> None:
    lion = {"name": "optax:lion", "weight_decay": 0.3}
    whole, kernels = _ours(**lion), _ours(**lion, decay_mask="kernels")
    none = _ours(name="optax:lion")
    np.testing.assert_array_equal(kernels["kernel"], whole["kernel"])
    np.testing.assert_array_equal(kernels["blocks"]["bias"], none["blocks"]["bias"])
    start = _trees()[0]
    frozen = _ours(**lion, freeze=("kernel", "blocks/0/.*"))
    np.testing.assert_array_equal(frozen["kernel"], start["kernel"])
    np.testing.assert_array_equal(frozen["blocks"]["bias"][0], start["blocks"]["bias"][0])
    np.testing.assert_array_equal(frozen["blocks"]["bias"][1], whole["blocks"]["bias"][1])
    # Lion's updates are signs times the rate, whatever the parameter.
    halved = _ours(name="optax:lion", rates=(("kernel", 0.5),))
    np.testing.assert_allclose(
        halved["kernel"] - start["kernel"], (none["kernel"] - start["kernel"]) / 2, atol=1e-6
    )


def test_the_schema_keeps_arguments_as_they_are() -> None:
    values = {"name": "optax:adam", "arguments": {"b1": 0.8, "mu_dtype": "bfloat16"}}
    config = build(OptimizerConfig, values)
    assert build(OptimizerConfig, to_dict(config)) == config
    assert config.arguments == {"b1": 0.8, "mu_dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"name": "lion"},
            "config.optimizer: name: no optimizer 'lion'; did you mean 'optax:lion'?",
        ),
        (
            {"name": "ademamix"},
            "config.optimizer: name: no optimizer 'ademamix'; did you mean 'adamw' or "
            "'optax:contrib.ademamix'?",
        ),
        (
            {"name": "adam"},
            "config.optimizer: name: no optimizer 'adam'; did you mean 'adamw' or 'optax:adam'?",
        ),
        (
            {"name": "optax:loin"},
            "config.optimizer: name: optax has no optimizer 'loin'; did you mean 'optax:lion'?",
        ),
        (
            {"name": "optax:lion", "arguments": {"b3": 0.9}},
            "config.optimizer: arguments.b3: no such key; the keys there are b1, b2, mu_dtype",
        ),
        (
            {"name": "optax:sgd", "arguments": {"momentun": 0.9}},
            "config.optimizer: arguments.momentun: no such key; did you mean 'momentum'?",
        ),
        (
            {"name": "optax:lion", "arguments": {"b1": "high"}},
            "config.optimizer: arguments.b1: expected a finite number, such as 0.9, got 'high' "
            "(str)",
        ),
        (
            {"name": "optax:adam", "arguments": {"nesterov": 1}},
            "config.optimizer: arguments.nesterov: expected true or false, got 1 (int)",
        ),
        (
            {"name": "optax:lion", "arguments": {"mu_dtype": "bf16"}},
            "config.optimizer: arguments.mu_dtype: expected one of 'float32', 'bfloat16', "
            "'float16', or none, got 'bf16' (str)",
        ),
        (
            {"name": "optax:lion", "arguments": {"weight_decay": 0.1}},
            "config.optimizer: arguments.weight_decay: set optimizer.weight_decay in its place",
        ),
        (
            {"name": "optax:lion", "arguments": {"learning_rate": 0.1}},
            "config.optimizer: arguments.learning_rate: set optimizer.lr and optimizer.schedule",
        ),
        (
            {"name": "optax:lamb", "weight_decay": 0.1},
            "config.optimizer: weight_decay would not be lamb's own, which is part of its step; "
            "set arguments.weight_decay=0.1 in its place",
        ),
        (
            {"name": "optax:rmsprop", "arguments": {"momentum": 0.9}},
            "config.optimizer: arguments.momentum: not for optax:rmsprop: it would hold updates "
            "times their rates",
        ),
        (
            {"name": "optax:lion", "b1": 0.9},
            "config.optimizer: b1 would be ignored: optax:lion has none; set arguments.b1, if it "
            "takes one",
        ),
        (
            {"name": "optax:lion", "momentum_dtype": "bfloat16"},
            "config.optimizer: momentum_dtype would be ignored: optax:lion has its own; set "
            "arguments.mu_dtype, if it takes one",
        ),
        (
            {"name": "adamw", "arguments": {"eps": 1e-6}},
            "config.optimizer: arguments.eps would be ignored: adamw has keys of its own",
        ),
        (
            {"name": "adafactor", "momentum": 0.9},
            "config.optimizer: momentum would be ignored: adafactor has none",
        ),
        (
            {"name": "optax:lbfgs"},
            "config.optimizer: name: 'optax:lbfgs' cannot be used: it needs the loss's value, and "
            "a step gives it gradients alone; choose another, such as optax:lion",
        ),
    ],
)
def test_what_no_optimizer_takes_is_one_line(values: dict[str, Any], message: str) -> None:
    assert refusal(build, OptimizerConfig, values, "config.optimizer") == message


@pytest.mark.parametrize(
    "name",
    [
        *("fromage", "lars", "lbfgs", "noisy_sgd", "optimistic_adam", "polyak_sgd", "rprop"),
        *("contrib.dadapt_adamw", "contrib.dpsgd", "contrib.prodigy", "contrib.sam"),
        *("contrib.schedule_free", "contrib.schedule_free_adamw", "contrib.sophia"),
    ],
)
def test_optimizers_that_do_not_fit_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(
        UserError, match=r"cannot be used: it.*; choose another, such as optax:lion"
    ):
        OptimizerConfig(f"optax:{name}")


def test_every_optimizer_of_optax_is_tried_or_refused() -> None:
    """Each function of optax that takes a rate and is no part of another one."""
    found = set()
    for prefix, module in (("", optax), ("contrib.", optax.contrib)):
        for name in dir(module):
            member = getattr(module, name)
            takes_rate = "learning_rate:" in (getattr(member, "__doc__", None) or "")
            if takes_rate and name.islower() and not name.startswith(("_", "scale_by")):
                found.add(f"{prefix}{name}")
    assert {"adamw", "lion", "contrib.prodigy", "lbfgs"} <= found
    for name in sorted(found - set(NAMES)):
        with pytest.raises(UserError, match="cannot be used"):
            OptimizerConfig(f"optax:{name}")
