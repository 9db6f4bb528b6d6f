"""Few-shot evaluation: its draws, its scores against scikit-learn's, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import vit_jax
from tests.data.pictures import encode, noise
from tests.small_models import refusal
from vit_jax.__main__ import main
from vit_jax.data.sources.open import open_source
from vit_jax.data.sources.records import Record
from vit_jax.errors import UserError
from vit_jax.evaluation.context import EvalContext, Opener
from vit_jax.evaluation.draws import draw_shots
from vit_jax.evaluation.evaluator import Scores
from vit_jax.evaluation.few_shot import FewShotConfig
from vit_jax.inference.features import features_of_source
from vit_jax.inference.requests import Answer
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import model_params
from vit_jax.runs.metrics import read_metrics
from vit_jax.weights.files import write_weights

MODEL = ModelConfig("ViT-Ti/4", image_size=8, num_classes=2, depth=2).completed()
TRAIN, TEST = "train[:700]", "test[:150]"


def test_draws_are_repeatable_and_fewer_shots_lie_within_more() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 200)
    first = draw_shots(labels, 10, seed=3, draw=0)
    assert first.shape == (5, 10)
    for label, rows in enumerate(first):
        assert len(set(rows.tolist())) == 10 and set(labels[rows]) == {label}
    np.testing.assert_array_equal(first, draw_shots(labels, 10, seed=3, draw=0))
    np.testing.assert_array_equal(first[:, :4], draw_shots(labels, 4, seed=3, draw=0))
    assert (first != draw_shots(labels, 10, seed=3, draw=1)).any()
    assert (first != draw_shots(labels, 10, seed=4, draw=0)).any()
    # One class has fewer images: what is drawn of the others stays.
    labels[np.flatnonzero(labels == 4)[::2]] = 5
    np.testing.assert_array_equal(first[:4], draw_shots(labels, 10, seed=3, draw=0)[:4])


# What `evaluate` says, from scikit-learn and the images that the file of draws names.


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model, whose features tell digits apart well enough."""
    path = tmp_path_factory.mktemp("weights") / "vit.npz"
    model = vit_jax.create_model("ViT-Ti/4", image_size=8, num_classes=2, depth=2, seed=0)
    write_weights(path, model_params(model), model.config)
    return path


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def evaluated(weights: Path, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Scores by evaluator, and the draws, of one command."""
    output = tmp_path_factory.mktemp("scores")
    command = [
        *("evaluate", f"--weights={weights}", "--dataset=digits", f"--data_dir={data_dir}"),
        *("--evaluator=few_shot,k_nearest,linear_probe", f"--split={TEST}"),
        *(f"--evaluator.train_split={TRAIN}", "--evaluator.draws=2", "--evaluator.seed=5"),
        *("--evaluator.shots=1,10,40", "--evaluator.l2=64", "--evaluator.k=10,"),
        *(f"--evaluator.draws_file={output / 'draws.json'}", f"--output={output / 'scores.json'}"),
    ]
    assert main(command) == 0
    rows = {row["evaluation"]: row for row in json.loads((output / "scores.json").read_text())}
    return rows, json.loads((output / "draws.json").read_text())


@pytest.fixture(scope="module")
def known(weights: Path, data_dir: Path) -> Any:
    model = vit_jax.load_model(weights=weights)
    sources = [open_source("digits", split, data_dir=str(data_dir)) for split in (TRAIN, TEST)]
    names = {sources[0][i].name: i for i in range(len(sources[0]))}
    return names, *(features_of_source(model, source) for source in sources)


def accuracy_of_scikit_learn(known: Any, rows: list[int], l2: float) -> float:
    """The accuracy of a ridge regression fitted to some of the training images."""
    _, train, test = known
    x, y = train.features[rows].astype(np.float64), train.labels[rows]
    targets = np.where(y[:, None] == np.arange(10), 1.0, -1.0)
    # Centred features, and a bias that is next to free.
    ridge = make_pipeline(StandardScaler(), Ridge(l2)).fit(x, targets)
    predicted = ridge.predict(test.features.astype(np.float64)).argmax(axis=1)
    return float((predicted == test.labels).mean())


@pytest.mark.parametrize("shots", [1, 10, 40])
def test_scores_are_scikit_learns_on_the_drawn_images(
    shots: int, evaluated: Any, known: Any
) -> None:
    (scores, draws), (names, _, _) = evaluated, known
    assert draws["seed"] == 5 and draws["data"] == f"digits/{TRAIN}" and len(draws["draws"]) == 2
    expected = []
    for draw in draws["draws"]:
        assert list(draw) == list("0123456789")
        rows = [names[name] for of_class in draw.values() for name in of_class[:shots]]
        expected.append(accuracy_of_scikit_learn(known, rows, 64.0))
    found = scores["few_shot"]["scores"]
    name = f"top1_{shots}_shot"
    assert [found[f"{name}/draw_0"], found[f"{name}/draw_1"]] == pytest.approx(expected, abs=0.01)
    assert found[name] == pytest.approx(np.mean(expected), abs=0.01) and found[name] > 0.15
    assert found[f"{name}/min"] == min(found[f"{name}/draw_0"], found[f"{name}/draw_1"])
    assert found[f"{name}/max"] == max(found[f"{name}/draw_0"], found[f"{name}/draw_1"])
    assert f"{found[name]:.2%} at {shots} shot" in scores["few_shot"]["text"]


def test_other_evaluators_see_the_same_features(evaluated: Any) -> None:
    scores, _ = evaluated
    assert scores.keys() == {"few_shot", "k_nearest", "linear_probe"}
    assert all(row["scores"]["examples"] == 150 for row in scores.values())
    assert scores["k_nearest"]["scores"]["top1_10_nearest"] > 0.3
    assert scores["linear_probe"]["scores"]["top1"] > 0.3


def test_training_scores_what_evaluate_scores(data_dir: Path, tmp_path: Path) -> None:
    changes = {
        **{"data.data_dir": data_dir, "data.batch_size": 64, "total_steps": 2},
        **{"optimizer.warmup_steps": 1, "model.depth": 1, "early_stop": "none"},
        **{"evals.test": "none", "evals.few.kind": "few_shot", "evals.few.split": "test[:60]"},
        **{"evals.few.train_split": "train[:300]", "evals.few.shots": "(2,)"},
        "evals.few.l2": "chosen",
    }
    flags = [f"--config.{key}={value}" for key, value in changes.items()]
    workdir = tmp_path / "run"
    assert main(["train", "--config=configs/quickstart.py", *flags, f"--workdir={workdir}"]) == 0
    line = [line for line in read_metrics(workdir) if "few/top1_2_shot" in line][-1]
    assert line["few/l2_2_shot/draw_0"] == 2.0**10  # Two shots leave none to choose with.
    output = tmp_path / "scores.json"
    assert main(["evaluate", f"--weights={workdir}", f"--output={output}"]) == 0
    (found,) = json.loads(output.read_text())
    assert found["scores"] == {k[4:]: v for k, v in line.items() if k.startswith("few/")}


# One evaluator with features made up.


class Listed(list[Any]):
    name, max_labels = "pets/train", None
    class_names = ("cat", "dog")


def scored(config: FewShotConfig, x: np.ndarray, y: np.ndarray, test_x: Any, test_y: Any) -> Scores:
    """Scores with rows as a pass gives them, the labels known to no source."""
    sources = {
        ("pets", config.train_split): Listed(
            Record(b"", label, f"{i}.jpg") for i, label in enumerate(y.tolist())
        ),
        ("pets", config.split): Listed(),
    }
    opener = Opener("few", MODEL, EvalContext(None, dataset="pets"), sources)
    answers = {
        role: Answer({}, {"features": features, "labels": labels}, np.arange(len(labels)))
        for role, (features, labels) in {"train": (x, y), "test": (test_x, test_y)}.items()
    }
    return config.make(opener).scores(answers)


def blobs(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One feature of 200 tells two classes apart, all others are noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    x = rng.normal(size=(rows, 200)).astype(np.float32)
    x[:, 0] += 4 * y
    return x, y


def test_a_penalty_is_chosen_on_a_fifth_of_the_shots() -> None:
    """As by hand: fitted to 8 of 10 shots of each class, the strongest of the best on 2."""
    (x, y), test = blobs(60, 0), blobs(300, 1)
    config = FewShotConfig("test", shots=(10,), draws=2, l2="chosen")
    found = scored(config, x, y, *test).values
    for draw in range(2):
        rows = draw_shots(y, 10, 0, draw)
        fitted, held_out = rows[:, :8].ravel(), rows[:, 8:].ravel()
        mean, deviation = x[fitted].mean(axis=0), x[fitted].std(axis=0)
        right = []
        for l2 in (penalties := 2.0 ** np.arange(-10, 20)):
            ridge = Ridge(l2).fit((x[fitted] - mean) / deviation, 2.0 * y[fitted] - 1)
            predicted = ridge.predict((x[held_out] - mean) / deviation) > 0
            right.append((predicted == y[held_out]).sum())
        best = penalties[len(right) - 1 - int(np.argmax(right[::-1]))]
        assert found[f"l2_10_shot/draw_{draw}"] == best


def test_unlabelled_images_are_left_out() -> None:
    (x, y), (test_x, test_y) = blobs(60, 0), blobs(100, 1)
    config = FewShotConfig("test", shots=(5,), draws=1)
    expected = scored(config, x[:40], y[:40], test_x[:80], test_y[:80])
    x[40:], y[40:], test_y[80:] = np.nan, -1, -1
    assert scored(config, x, y, test_x, test_y) == expected._replace(line=expected.line)
    assert expected.values["examples"] == 80


def test_a_class_with_fewer_examples_than_shots_is_refused() -> None:
    (x, y), test = blobs(60, 0), blobs(20, 1)
    y[np.flatnonzero(y == 1)[7:]] = 0
    config = FewShotConfig("test", shots=(1, 5, 10))
    assert refusal(scored, config, x, y, *test) == (
        "pets/train: class 'dog' has 7 examples, fewer than 10 shots; widen "
        "--config.evals.few.train_split=train, or give --config.evals.few.shots=1,5"
    )
    y[:] = 0
    assert "class 'dog' has 0 examples" in refusal(scored, config, x, y, *test)
    assert "two classes" in refusal(scored, config, x, y, test[0], test[1] * 0)


def test_features_that_are_not_finite_are_refused() -> None:
    (x, y), test = blobs(60, 0), blobs(20, 1)
    x[[7, 9], 3] = np.inf, np.nan
    message = refusal(scored, FewShotConfig("test", shots=(1,)), x, y, *test)
    assert message.startswith(
        "pets/train: the features of 2 of 60 images are not finite, the first of 7.jpg; "
    )


def test_too_few_images_in_a_folder_are_known_before_any_is_read(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, counts in {"train": {"cat": 12, "dog": 3}, "test": {"cat": 1, "dog": 1}}.items():
        for name, count in counts.items():
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(count):
                file = tmp_path / "pets" / split / name / f"{i}.png"
                file.write_bytes(encode(noise(8, 8)) if split == "test" else b"no image")
    command = ["evaluate", f"--weights={weights}", f"--dataset={tmp_path / 'pets'}"]
    assert main([*command, "--evaluator=few_shot"]) == 2
    error = capsys.readouterr().err
    assert "class 'dog' has 3 examples, fewer than 25 shots" in error
    assert "widen --evaluator.train_split=train, or give --evaluator.shots=1," in error
    assert main([*command, "--evaluator=k_nearest"]) == 2
    error = capsys.readouterr().err
    assert "train has 15 labelled images, fewer than 200 neighbours" in error
    assert "widen --evaluator.train_split=train, or give --evaluator.k=10," in error
    absent = f"--evaluator.draws_file={tmp_path / 'absent/draws.json'}"
    assert main([*command, "--evaluator=few_shot", "--evaluator.shots=1,2", absent]) == 2
    assert "there is no directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [{"shots": ()}, {"shots": (0,)}, {"shots": (1, 1)}, {"draws": 0}, {"seed": -1}, {"l2": 0.0}],
)
def test_options_that_mean_nothing_are_refused(options: Any) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(options))}="):
        FewShotConfig("test", **options)
