"""Names, shapes and places of Hugging Face's parameters, and the forms that its ViT lacks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.small_models import assert_same, random_params, refusal
from tests.weights.huggingface_files import CLASSIFIER, ENCODER, POOLER, drawn_file, small_model
from vit_jax.weights.files import open_weights, write_weights
from vit_jax.weights.layouts.huggingface import HUGGINGFACE, from_huggingface, to_huggingface


def test_each_value_has_its_place() -> None:
    file = drawn_file()
    params = from_huggingface(file, heads=2)
    blocks = params["blocks"]
    for block in range(2):
        layer = f"vit.encoder.layer.{block}"
        for part in ("query", "key", "value"):
            kernel, bias = (np.asarray(blocks["attention"][part][k]) for k in ("kernel", "bias"))
            assert (kernel.shape, bias.shape) == ((2, 32, 2, 16), (2, 2, 16))
            theirs = f"{layer}.attention.attention.{part}"
            for head in range(2):
                rows = slice(head * 16, head * 16 + 16)
                weight = file[f"{theirs}.weight"]
                np.testing.assert_array_equal(kernel[block, :, head], weight[rows].T)
                np.testing.assert_array_equal(bias[block, head], file[f"{theirs}.bias"][rows])
        out = np.asarray(blocks["attention"]["out"]["kernel"])
        assert out[block, 1, 3, 7] == file[f"{layer}.attention.output.dense.weight"][7, 19]
        for ours, theirs in (("dense1", "intermediate.dense"), ("dense2", "output.dense")):
            kernel = np.asarray(blocks["mlp"][ours]["kernel"])
            np.testing.assert_array_equal(kernel[block], file[f"{layer}.{theirs}.weight"].T)
        for ours, theirs in (("norm1", "layernorm_before"), ("norm2", "layernorm_after")):
            scale = np.asarray(blocks[ours]["scale"])
            np.testing.assert_array_equal(scale[block], file[f"{layer}.{theirs}.weight"])
    kernel = np.asarray(params["embedding"]["kernel"])
    projection = file["vit.embeddings.patch_embeddings.projection.weight"]
    assert kernel[2, 5, 1, 30] == projection[30, 1, 2, 5]
    assert np.asarray(params["head"]["kernel"])[9, 4] == file["classifier.weight"][4, 9]
    np.testing.assert_array_equal(
        params["pos_embedding"], file["vit.embeddings.position_embeddings"]
    )


def test_the_names_of_a_file_tell_the_layout() -> None:
    assert HUGGINGFACE.matches(CLASSIFIER, {}) and HUGGINGFACE.matches(ENCODER, {})
    assert HUGGINGFACE.matches(ENCODER, {"config.json": {"model_type": "vit"}})
    assert not HUGGINGFACE.matches(ENCODER, {"config.json": {"model_type": "dinov2"}})
    others = {"embedding/kernel", "patch_embed.proj.weight", "conv1.weight"}
    assert not HUGGINGFACE.matches(others, {})


@pytest.mark.parametrize(
    ("shapes", "changes"),
    [
        (CLASSIFIER, {}),
        (ENCODER, {"num_classes": 0}),
        (ENCODER | POOLER, {"num_classes": 0, "representation_size": 32}),
    ],
    ids=["classifier", "encoder", "encoder with pooler"],
)
def test_file_to_ours_and_back_bit_for_bit(
    shapes: Mapping[str, Any], changes: dict[str, Any]
) -> None:
    file, model = drawn_file(shapes), small_model(**changes)
    assert_same(to_huggingface(from_huggingface(file, 2), model), file)
    params = random_params(model)
    assert_same(from_huggingface(to_huggingface(params, model), 2), params)


# Refusals.


def test_names_that_are_not_a_vits_are_listed_with_shapes() -> None:
    strange = {"vit.embeddings.mask_token": (1, 1, 32), "vit.encoder.layer.0.lambda1": (32,)}
    message = refusal(from_huggingface, drawn_file(CLASSIFIER | strange), 2)
    assert message.startswith("2 names ")
    assert all(f"{name} {shape}" in message for name, shape in strange.items())


def test_a_pooler_that_the_classifier_takes_no_notice_of() -> None:
    pooler = {f"vit.{name}": shape for name, shape in POOLER.items()}
    message = refusal(from_huggingface, drawn_file(CLASSIFIER | pooler), 2)
    assert "vit.pooler.dense.weight (32, 32)" in message


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        ({"pooling": "gap"}, "pooling=gap"),
        ({"pooling": "gap_timm"}, "pooling=gap_timm"),
        ({"pooling": "attention"}, "pooling=attention"),
        ({"positions": "sincos2d"}, "positions=sincos2d"),
        ({"registers": 2}, "registers"),
        ({"representation_size": 8}, "representation layer before a head"),
    ],
)
def test_forms_that_hugging_face_lacks(tmp_path: Path, changes: dict[str, Any], form: str) -> None:
    model = small_model(**changes)
    path = tmp_path / "w.safetensors"
    message = refusal(write_weights, path, random_params(model), model, layout="huggingface")
    assert form in message and "--layout=google" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("without", ["embeddings.patch_embeddings.projection.weight", "embeddings"])
def test_a_file_of_another_transformer(tmp_path: Path, without: str) -> None:
    file = {name: array for name, array in drawn_file(ENCODER).items() if without not in name}
    file["embeddings.word_embeddings.weight"] = np.zeros((7, 32), np.float32)  # as of BERT
    save_file(file, tmp_path / "model.safetensors")
    message = refusal(open_weights, tmp_path)
    assert "embeddings.word_embeddings.weight (7, 32)" in message
    del file["embeddings.word_embeddings.weight"]
    save_file(file | drawn_file(POOLER), tmp_path / "model.safetensors")
    refusal(open_weights, tmp_path)
