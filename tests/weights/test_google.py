import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

from tests.small_models import assert_same, random_params, refusal
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import open_weights
from vit_jax.weights.layouts.google import from_google, to_google
from vit_jax.weights.load import params_for

DATA = Path(__file__).parents[1] / "parity"
PARITY = [
    "vit_token",
    "vit_gap",
    "vit_prelogits",
    "vit_token_384like",
    "vit_token_nonsquare",
]


def _released(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Parameters named as released (without prefix) and the configuration of a parity file."""
    with np.load(DATA / f"{name}.npz") as file:
        names = [n for n in file.files if n.startswith("params/")]
        return {n.removeprefix("params/"): file[n] for n in names}, json.loads(str(file["config"]))


def _small(depth: int = 2, width: int = 4, heads: int = 2) -> dict[str, Any]:
    """One value of each kind, numbered, under our own paths."""
    shapes = {
        "embedding/kernel": (2, 2, 3, width),
        "embedding/bias": (width,),
        "cls": (1, 1, width),
        "registers": (1, 3, width),
        "pos_embedding": (1, 5, width),
        "pooling/probe": (1, 1, width),
        "head/kernel": (width, 7),
        "head/bias": (7,),
    }
    for path, stack in (("blocks/", (depth,)), ("pooling/", ())):
        for part in ("query", "key", "value"):
            shapes[f"{path}attention/{part}/kernel"] = (*stack, width, heads, width // heads)
            shapes[f"{path}attention/{part}/bias"] = (*stack, heads, width // heads)
        shapes[f"{path}attention/out/kernel"] = (*stack, heads, width // heads, width)
        shapes[f"{path}attention/out/bias"] = (*stack, width)
        shapes[f"{path}mlp/dense1/kernel"] = (*stack, width, 2 * width)
        shapes[f"{path}mlp/dense1/bias"] = (*stack, 2 * width)
        shapes[f"{path}mlp/dense2/kernel"] = (*stack, 2 * width, width)
        shapes[f"{path}mlp/dense2/bias"] = (*stack, width)
    for path in ("blocks/norm1", "blocks/norm2", "norm", "pooling/norm"):
        stack = (depth,) if path.startswith("blocks") else ()
        shapes |= {f"{path}/scale": (*stack, width), f"{path}/bias": (*stack, width)}
    rng = np.random.default_rng(0)
    flat = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
    return traverse_util.unflatten_dict(flat, sep="/")


def _as_linen(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The same parameters as newer Linen code numbers them."""
    new = {"MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0"}
    new |= {"LayerNorm_2": "LayerNorm_1", "MlpBlock_3": "MlpBlock_0"}
    return {"/".join(new.get(p, p) for p in name.split("/")): a for name, a in flat.items()}


@pytest.mark.parametrize("name", PARITY)
def test_released_names_survive_both_ways_bit_for_bit(name: str) -> None:
    flat, _ = _released(name)
    assert_same(to_google(from_google(flat)), flat)


@pytest.mark.parametrize("name", PARITY)
def test_tree_has_the_configured_shapes(name: str) -> None:
    flat, _ = _released(name)
    shapes = {
        path: leaf.shape
        for path, leaf in traverse_util.flatten_dict(from_google(flat), sep="/").items()
    }
    # Width 48, 2 layers, 3 heads, MLP 96, patch 8; sides as the files' documentation gives them.
    side = {"vit_token_384like": (48, 48), "vit_token_nonsquare": (32, 48)}.get(name, (32, 32))
    has_class_token = name != "vit_gap"
    positions = side[0] * side[1] // 64 + has_class_token
    expected = {
        "embedding/kernel": (8, 8, 3, 48),
        "embedding/bias": (48,),
        "pos_embedding": (1, positions, 48),
        "blocks/attention/out/kernel": (2, 3, 16, 48),
        "blocks/attention/out/bias": (2, 48),
        "blocks/mlp/dense1/kernel": (2, 48, 96),
        "blocks/mlp/dense1/bias": (2, 96),
        "blocks/mlp/dense2/kernel": (2, 96, 48),
        "blocks/mlp/dense2/bias": (2, 48),
        "head/kernel": (48, 10),
        "head/bias": (10,),
    }
    for part in ("query", "key", "value"):
        expected[f"blocks/attention/{part}/kernel"] = (2, 48, 3, 16)
        expected[f"blocks/attention/{part}/bias"] = (2, 3, 16)
    for norm in ("blocks/norm1", "blocks/norm2", "norm"):
        shape = (2, 48) if norm.startswith("blocks") else (48,)
        expected |= {f"{norm}/scale": shape, f"{norm}/bias": shape}
    if has_class_token:
        expected["cls"] = (1, 1, 48)
    if name == "vit_prelogits":
        expected |= {"pre_logits/kernel": (48, 48), "pre_logits/bias": (48,)}
    assert shapes == expected


def test_each_released_name_goes_to_its_own_place() -> None:
    flat, _ = _released("vit_token")
    params = from_google(flat)
    for i in range(2):
        prefix = f"Transformer/encoderblock_{i}"
        blocks = params["blocks"]
        for actual, name in (
            (blocks["norm1"]["scale"], "LayerNorm_0/scale"),
            (blocks["norm2"]["bias"], "LayerNorm_2/bias"),
            (blocks["attention"]["query"]["kernel"], "MultiHeadDotProductAttention_1/query/kernel"),
            (blocks["attention"]["out"]["bias"], "MultiHeadDotProductAttention_1/out/bias"),
            (blocks["mlp"]["dense1"]["kernel"], "MlpBlock_3/Dense_0/kernel"),
            (blocks["mlp"]["dense2"]["kernel"], "MlpBlock_3/Dense_1/kernel"),
        ):
            np.testing.assert_array_equal(
                np.asarray(actual)[i], flat[f"{prefix}/{name}"], err_msg=name
            )
    np.testing.assert_array_equal(params["norm"]["bias"], flat["Transformer/encoder_norm/bias"])


def test_every_part_of_the_tree_survives_both_ways() -> None:
    params = _small()
    flat = to_google(params)
    assert {"registers", "MAPHead_0/probe", "MAPHead_0/MlpBlock_0/Dense_1/kernel"} <= flat.keys()
    assert {"MAPHead_0/LayerNorm_0/scale"} <= flat.keys()
    assert {"MAPHead_0/MultiHeadDotProductAttention_0/out/kernel"} <= flat.keys()
    assert_same(from_google(flat), params)


def test_names_of_big_vision_before_2022() -> None:
    """Positions were the encoder's, and attention pooling had no module of its own."""
    flat = {name.removeprefix("MAPHead_0/"): array for name, array in to_google(_small()).items()}
    flat["Transformer/pos_embedding"] = flat.pop("Transformer/posembed_input/pos_embedding")
    assert_same(from_google({f"params/{name}": array for name, array in flat.items()}), _small())
    message = refusal(from_google, flat | {"pos_embedding": flat["Transformer/pos_embedding"]})
    assert "second name for pos_embedding" in message


@pytest.mark.parametrize("size", [(24, 24), (24, 40)], ids=["square", "not square"])
@pytest.mark.parametrize("is_old", [True, False])
def test_a_class_token_without_a_position(tmp_path: Path, size: Any, is_old: bool) -> None:
    """big_vision's pool_type="tok" puts the class token before patches that have positions."""
    config = ModelConfig(
        "ViT-mu/8", image_size=size, num_classes=5, depth=2, pooling="token"
    ).completed()
    params = random_params(config)
    params["pos_embedding"][:, 0] = 0
    flat = to_google(params)
    name = "Transformer/posembed_input/pos_embedding"
    flat["Transformer/pos_embedding" if is_old else "pos_embedding"] = flat.pop(name)[:, 1:]
    np.savez(tmp_path / "tok.npz", **{f"params/{name}": array for name, array in flat.items()})
    weights = open_weights(tmp_path / "tok.npz", None if size == (24, 24) else size)
    assert weights.model.pooling == "token" and weights.model.input_size == size
    assert_same(weights.params, params)
    # At another size of images the positions are resized, that of the class token stays.
    larger = dataclasses.replace(config, image_size=48)
    adapted = np.asarray(params_for(weights, larger)[0]["pos_embedding"])
    assert adapted.shape[1] == 37 and not adapted[0, 0].any()


def test_depth_order_is_that_of_the_numbers() -> None:
    params = _small(depth=12)
    flat = dict(sorted(to_google(params).items()))  # 10 and 11 sort before 2
    assert_same(from_google(flat), params)


def _without(flat: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {name: array for name, array in flat.items() if part not in name}


# Numbering and prefixes.


def test_linen_numbering_and_top_level_positions() -> None:
    flat, _ = _released("vit_token")
    linen = _as_linen(flat)
    linen["pos_embedding"] = linen.pop("Transformer/posembed_input/pos_embedding")
    assert "Transformer/encoderblock_0/LayerNorm_1/scale" in linen
    assert_same(from_google(linen), from_google(flat))


@pytest.mark.parametrize("depth", [1, 12])
@pytest.mark.parametrize("number", [_as_linen, dict], ids=["linen", "released"])
def test_scanned_blocks_of_big_vision(number: Any, depth: int) -> None:
    params = _small(depth=depth)
    flat = number(to_google(params))
    scanned = _without(flat, "encoderblock_")
    for name in [name for name in flat if "encoderblock_0/" in name]:
        blocks = [flat[name.replace("block_0", f"block_{i}")] for i in range(depth)]
        scanned[name.replace("block_0", "block")] = np.stack(blocks)
    assert len([name for name in scanned if "encoderblock/" in name]) == 16
    assert_same(from_google(scanned), params)
    assert_same(from_google({f"params/{name}": array for name, array in scanned.items()}), params)


def test_bfloat16_stays_bfloat16() -> None:
    flat = {name: a.astype(ml_dtypes.bfloat16) for name, a in to_google(_small()).items()}
    params = from_google(flat)
    kernel = np.asarray(params["blocks"]["attention"]["query"]["kernel"])
    assert kernel.dtype == ml_dtypes.bfloat16
    name = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel"
    np.testing.assert_array_equal(kernel[1], flat[name])


def test_blocks_of_two_types_meet_in_float32() -> None:
    flat = to_google(_small())
    expected = {name: array.copy() for name, array in flat.items()}
    first = "Transformer/encoderblock_0/LayerNorm_0/scale"
    flat[first] = flat[first].astype(np.float16)
    expected[first] = flat[first].astype(np.float32)
    assert_same(from_google(flat), from_google(expected))


@pytest.mark.parametrize("prefix", ["opt/target/", "params/"])
def test_prefixes(prefix: Any) -> None:
    flat, _ = _released("vit_token")
    prefixed = {prefix + name: array for name, array in flat.items()}
    assert_same(from_google(prefixed), from_google(flat))


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("opt/target/", ["opt/state/step", "opt/state/param_states/cls/momentum"]),
        ("params/", ["opt/0/mu/cls", "opt/2/count", "opt/params/cls", "extra/step", "chrono/t"]),
    ],
)
def test_what_a_training_run_saves_is_left_out_beside_its_prefix_only(
    prefix: Any, others: list[str]
) -> None:
    flat, _ = _released("vit_token")
    state = {name: np.zeros((3,) * i) for i, name in enumerate(others)}
    prefixed = {prefix + name: array for name, array in flat.items()}
    assert_same(from_google(prefixed | state), from_google(flat))
    message = refusal(from_google, flat | state)
    assert message.startswith(f"{len(others)} names ")
    listed = sorted(f"{name} {array.shape}" for name, array in state.items())
    assert ", ".join(listed) in message


def test_a_name_outside_the_prefix_is_not_understood() -> None:
    flat, _ = _released("vit_token")
    prefixed = {f"params/{name}": array for name, array in flat.items()}
    message = refusal(from_google, prefixed | {"cls": flat["cls"]})
    assert message.startswith("1 names ") and ": cls (1, 1, 48); " in message


# Refusals.


def test_every_name_that_is_not_understood_is_listed_with_its_shape() -> None:
    flat, _ = _released("vit_token")
    strange = {
        "Transformer/encoderblock_0/LayerNorm_7/scale": (48,),
        "Transformer/encoderblock_01/LayerNorm_0/scale": (),
        "Transformer/encoderblock/LayerNorm_7/scale": (2, 48),
        "head/gamma": (1, 2),
        "images": (4, 32, 32, 3),
    }
    message = refusal(from_google, flat | {name: np.zeros(s) for name, s in strange.items()})
    assert message.startswith("5 names")
    assert all(f"{name} {shape}" in message for name, shape in strange.items())


def test_another_architecture() -> None:
    names = ["resnet/root_block/conv2d/kernel", "blocks.0.attn.qkv.weight"]
    message = refusal(from_google, {name: np.zeros((1, 1, 3, 8)) for name in names})
    assert all(f"{name} (1, 1, 3, 8)" in message for name in names)


def test_a_gap_in_the_blocks_is_an_error() -> None:
    flat = _without(to_google(_small(depth=4)), "encoderblock_1/")
    assert "encoderblock_1 is missing" in refusal(from_google, flat)


def test_an_incomplete_block_is_an_error() -> None:
    flat = to_google(_small(depth=3))
    del flat["Transformer/encoderblock_2/MlpBlock_3/Dense_0/bias"]
    del flat["Transformer/encoderblock_0/LayerNorm_2/bias"]
    message = refusal(from_google, flat)
    assert "encoderblock_2: mlp/dense1/bias" in message
    assert "encoderblock_0: norm2/bias" in message


def test_blocks_of_different_shapes_are_an_error() -> None:
    flat = to_google(_small())
    flat["Transformer/encoderblock_1/LayerNorm_0/scale"] = np.ones(9, np.float32)
    assert "blocks/norm1/scale has different shapes in different blocks: (4,), (9,)" in refusal(
        from_google, flat
    )


def test_two_names_for_one_parameter_are_an_error() -> None:
    flat, _ = _released("vit_token")
    extra = {"pos_embedding": flat["Transformer/posembed_input/pos_embedding"]}
    assert "second name for pos_embedding" in refusal(from_google, flat | extra)
    extra = {"Transformer/encoderblock_1/LayerNorm_1/bias": np.zeros(48, np.float32)}
    assert "second name for blocks/norm2/bias" in refusal(from_google, flat | extra)
    extra = {"Transformer/encoderblock/LayerNorm_2/bias": np.zeros((2, 48), np.float32)}
    message = refusal(from_google, flat | extra)
    assert "blocks/norm2/bias both block by block and stacked" in message


def test_parameters_without_a_google_name_are_listed() -> None:
    params = _small() | {"stem": {"kernel": np.zeros(1)}, "tail": np.zeros(1)}
    assert "no name for stem/kernel, tail" in refusal(to_google, params)
