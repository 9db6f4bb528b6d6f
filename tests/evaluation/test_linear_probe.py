import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import vit_jax
from vit_jax.__main__ import main
from vit_jax.data.sources.open import open_source
from vit_jax.errors import UserError
from vit_jax.evaluation.linear_probe import INVERSE_PENALTIES, fit_probe
from vit_jax.inference.features import FeatureConfig, features_of_source
from vit_jax.models.functional import model_params
from vit_jax.weights.files import write_weights


def digits(*classes: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    keep = np.isin(y, classes or range(10))
    return x[keep][:400].astype(np.float32), y[keep][:400]


@pytest.mark.parametrize("classes", [(), (2, 7)])
def test_logits_are_those_of_scikit_learn_on_standardised_features(
    classes: tuple[int, ...],
) -> None:
    x, y = digits(*classes)
    probe = fit_probe(x, y, 10)
    assert probe.inverse_penalty in INVERSE_PENALTIES
    scaler = StandardScaler().fit(x)
    other = LogisticRegression(C=probe.inverse_penalty, max_iter=1000).fit(scaler.transform(x), y)
    expected = other.predict_proba(scaler.transform(x))
    logits = probe.logits(x)[:, classes or slice(None)]
    found = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found / found.sum(axis=1, keepdims=True), expected, atol=1e-4)
    # A class that has no examples is not predicted.
    assert set(probe.logits(x).argmax(axis=1)) <= set(y)


def test_a_single_example_of_a_class_cannot_choose_the_penalty() -> None:
    x, y = digits(0, 1)
    rows = [int(np.flatnonzero(y == 0)[0]), *np.flatnonzero(y == 1)]
    assert fit_probe(x[rows], y[rows], 2).inverse_penalty == 1e-2
    with pytest.raises(UserError, match="two classes"):
        fit_probe(x[y == 1], y[y == 1], 2)


def test_a_command_names_the_features(tmp_path: Path) -> None:
    """Digits from the class token of an untrained model's last two blocks, against scikit-learn."""
    model = vit_jax.create_model("ViT-Ti/4", image_size=8, num_classes=2, depth=2, seed=0)
    write_weights(tmp_path / "vit.npz", model_params(model), model.config)
    output = tmp_path / "scores.json"
    command = ["evaluate", f"--weights={tmp_path / 'vit.npz'}", "--dataset=digits"]
    probe = ["--evaluator=linear_probe", "--evaluator.train_split=train[:150]", "--split=test[:60]"]
    features = ["--evaluator.features.tokens=class", "--evaluator.features.blocks=2"]
    where = [f"--data_dir={tmp_path}", f"--output={output}"]
    assert main([*command, *probe, *features, *where]) == 0
    (found,) = json.loads(output.read_text())
    x, y, test_x, test_y = (
        array
        for split in ("train[:150]", "test[:60]")
        for array in features_of_source(
            model,
            open_source("digits", split, data_dir=str(tmp_path)),
            FeatureConfig("class", 2),
        )
    )
    right = (fit_probe(x, y, 10).logits(test_x).argmax(axis=1) == test_y).mean()
    assert 0.2 < found["scores"]["top1"] == right
    assert found["scores"]["examples"] == 60
    assert main([*command, *probe, "--evaluator.features.tokens=words"]) == 2
