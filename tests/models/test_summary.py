"""What a model shows of itself: a short card, not its arrays."""

import dataclasses

import jax
import pytest
from flax import nnx

import vit_jax
from tests.small_models import SMALL
from vit_jax.models.functional import abstract_model
from vit_jax.models.model import Model
from vit_jax.preprocessing import PreprocessingConfig


@pytest.fixture
def model() -> Model:
    crop = PreprocessingConfig(resize="short_side", short_side=18, antialias=True)
    # Not drawn: shapes are enough.
    return abstract_model(dataclasses.replace(SMALL, preprocessing=crop))


def test_a_model_s_text(model: Model) -> None:
    model.class_names = ("ant", "bee", "cat", "dog", "two\nlines")
    shown = repr(model)
    assert shown.splitlines()[0] == "ViT-mu/8"
    assert all(len(line) < 120 for line in shown.splitlines()) and "Param" not in shown
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))
    for words in (
        f"parameters     {count:,}\n",
        "float [batch, 16, 16, 3]",
        "5: ant; bee; cat; dog; two\\u000alines",
        "shorter side 18, crop of 16x16, bilinear, antialiased",
        "mean 0.5, 0.5, 0.5",
    ):
        assert words in shown
    assert str(model) == shown


def test_a_model_s_table(model: Model) -> None:
    model.class_names = ("<script>", "a & b", "c", "d", "e")
    shown = model._repr_html_()
    assert shown.startswith("<table>") and shown.endswith("</table>")
    assert "&lt;script&gt;; a &amp; b" in shown and "<script>" not in shown


def test_published_numbers_of_parameters() -> None:
    """86.6 million, as timm lists its ViT-B/16 with 1,000 classes."""
    model = nnx.eval_shape(lambda: vit_jax.create_model("ViT-B/16", num_classes=1000))
    assert "86,567,656" in repr(model) and "1,000" in repr(model)
    assert "returns features" in repr(
        nnx.eval_shape(lambda: vit_jax.create_model("Mixer-B/16", num_classes=0))
    )
