"""Several evaluations that are open together: what they share, and how they end early."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.small_models import SMALL, random_params, refusal
from vit_jax.data.loader import Loader
from vit_jax.evaluation.classification import ClassificationConfig
from vit_jax.evaluation.context import EvalContext
from vit_jax.evaluation.opening import Evaluations, open_evaluations
from vit_jax.inference import passes
from vit_jax.inference.requests import Interrupted
from vit_jax.parallel.mesh import MeshConfig, make_mesh

MODEL = dataclasses.replace(SMALL, num_classes=10)
DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def params() -> Any:
    return random_params(MODEL)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def opened(data_dir: Path) -> Any:
    def make(class_names: Any = DIGITS, batch_size: int = 16, **evals: Any) -> Evaluations:
        context = EvalContext(
            class_names, dataset="digits", data_dir=str(data_dir), batch_size=batch_size
        )
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        return open_evaluations(evals, model=MODEL, mesh=mesh, context=context)

    return make


@pytest.fixture
def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch size of each loader that is started."""
    sizes: list[int] = []

    class Counted(Loader):
        def __init__(self, chunks: Any, *args: Any, **options: Any) -> None:
            sizes.append(chunks.batch_size)
            super().__init__(chunks, *args, **options)

    monkeypatch.setattr(passes, "Loader", Counted)
    return sizes


VAL, TEST = ClassificationConfig("train[:40]"), ClassificationConfig("test[:30]")


def test_evaluations_of_the_same_data_share_a_pass(
    opened: Any, params: Any, batch_sizes: list[int]
) -> None:
    alone = dict(opened(test=TEST).run(["test"], params))
    others = [
        dataclasses.replace(TEST, classes="subset"),
        dataclasses.replace(TEST, batch_size=12, every_steps=3),
    ]
    del batch_sizes[:]
    with opened(a=TEST, b=others[0], c=VAL, d=others[1]) as evaluations:
        found = dict(evaluations.run(evaluations.names, params))
    # The smallest batch that one of them asks for, and that of the other data.
    assert batch_sizes == [12, 16]
    assert list(found) == ["a", "b", "c", "d"]
    for name in ("a", "b", "d"):
        assert found[name].values == pytest.approx(alone["test"].values, rel=1e-5)
    assert found["c"].values["examples"] == 40


def test_only_those_that_are_due(opened: Any, params: Any, batch_sizes: list[int]) -> None:
    with opened(val=VAL, test=TEST) as evaluations:
        assert [name for name, _ in evaluations.run(["test"], params)] == ["test"]
        assert len(batch_sizes) == 1
        assert [name for name, _ in evaluations.run([], params)] == []


def test_what_was_yielded_before_it_was_stopped_is_complete(opened: Any, params: Any) -> None:
    with opened(val=VAL, test=TEST) as evaluations:
        whole = dict(evaluations.run(["val", "test"], params))
        asked = 0

        def stop_in_the_second() -> bool:
            nonlocal asked
            asked += 1
            return asked > 3 + 1

        found = {}
        with pytest.raises(Interrupted):
            for name, scores in evaluations.run(
                ["val", "test"], params, should_stop=stop_in_the_second
            ):
                found[name] = scores
        assert found == {"val": whole["val"]}
        assert dict(evaluations.run(["test"], params)) == {"test": whole["test"]}


def test_progress_counts_the_examples_of_each_source(opened: Any, params: Any) -> None:
    seen: list[tuple[str, int, int]] = []
    with opened(val=VAL, test=TEST) as evaluations:
        list(evaluations.run(evaluations.names, params, progress=lambda *done: seen.append(done)))
    counts = {"digits/train[:40]": [16, 32, 40], "digits/test[:30]": [16, 30]}
    for source, done in counts.items():
        assert [d for s, d, _ in seen if s == source] == done
        assert {total for s, _, total in seen if s == source} == {done[-1]}


def test_what_is_known_of_scores(opened: Any) -> None:
    evaluations = opened(val=VAL, test=TEST)
    assert evaluations.names == ("val", "test")
    assert evaluations.score_names("val") == ("top1", "top5", "loss", "examples")
    assert evaluations.lower_is_better("val", "loss")
    assert not evaluations.lower_is_better("val", "top1")
    assert {n: len(s) for n, s in evaluations.sources().items()} == {"val": 40, "test": 30}


def test_names_decide_which_class_is_which(opened: Any, params: Any) -> None:
    """A model whose classes stand in another order, the head's columns with them."""
    order = np.random.default_rng(0).permutation(10)
    names = tuple(DIGITS[i] for i in order)
    permuted = params | {"head": {k: v[..., order] for k, v in params["head"].items()}}
    expected = dict(opened(test=TEST).run(["test"], params))["test"].values
    evaluations = opened(names, test=TEST, subset=dataclasses.replace(TEST, classes="subset"))
    for _, scores in evaluations.run(evaluations.names, permuted):
        assert scores.values == pytest.approx(expected, rel=1e-5)


def test_classes_that_do_not_match_name_the_key_that_helps(opened: Any, tmp_path: Path) -> None:
    names = ("zero", *DIGITS[1:])
    message = refusal(opened, names, val=VAL)
    assert "'0'" in message and "'zero'" in message
    assert "--config.evals.val.class_map=FILE" in message
    (tmp_path / "map.txt").write_text("0 -> zero\n")
    opened(names, val=dataclasses.replace(VAL, class_map=str(tmp_path / "map.txt")))


def test_a_batch_size_below_one_is_refused() -> None:
    assert "batch_size must be at least 1, not 0" in refusal(
        ClassificationConfig, "test", batch_size=0
    )
