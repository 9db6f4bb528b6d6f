import dataclasses
import functools
import io
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from tests.eight_devices import EightDevices
from tests.small_models import small_vit
from vit_jax.data.sources.records import Record
from vit_jax.errors import UserError
from vit_jax.evaluation.classification import Classification, ClassificationConfig
from vit_jax.evaluation.context import EvalContext
from vit_jax.evaluation.opening import Evaluations
from vit_jax.inference.passes import Pass
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import apply_model, init_params
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.preprocessing import PreprocessingConfig

COUNT = 21
PREPROCESSING = PreprocessingConfig(mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.25))


class Images(list[Any]):
    """A data set in memory; the pixels of PNG are exact, so that no decoder has a say."""

    name = "images"
    class_names = ()
    max_labels: int | None = None

    def __init__(self, classes: int, broken: tuple[int, ...] = ()) -> None:
        rng = np.random.default_rng(1)
        self.pixels = rng.integers(0, 256, (COUNT, 8, 12, 3), np.uint8)
        self.labels: Any = rng.integers(0, classes, COUNT)
        super().__init__(
            Record(b"junk" if i in broken else png(image), int(label), f"images/{i}.png")
            for i, (image, label) in enumerate(zip(self.pixels, self.labels, strict=True))
        )


class LabelSets(Images):
    """The same images with none to three labels each."""

    max_labels = 5

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        rng = np.random.default_rng(2)
        self.labels = [tuple(rng.permutation(classes)[: i % 4].tolist()) for i in range(COUNT)]
        self[:] = [r._replace(label=ls) for r, ls in zip(self, self.labels, strict=True)]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make_model(classes: int) -> ModelConfig:
    return small_vit(
        name="ViT-B/4", image_size=(8, 12), num_classes=classes, depth=1, head_bias=-1.0
    )


@functools.cache
def make_params(model: ModelConfig) -> Any:
    """With a head that is not zero, so that the classes differ."""
    params = jax.jit(init_params, static_argnums=(0, 1))(model, 0)
    shape = params["head"]["kernel"].shape
    params["head"]["kernel"] = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return params


@functools.cache
def jitted(model: ModelConfig) -> Any:
    return jax.jit(apply_model(model))


class Evaluation:
    """One evaluation of one source, as `open_evaluations` makes it."""

    def __init__(
        self,
        model: Any,
        source: Any,
        *,
        batch_size: Any = 8,
        loss: Any = "softmax",
        on_error: Any = "stop",
        devices: Any = 1,
    ) -> None:
        mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
        evaluator = Classification(source, None, loss)
        requests = {("test", "test"): evaluator.requests["test"]}
        model = dataclasses.replace(model, preprocessing=PREPROCESSING)
        each = Pass(model, mesh, requests, batch_size=batch_size, workers=0, on_error=on_error)
        self.evaluations = Evaluations({"test": evaluator}, [each], EvalContext(None))

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        self.evaluations.close()

    def evaluate(self, params: Any) -> dict[str, float]:
        ((name, scores),) = self.evaluations.run(["test"], params)
        assert name == "test"
        return scores.values


evaluation = Evaluation


def image_by_image(
    model: Any, params: Any, source: Any, loss: str = "softmax", leave_out: Any = ()
) -> dict[str, float]:
    """The same scores in NumPy, from one example at a time."""
    apply = jitted(model)
    hits, hits5, losses = [], [], []
    for i, (image, label) in enumerate(zip(source.pixels, source.labels, strict=True)):
        if i in leave_out:
            continue
        values = (image / 255 - np.array(PREPROCESSING.mean)) / np.array(PREPROCESSING.std)
        logits = np.asarray(apply(params, values[None].astype(np.float32))[0], np.float64)
        right = np.atleast_1d(label).astype(int)
        if not len(right):
            continue
        rank = int((logits > logits[right].max()).sum())
        hits.append(rank < 1)
        hits5.append(rank < 5)
        if loss == "softmax":
            losses.append(np.log(np.exp(logits).sum()) - logits[right].mean())
        else:
            signs = np.where(np.isin(np.arange(len(logits)), right), 1, -1)
            losses.append(np.log1p(np.exp(-signs * logits)).sum())
    scores = {"top1": np.mean(hits), "top5": np.mean(hits5), "loss": np.mean(losses)}
    return scores | {"examples": len(hits)}


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("batch_size", [8, 21])
def test_every_example_counts_once(batch_size: int, loss: str) -> None:
    model, source = make_model(11), Images(11)
    params = make_params(model)
    expected = image_by_image(model, params, source, loss)
    assert 0 < expected["top1"] < expected["top5"] < 1
    with evaluation(model, source, batch_size=batch_size, loss=loss) as classification:
        assert classification.evaluate(params) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_any_of_several_labels_is_right_and_none_counts_not(loss: str) -> None:
    model, source = make_model(11), LabelSets(11)
    params = make_params(model)
    expected = image_by_image(model, params, source, loss)
    assert 0 < expected["top1"] < expected["top5"] < 1
    assert expected["examples"] == 15  # Every fourth of the 21 has no label.
    with evaluation(model, source, loss=loss) as classification:
        assert classification.evaluate(params) == pytest.approx(expected, rel=1e-5)


def test_evaluations_follow_each_other() -> None:
    model, source = make_model(11), Images(11)
    first = make_params(model)
    second = first | {"head": jax.tree.map(np.zeros_like, first["head"])}
    with evaluation(model, source) as classification:
        scores = [classification.evaluate(params) for params in (first, second, first)]
    assert scores[0] == scores[2]
    # A head of zeros: all classes are alike.
    assert scores[1]["loss"] == pytest.approx(np.log(11), rel=1e-6)


@pytest.mark.parametrize("classes", [1, 4, 5])
def test_of_up_to_five_classes_top5_is_certain(classes: int) -> None:
    model, source = make_model(classes), Images(classes)
    params = make_params(model)
    with evaluation(model, source) as classification:
        found = classification.evaluate(params)
    assert found == pytest.approx(image_by_image(model, params, source), rel=1e-5, abs=1e-7)
    assert found["top5"] == 1


def test_unreadable_images_are_left_out() -> None:
    broken = (0, 7, 20)
    model, source = make_model(11), Images(11, broken)
    params = make_params(model)
    with evaluation(model, source, on_error="skip") as classification:
        found = [classification.evaluate(params) for _ in range(2)]
    expected = image_by_image(model, params, source, leave_out=broken)
    assert expected["examples"] == 18
    assert found[0] == found[1] == pytest.approx(expected, rel=1e-5)


def test_an_unreadable_image_ends_it_at_every_call() -> None:
    model = make_model(11)
    with evaluation(model, Images(11, (7,))) as classification:
        for _ in range(2):
            with pytest.raises(UserError, match=r"^images/7.png: cannot read the image"):
                classification.evaluate(make_params(model))


def test_data_without_one_readable_image_is_an_error() -> None:
    model = make_model(11)
    with (
        evaluation(model, Images(11, tuple(range(COUNT))), on_error="skip") as classification,
        pytest.raises(UserError, match="images: no image can be read"),
    ):
        classification.evaluate(make_params(model))


def test_closing_what_was_never_used() -> None:
    with evaluation(make_model(11), Images(11)):
        pass


def test_an_evaluation_every_0_steps_is_refused() -> None:
    with pytest.raises(UserError, match="every_steps must be at least 1, not 0"):
        ClassificationConfig("test", every_steps=0)


def test_eight_devices_give_the_same_scores(eight_devices: EightDevices) -> None:
    eight_devices.run(check_eight_devices)


def check_eight_devices() -> None:
    """The oracle and an evaluation on all devices of a process that has eight."""
    assert len(jax.devices()) == 8
    broken = (3,)
    model, source = make_model(11), Images(11, broken)
    params = make_params(model)
    # Five records in the last batch of two rows a device: five devices have rows of weight 0 alone.
    with evaluation(model, source, batch_size=16, on_error="skip", devices=8) as classification:
        found = classification.evaluate(params)
    assert found == pytest.approx(image_by_image(model, params, source, leave_out=broken), rel=1e-5)
    sets = LabelSets(11)
    with evaluation(model, sets, batch_size=16, devices=8) as classification:
        found = classification.evaluate(params)
    assert found == pytest.approx(image_by_image(model, params, sets), rel=1e-5)
