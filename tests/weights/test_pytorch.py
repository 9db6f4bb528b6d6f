import numpy as np
import pytest

from tests.small_models import assert_same, refusal
from vit_jax.weights.layouts.pytorch import from_pytorch, module, to_pytorch

NAMES = {
    "token": ("cls", "plain"),
    **module("stem.conv", "embedding", "conv"),
    **module("layer.{}.norm", "blocks/norm1", "norm"),
    **module("layer.{}.q", "blocks/query", "split", "split_bias"),
    **module("layer.{}.proj", "blocks/out", "merge"),
    **module("fc", "head", "linear"),
}
SHAPES = {
    "token": (1, 1, 6),
    "stem.conv.weight": (6, 3, 2, 4),
    "stem.conv.bias": (6,),
    "layer.{}.norm.weight": (6,),
    "layer.{}.norm.bias": (6,),
    "layer.{}.q.weight": (6, 6),
    "layer.{}.q.bias": (6,),
    "layer.{}.proj.weight": (6, 6),
    "layer.{}.proj.bias": (6,),
    "fc.weight": (5, 6),
    "fc.bias": (5,),
}


def _file(depth: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name.format(i): rng.normal(size=shape).astype(np.float32)
        for name, shape in SHAPES.items()
        for i in range(depth if "{}" in name else 1)
    }


def test_each_kind_of_array_value_by_value() -> None:
    file = _file()
    params = from_pytorch(file, NAMES, heads=3)
    np.testing.assert_array_equal(params["cls"], file["token"])
    np.testing.assert_array_equal(params["embedding"]["bias"], file["stem.conv.bias"])
    kernel = np.asarray(params["embedding"]["kernel"])
    assert kernel.shape == (2, 4, 3, 6)
    for row, column, channel, out in np.ndindex(kernel.shape):
        value = file["stem.conv.weight"][out, channel, row, column]
        assert kernel[row, column, channel, out] == value
    kernel = np.asarray(params["head"]["kernel"])
    assert kernel.shape == (6, 5)
    assert all(kernel[i, o] == file["fc.weight"][o, i] for i, o in np.ndindex(kernel.shape))
    blocks = params["blocks"]
    query, out = np.asarray(blocks["query"]["kernel"]), np.asarray(blocks["out"]["kernel"])
    assert (query.shape, out.shape) == ((2, 6, 3, 2), (2, 3, 2, 6))
    for block, width, head, channel in np.ndindex(query.shape):
        row = head * 2 + channel
        assert query[block, width, head, channel] == file[f"layer.{block}.q.weight"][row, width]
        assert out[block, head, channel, width] == file[f"layer.{block}.proj.weight"][width, row]
        bias = np.asarray(blocks["query"]["bias"])
        assert bias[block, head, channel] == file[f"layer.{block}.q.bias"][row]
    for block in range(2):
        norm = np.asarray(blocks["norm1"]["scale"])
        np.testing.assert_array_equal(norm[block], file[f"layer.{block}.norm.weight"])
        bias = np.asarray(blocks["out"]["bias"])
        np.testing.assert_array_equal(bias[block], file[f"layer.{block}.proj.bias"])


@pytest.mark.parametrize("depth", [1, 12])
@pytest.mark.parametrize("heads", [1, 3])
def test_there_and_back_bit_for_bit(depth: int, heads: int) -> None:
    file = _file(depth)
    params = from_pytorch(dict(sorted(file.items())), NAMES, heads)  # 10 and 11 sort before 2
    back = to_pytorch(params, NAMES)
    assert_same(back, file)
    assert all(array.flags.c_contiguous for array in back.values())


def test_names_that_are_not_understood_are_all_listed_with_shapes() -> None:
    strange = {"gamma": (), "layer.0.q.weight_g": (6,), "layer.01.norm.bias": (6,), "fc": (2, 3)}
    message = refusal(
        from_pytorch, _file() | {name: np.zeros(s) for name, s in strange.items()}, NAMES, 3
    )
    assert message.startswith("4 names ")
    assert all(f"{name} {shape}" in message for name, shape in strange.items())


def test_shapes_that_cannot_be_turned_are_all_listed() -> None:
    shapes = {"layer.0.q.weight": (7, 6), "layer.1.q.bias": (), "stem.conv.weight": (6, 12)}
    wrong = {name: np.zeros(shape) for name, shape in shapes.items()}
    message = refusal(from_pytorch, _file() | wrong, NAMES, 3)
    assert "a ViT with 3 attention heads" in message
    assert all(f"{name} {array.shape}" in message for name, array in wrong.items())


def test_blocks_that_are_incomplete_or_differ_in_shape() -> None:
    file = _file(depth=4)
    del file["layer.2.q.bias"], file["layer.3.norm.weight"]
    message = refusal(from_pytorch, file, NAMES, 3)
    assert "block 2: blocks/query/bias" in message
    assert "block 3: blocks/norm1/scale" in message
    without = {name: array for name, array in _file(4).items() if "layer.1." not in name}
    message = refusal(from_pytorch, without, NAMES, 3)
    assert message.count("block 1: ") == 6
    file = _file() | {"layer.1.norm.weight": np.zeros(9, np.float32)}
    assert "blocks/norm1/scale has different shapes in different blocks: (6,), (9,)" in refusal(
        from_pytorch, file, NAMES, 3
    )


def test_parameters_without_a_name_are_all_listed() -> None:
    params = {"cls": np.zeros((1, 1, 6)), "stem": {"scale": np.zeros(1)}, "tail": np.zeros(1)}
    assert "no name for stem/scale, tail" in refusal(to_pytorch, params, NAMES)
