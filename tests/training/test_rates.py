import json
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.real_processes import COMPILE_FAST
from tests.small_models import TINY_FLAGS, small_vit
from tests.stopped_run import weights_of_two_runs
from vit_jax.__main__ import main
from vit_jax.errors import UserError
from vit_jax.models.families import parameter_table
from vit_jax.models.functional import abstract_params
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.parallel.sharding import replicated
from vit_jax.schema import build, to_dict
from vit_jax.training.optimizer import OptimizerConfig, make_optimizer
from vit_jax.training.step import init_state, make_train_step
from vit_jax.training.supervised import Supervised

MODEL = small_vit(num_classes=3, depth=3, registers=2, representation_size=4)
SHAPES = abstract_params(MODEL)
TABLE = parameter_table(MODEL)
HEAD_ONLY = ("(?!head/).*",)


def _params(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: rng.normal(0, 0.3, p.shape).astype(np.float32), SHAPES)


def _by_path(tree: Any) -> Any:
    """Leaves by path, those of the blocks taken apart."""
    leaves: dict[str, Any] = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
        path = jax.tree_util.keystr(key_path, simple=True, separator="/")
        if path.startswith("blocks/"):
            leaves |= {path.replace("blocks", f"blocks/{i}", 1): row for i, row in enumerate(leaf)}
        else:
            leaves[path] = leaf
    return leaves


def _descend(config: Any, steps: int = 1) -> Any:
    """Parameters before and after steps at rate 1 along given gradients, and the gradients."""
    before, gradients = _params(), [_params(seed) for seed in range(1, steps + 1)]
    optimizer = make_optimizer(config, optax.constant_schedule(1.0), before, TABLE)
    after, state = before, optimizer.init(before)
    # With the emitters that the other tests leave out, one update gives equal bits in any program.
    options = {"xla_cpu_use_fusion_emitters": True} if "fusion_emitters" in COMPILE_FAST else None
    update = jax.jit(optimizer.update, compiler_options=options)
    for gradient in gradients:
        updates, state = update(gradient, state, after)
        after = jax.tree.map(np.add, after, updates)
    return _by_path(before), _by_path(after), [_by_path(g) for g in gradients], state


def _assert_steps_are(expected: Any, **options: Any) -> None:
    """One step of plain gradient descent changes each parameter by factor x gradient."""
    config = OptimizerConfig("sgd", momentum=0.0, **options)
    before, after, (gradient,), _ = _descend(config)
    for path, p in before.items():
        step = expected(path) * gradient[path]
        np.testing.assert_allclose(p - after[path], step, rtol=1e-4, atol=1e-6, err_msg=path)


# With a decay of 1/2: 1/2 to the power of the layers above, and the stem lies below block 0.
BY_LAYER = {
    **dict.fromkeys(("embedding", "cls", "registers", "pos_embedding"), 0.5**4),
    **{"blocks/0": 0.5**3, "blocks/1": 0.5**2, "blocks/2": 0.5},
    **dict.fromkeys(("norm", "pre_logits", "head"), 1.0),
}


def _by_layer(path: str) -> float:
    (factor,) = [f for name, f in BY_LAYER.items() if f"{path}/".startswith(f"{name}/")]
    return factor


def test_layers_decay_as_in_beit() -> None:
    _assert_steps_are(_by_layer, layer_decay=0.5)


def test_the_first_rate_that_matches_counts() -> None:
    def expected(path: str) -> float:
        if path == "blocks/1/mlp/dense1/bias":
            return 3.0
        return 0.25 if path.startswith("blocks/1/") else 10.0 if path.endswith("/bias") else 1.0

    rates = (("blocks/1/mlp/dense1/bias", 3.0), ("blocks/1/.*", 0.25), (".*/bias", 10.0))
    _assert_steps_are(expected, rates=rates)


def test_rates_and_layer_decay_multiply() -> None:
    def expected(path: Any) -> Any:
        return _by_layer(path) * (8 if path.endswith("/kernel") else 1)

    _assert_steps_are(expected, layer_decay=0.5, rates=((".*/kernel", 8.0),))


def test_frozen_parameters_do_not_count_in_clipping() -> None:
    """A step at rate 1, clipped at norm 1, is the trained part of the gradient over its norm."""
    freeze = ("embedding/.*", "blocks/[01]/.*", "pos_embedding")

    def is_frozen(path: Any) -> Any:
        return path.startswith(("embedding", "blocks/0", "blocks/1", "pos_embedding"))

    config = OptimizerConfig("sgd", momentum=0.0, clip_norm=1.0, freeze=freeze)
    before, after, (gradient,), state = _descend(config)
    trained = [path for path in before if not is_frozen(path)]
    norm = np.sqrt(sum(np.square(gradient[path], dtype=np.float64).sum() for path in trained))
    assert norm > 1
    assert optax.tree_utils.tree_get(state, "grad_norm") == pytest.approx(norm, rel=1e-5)
    for path, p in before.items():
        if is_frozen(path):
            np.testing.assert_array_equal(after[path], p, err_msg=path)
        else:
            np.testing.assert_allclose(p - after[path], gradient[path] / norm, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("mask", ["all", "kernels"])
def test_frozen_parameters_never_move(name: Any, mask: Any) -> None:
    """Trained ones move as without freezing; decay, moments and rates change nothing in that."""
    options = {"name": name, "weight_decay": 0.1, "decay_mask": mask, "layer_decay": 0.5}
    freeze = ("blocks/1/.*", "blocks/./mlp/.*", "cls", "embedding/.*")
    before, free, _, _ = _descend(OptimizerConfig(**options), steps=3)
    _, after, _, _ = _descend(OptimizerConfig(**options, freeze=freeze), steps=3)
    for path, p in before.items():
        if path.startswith(("cls", "embedding/", "blocks/1/")) or "/mlp/" in path:
            np.testing.assert_array_equal(after[path], p, err_msg=path)
        else:
            assert (after[path] != p).all(), path
            np.testing.assert_array_equal(after[path], free[path], err_msg=path)


@pytest.mark.parametrize(("name", "copies"), [("sgd", 1), ("adamw", 2)])
def test_what_is_frozen_whole_has_no_moments(name: Any, copies: Any) -> None:
    freeze = ("(?!head/|blocks/2/mlp/).*",)
    optimizer = make_optimizer(
        OptimizerConfig(name, freeze=freeze), optax.constant_schedule(1.0), _params(), TABLE
    )
    leaves = jax.tree.leaves(jax.eval_shape(optimizer.init, _params()))
    moments = [leaf.size for leaf in leaves if leaf.ndim]
    # The head's kernel and bias; of the stacked MLPs, two kernels and two biases.
    assert sorted(moments) == sorted([4 * 3, 3, *[3 * 16 * 32] * 2, 3 * 16, 3 * 32] * copies)


def _step(config: Any, params: Any) -> Any:
    optimizer = make_optimizer(config, optax.constant_schedule(0.5), params, TABLE)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    step = make_train_step(
        Supervised(MODEL),
        optimizer,
        mesh,
        micro_batches=2,
        average=config.average,
        seed=0,
    )
    rng = np.random.default_rng(0)
    batch = {
        "images": rng.integers(0, 256, (8, 16, 16, 3), np.uint8),
        "labels": rng.integers(0, 3, 8, np.int32),
        "weights": np.ones(8, np.float32),
    }
    state = init_state(jax.tree.map(jnp.asarray, params), optimizer, average=True)
    return jax.jit(step), jax.device_put(state, replicated(mesh)), batch


def test_a_step_reports_the_norm_of_what_trains_and_keeps_the_rest() -> None:
    """Over many steps too, where the average of a constant could drift."""
    config = OptimizerConfig("sgd", momentum=0.0, average=0.9999, freeze=HEAD_ONLY)
    step, state, batch = _step(config, _params())
    before = _by_path(state.params)
    state, metrics = step(state, batch)
    after = _by_path(state.params)
    squares = [((before[p] - after[p]) ** 2).sum() for p in ("head/kernel", "head/bias")]
    # The rate is one half.
    assert metrics["grad_norm"] == pytest.approx(2 * np.sqrt(sum(squares)), rel=1e-4)
    for _ in range(200):
        state, _ = step(state, batch)
    for tree in (state.params, state.averaged):
        for path, value in _by_path(tree).items():
            assert np.array_equal(value, before[path]) != path.startswith("head/"), path


def test_gradients_of_what_is_frozen_are_not_computed() -> None:
    def cost(freeze: Any) -> Any:
        step, state, batch = _step(OptimizerConfig("sgd", average=0.9, freeze=freeze), _params())
        return step.lower(state, batch).compile().cost_analysis()["flops"]

    # A step is a forward pass, and a backward pass that takes twice as long.
    assert cost(HEAD_ONLY) < 0.45 * cost(())


def test_a_run_says_how_much_it_trains(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = OptimizerConfig(freeze=("(?!head/|blocks/2/mlp/dense1/).*",))
    make_optimizer(config, optax.constant_schedule(1.0), SHAPES, TABLE)
    total = sum(p.size for p in jax.tree.leaves(SHAPES))
    assert f"training {4 * 3 + 3 + 16 * 32 + 32:,} of {total:,} parameters" in caplog.text


TINY = [
    "--config=configs/quickstart.py",
    *TINY_FLAGS,
    "--config.model.depth=2",
    "--config.data.batch_size=16",
    "--config.optimizer.warmup_steps=2",
    "--config.log_every=2",
    "--config.evals={}",
]


@pytest.mark.usefixtures("shared_programs")
def test_a_frozen_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    tiny = ["train", *TINY, f"--config.data.data_dir={tmp_path / 'data'}"]
    assert main([*tiny, "--config.total_steps=3", f"--workdir={tmp_path / 'first'}"]) == 0
    command = [
        *tiny,
        "--config.total_steps=6",
        "--config.checkpoint.every_steps=3",
        "--config.optimizer.freeze=('embedding/.*','pos_embedding','blocks/0/.*','.*/mlp/.*')",
        "--config.optimizer.layer_decay=0.75",
        f"--config.init_from={tmp_path / 'first'}",
    ]
    whole, stopped = weights_of_two_runs(command, tmp_path)
    assert whole == stopped
    with np.load(tmp_path / "first/weights.npz") as a, np.load(tmp_path / "whole/weights.npz") as b:
        same = {name for name in a.files if np.array_equal(a[name], b[name])}
    frozen = ("embedding/", "Transformer/posembed_input/", "Transformer/encoderblock_0/")
    assert same == {n for n in a.files if n.startswith(frozen) or "/MlpBlock" in n}


def test_the_schema_takes_patterns_and_keeps_their_order() -> None:
    values = {"freeze": ["cls"], "rates": [["head/.*", 10], [".*", 0.5]], "layer_decay": 0.75}
    config = build(OptimizerConfig, values)
    assert config.rates == (("head/.*", 10.0), (".*", 0.5))
    assert build(OptimizerConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ("head",)}, r"freeze: 'head' matches no .*; did you mean 'head/\.\*'\?"),
        ({"freeze": ("blocks/3/.*",)}, r"freeze: 'blocks/3/.*' matches no"),
        ({"freeze": ("haed/kernel",)}, "did you mean 'head/kernel'"),
        ({"freeze": ("cls", "(")}, r"freeze: '\(' is not a regular expression: missing \)"),
        ({"freeze": (".*",)}, "freeze: nothing is left to train"),
        ({"rates": (("encoder/.*", 0.1),)}, "rates: 'encoder/.*' matches no"),
        ({"rates": (("head/.*", -1.0),)}, "factor of 'head/.*' must be positive, not -1.0"),
        ({"rates": (("head/.*", 0.0),)}, "optimizer.freeze keeps parameters as they are"),
        ({"rates": ((".*", 2.0), ("head/.*", 1.0))}, "'head/.*' would be ignored: all"),
        ({"rates": (("cls", 2.0),), "freeze": ("cls",)}, "'cls' would be ignored: all"),
        (
            {"decays": (("haed/.*", 9.0),), "weight_decay": 0.1},
            r"decays: 'haed/\.\*' matches no",
        ),
        (
            {"decays": (("head/.*", -1.0),), "weight_decay": 0.1},
            "decays: the factor of 'head/.*' must be at least 0, not -1.0$",
        ),
        ({"layer_decay": 1.0}, "layer_decay: must be above 0 and below 1, not 1.0"),
        ({"layer_decay": 0.0}, "layer_decay: must be above 0 and below 1, not 0.0"),
    ],
)
def test_patterns_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"config.optimizer.*{message}") as info:
        make_optimizer(OptimizerConfig(**options), optax.constant_schedule(1.0), _params(), TABLE)
    assert len(str(info.value).splitlines()) == 1


def test_layer_decay_needs_blocks() -> None:
    with pytest.raises(UserError, match="the model has no blocks"):
        make_optimizer(
            OptimizerConfig(layer_decay=0.5),
            optax.constant_schedule(1.0),
            {"head": {"kernel": jnp.zeros((2, 3))}},
            TABLE,
        )
