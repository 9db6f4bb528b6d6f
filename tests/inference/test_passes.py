"""A pass: each example once, in record order, for several requests in one program."""

import dataclasses
import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.small_models import SMALL, random_params
from vit_jax.data.sources.records import Record
from vit_jax.errors import UserError
from vit_jax.inference import passes
from vit_jax.inference.memory import OutOfMemory, ProgramMemory
from vit_jax.inference.passes import Pass
from vit_jax.inference.requests import Interrupted, Request
from vit_jax.models.functional import apply_model
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.preprocessing import PreprocessingConfig, normalize

COUNT = 21
BROKEN = (0, 9, 20)


class Images(list[Any]):
    """PNG files in memory, some of which are junk; the labels are the positions."""

    name, class_names, max_labels = "images", (), None

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 16, 16, 3), np.uint8)
        super().__init__(
            Record(b"junk" if i in broken else png(image), i, f"images/{i}.png")
            for i, image in enumerate(self.pixels)
        )

    def fingerprint(self) -> str:
        return self.name


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def params() -> Any:
    return random_params(SMALL)


def all_rows(batch: Any) -> Any:
    return {"logits": batch["logits"], "labels": batch["labels"]}


def one_pass(
    requests: Any, *, batch_size: Any = 8, on_error: Any = "stop", model: Any = SMALL
) -> Any:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return Pass(model, mesh, requests, batch_size=batch_size, workers=0, on_error=on_error)


@pytest.mark.parametrize("batch_size", [8, 21, 64])
def test_rows_come_in_record_order_without_padding(batch_size: Any, params: Any) -> None:
    source = Images()
    with one_pass({"all": Request(source, rows=all_rows)}, batch_size=batch_size) as each:
        (answer,) = each.run(params).values()
    np.testing.assert_array_equal(answer.rows["labels"], np.arange(COUNT))
    images = normalize(source.pixels, SMALL.preprocessing)
    expected = jax.jit(apply_model(SMALL))(params, images)
    np.testing.assert_allclose(answer.rows["logits"], expected, rtol=2e-4, atol=2e-4)
    assert answer.positions.tolist() == list(range(COUNT)) and answer.sums == {}


def test_unreadable_images_are_left_out(params: Any) -> None:
    requests = {
        "rows": Request(Images(BROKEN), rows=all_rows),
    }
    with one_pass(requests, on_error="skip") as each:
        first, second = each.run(params)["rows"], each.run(params)["rows"]
    readable = [i for i in range(COUNT) if i not in BROKEN]
    for answer in (first, second):
        assert answer.rows["labels"].tolist() == readable
        assert answer.positions.tolist() == readable
    with one_pass(requests) as each, pytest.raises(UserError, match=r"^images/0.png: "):
        each.run(params)


def test_a_stream_keeps_the_places_of_unreadable_images(params: Any) -> None:
    with one_pass({"all": Request(Images(BROKEN), rows=all_rows)}, on_error="ignore") as each:
        batches = list(each.stream(params))
    assert [batch.start for batch in batches] == [0, 8, 16]
    readable = np.concatenate([batch.readable for batch in batches])
    assert np.flatnonzero(~readable).tolist() == list(BROKEN)
    labels = np.concatenate([batch.rows["all"]["labels"] for batch in batches])
    assert labels.tolist() == list(range(COUNT))


def test_several_requests_share_one_run_and_one_program(
    params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []

    def traced_apply(config: Any) -> Any:
        apply = apply_model(config)

        def call(*args: Any, **options: Any) -> Any:
            traced.append(options["capture"])
            return apply(*args, **options)

        return call

    monkeypatch.setattr(passes, "apply_model", traced_apply)
    source, read = Images(), []

    class Counted(Images):
        def __getitem__(self, index: Any) -> Any:
            read.append(index)
            return super().__getitem__(index)

    source = Counted()
    requests = {
        "sums": Request(source, sums=lambda batch: {"n": batch["weights"].sum()}),
        "features": Request(
            source, outputs=("features",), rows=lambda batch: {"x": batch["features"]}
        ),
        "tokens": Request(
            source,
            outputs=("tokens", "features"),
            sums=lambda batch: {"mean": (batch["weights"][:, None, None] * batch["tokens"]).sum()},
            rows=lambda batch: {"norm": jnp.linalg.norm(batch["features"], axis=-1)},
        ),
    }
    with one_pass(requests) as each:
        answers = each.run(params)
        again = each.run(params)
    assert traced == [["features", "tokens"]]
    assert answers["sums"].sums == again["sums"].sums == {"n": COUNT}
    norms = np.linalg.norm(answers["features"].rows["x"], axis=-1)
    np.testing.assert_allclose(answers["tokens"].rows["norm"], norms, rtol=1e-5)
    # The loader may have begun the next run already.
    assert read[: 2 * COUNT].count(5) == 2


def test_only_some_requests(params: Any) -> None:
    source = Images()
    requests = {
        name: Request(source, sums=lambda batch: {"n": batch["weights"].sum()}) for name in "ab"
    }
    with one_pass(requests) as each:
        assert list(each.run(params, ["b"])) == ["b"]
        assert list(each.run(params)) == ["a", "b"]


def test_another_preprocessing_than_the_models(params: Any) -> None:
    other = PreprocessingConfig(mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))
    source = Images()
    with one_pass({"all": Request(source, rows=all_rows, preprocessing=other)}) as each:
        found = each.run(params)["all"].rows["logits"]
    expected = jax.jit(apply_model(SMALL))(params, normalize(source.pixels, other))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_it_stops_before_a_batch_and_starts_anew(params: Any) -> None:
    with one_pass({"all": Request(Images(), rows=all_rows)}) as each:
        asked = 0

        def stop_at_the_third() -> bool:
            nonlocal asked
            asked += 1
            return asked == 3

        with pytest.raises(Interrupted):
            each.run(params, should_stop=stop_at_the_third)
        assert asked == 3
        done: list[int] = []
        answer = each.run(params, progress=done.append)["all"]
    assert answer.rows["labels"].tolist() == list(range(COUNT))
    assert done == [8, 8, 5]


# Memory.


def room_for(rows: int, calls: list[int]) -> Any:
    """A compiler that knows devices with room for so many rows."""

    def check(memory: ProgramMemory, params: Any, mesh: Any) -> None:
        # What grows with the batch: images of 16 x 16 x 3 bytes, a label and a weight.
        arrays = jax.tree.leaves(params)
        batch = (memory.arguments - sum(x.nbytes for x in arrays)) // (16 * 16 * 3 + 4 + 4)
        calls.append(batch)
        if batch > rows:
            raise OutOfMemory("4 GiB")

    return check


def test_a_batch_that_nobody_chose_is_halved_until_it_fits(
    params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(passes, "check_memory", room_for(5, calls))
    monkeypatch.setattr(passes, "IMAGES_PER_DEVICE", 16)
    with one_pass({"all": Request(Images(), rows=all_rows)}, batch_size=None) as each:
        assert each.batch_size == 16
        each.compile(params)
        assert calls == [16, 8, 4] and each.batch_size == 4
        labels = each.run(params)["all"].rows["labels"]
    assert labels.tolist() == list(range(COUNT)) and calls == [16, 8, 4]


def test_what_does_not_fit_at_the_first_run_is_halved_too(
    params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = jax.block_until_ready

    def block(outputs: Any) -> Any:
        if len(jax.tree.leaves(outputs)[0]) > 8:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory: 7 GiB.\nMore")
        return real(outputs)

    monkeypatch.setattr(jax, "block_until_ready", block)
    with one_pass({"all": Request(Images(), rows=all_rows)}, batch_size=None) as each:
        assert each.batch_size == COUNT
        labels = each.run(params)["all"].rows["labels"]
        assert each.batch_size == 5 + 5 - 5 or each.batch_size <= 8
    assert labels.tolist() == list(range(COUNT))
    with (
        one_pass({"all": Request(Images(), rows=all_rows)}, batch_size=16) as each,
        pytest.raises(OutOfMemory, match=r"^Out of memory: 7 GiB.$"),
    ):
        each.run(params)


def test_a_batch_that_was_chosen_stays(params: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "check_memory", room_for(5, []))
    with (
        one_pass({"all": Request(Images(), rows=all_rows)}, batch_size=8) as each,
        pytest.raises(OutOfMemory, match="4 GiB"),
    ):
        each.compile(params)


def test_one_image_that_does_not_fit_is_an_error(
    params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(passes, "check_memory", room_for(0, calls))
    with (
        one_pass({"all": Request(Images(), rows=all_rows)}, batch_size=None) as each,
        pytest.raises(OutOfMemory),
    ):
        each.compile(params)
    assert calls == [21, 10, 5, 2, 1]


def test_another_model_size_is_no_concern_of_the_pass(params: Any) -> None:
    headless = dataclasses.replace(SMALL, num_classes=0)
    own = {name: value for name, value in params.items() if name != "head"}
    with one_pass({"all": Request(Images(), rows=all_rows)}, model=headless) as each:
        assert each.run(own)["all"].rows["logits"].shape == (COUNT, headless.size.width)
