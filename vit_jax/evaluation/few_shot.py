"""Few-shot linear evaluation: a few images of each class, drawn several times (section 4.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from vit_jax.data.sources.labels import labels_at_hand
from vit_jax.errors import UserError
from vit_jax.evaluation.config import EvalConfig
from vit_jax.evaluation.context import Opener
from vit_jax.evaluation.draws import class_name, draw_shots, write_draws
from vit_jax.evaluation.evaluator import Scores
from vit_jax.evaluation.frozen_features import FrozenConfig, FrozenFeatures, Labelled, as_typed
from vit_jax.evaluation.ridge import fit
from vit_jax.inference.requests import Answer
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket

L2 = 2.0**10
"""The l2 penalty of public code; the paper does not name its own."""
L2_CHOICES = tuple(2.0**exponent for exponent in range(-10, 20))
"""What is chosen from, as by Scenic's sweep."""
_LEAST_TO_CHOOSE = 5


@EvalConfig.kinds.register("few_shot")
@dataclass(frozen=True)
class FewShotConfig(FrozenConfig):
    """Top-1 of a linear classifier in closed form, fitted to a few images of each class."""

    shots: tuple[int, ...] = (1, 5, 10, 25)
    """Images of each class to fit it to; each number gives a score."""
    draws: int = 3
    """How many times the images are drawn. The score is the mean."""
    seed: int = 0
    """What the draws depend on, besides the labels in record order."""
    l2: float | Literal["chosen"] = L2
    """The penalty on standardised features. `chosen` takes, for each draw of 5 shots and more, what
    is best on a fifth of the shots of each class, from 2^-10 to 2^19, and otherwise 2^10."""
    draws_file: str | None = None
    """A JSON file to write the names of the drawn images to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) < len(self.shots):
            raise UserError(f"shots={self.shots} must be different numbers of at least 1")
        if self.draws < 1:
            raise UserError(f"draws={self.draws} must be at least 1")
        if self.seed < 0:
            raise UserError(f"seed={self.seed} must be at least 0")
        if self.l2 != "chosen" and self.l2 <= 0:
            raise UserError(f"l2={self.l2:g} must be above 0, or chosen")

    def beyond_reading(self) -> Mapping[str, str]:
        """It writes the file of its draws."""
        return {} if self.draws_file is None else {"draws_file": f"writes {self.draws_file}"}

    def make(self, opener: Opener) -> "FewShot":
        """Opens the data, and checks the number of examples where labels are at hand."""
        if self.draws_file is not None and is_bucket(self.draws_file):
            objects.require_writable(self.draws_file)
        elif self.draws_file is not None:
            directory = Path(self.draws_file).expanduser().parent
            if not directory.is_dir():
                raise UserError(
                    f"{opener.option('draws_file')}={self.draws_file}: there is no directory "
                    f"{directory}; make it, or choose another"
                )
        return FewShot(self.open(opener), self, opener)


class _Fitted(NamedTuple):
    """The accuracy of one draw, and the penalty that it was fitted with."""

    top1: float
    l2: float


class FewShot:
    """The evaluator of two sources with the same classes.

    Its scores are, for K shots, the mean over the draws `top1_K_shot`, and beside it
    `top1_K_shot/min`, `/max` and each draw's `/draw_N`; the penalties `l2_K_shot/draw_N` where they
    are chosen; and the number of test `examples`.
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, data: FrozenFeatures, config: FewShotConfig, opener: Opener):
        self.requests = data.requests
        self._data, self._config, self._option = data, config, opener.option
        self._is_written = False
        self.score_names = (
            *(name for shots in config.shots for name in self._of_shots(shots, [])),
            "examples",
        )
        known = [labels_at_hand(source) for source in (data.train, data.test)]
        if known[0] is not None and known[1] is not None:
            self._require_shots(known[0], known[1])

    def scores(self, answers: Mapping[str, Answer]) -> Scores:
        """See the class.

        Raises:
          UserError: a class has too few examples, or features are not finite.
        """
        config = self._config
        train, test = self._data.labelled(answers)
        self._require_shots(train.labels, test.labels)
        draws = [
            draw_shots(train.labels, max(config.shots), config.seed, draw)
            for draw in range(config.draws)
        ]
        if config.draws_file is not None and not self._is_written:
            write_draws(config.draws_file, self._data.train, train, draws, config.seed)
            self._is_written = True
        fitted = {
            shots: [self._score(train, test, rows[:, :shots]) for rows in draws]
            for shots in config.shots
        }
        values = {
            name: value
            for shots, each in fitted.items()
            for name, value in self._of_shots(shots, each).items()
        }
        parts = [self._line(shots, each) for shots, each in fitted.items()]
        line = (
            f"few-shot from {len(train.labels):,} of {self._data.train.name}, {config.draws} draws "
            f"by seed {config.seed}: top-1 {', '.join(parts)} on {len(test.labels):,} examples"
        )
        return Scores(values | {"examples": float(len(test.labels))}, line)

    def _score(self, train: Labelled, test: Labelled, rows: np.ndarray) -> _Fitted:
        """Fits to the rows [classes, shots] of `train` and scores on all of `test`."""
        l2 = self._config.l2
        if l2 == "chosen":
            l2 = choose_l2(train.features, rows) if rows.shape[1] >= _LEAST_TO_CHOOSE else L2
        predicted = _predict(train.features, rows, test.features, [l2])[0]
        classes = np.unique(train.labels)
        return _Fitted(float((classes[predicted] == test.labels).mean()), l2)

    def _of_shots(self, shots: int, fitted: Sequence[_Fitted]) -> dict[str, float]:
        """The scores of a number of shots by name; NaN before anything is fitted."""
        nothing = _Fitted(float("nan"), float("nan"))
        fitted = list(fitted) or [nothing] * self._config.draws
        each = [draw.top1 for draw in fitted]
        name = f"top1_{shots}_shot"
        values = {name: float(np.mean(each)), f"{name}/min": min(each), f"{name}/max": max(each)}
        values |= {f"{name}/draw_{i}": top1 for i, top1 in enumerate(each)}
        if self._config.l2 == "chosen":
            values |= {f"l2_{shots}_shot/draw_{i}": draw.l2 for i, draw in enumerate(fitted)}
        return values

    def _line(self, shots: int, fitted: Sequence[_Fitted]) -> str:
        each = [draw.top1 for draw in fitted]
        of = f"{shots} shot" + ("s" if shots > 1 else "")
        return f"{np.mean(each):.2%} at {of} ({min(each):.2%} to {max(each):.2%})"

    def _require_shots(self, train: np.ndarray, test: np.ndarray) -> None:
        """Checks that each class that occurs has as many examples as are drawn."""
        classes = np.unique(np.concatenate([train, test]))
        classes = classes[classes >= 0]
        source, shots = self._data.train, self._config.shots
        if len(classes) < 2:
            raise UserError(f"{source.name}: few-shot evaluation needs at least two classes")
        counts = np.bincount(train[train >= 0], minlength=classes.max() + 1)[classes]
        few, examples = int(classes[counts.argmin()]), int(counts.min())
        if examples >= max(shots):
            return
        remedy = f"widen {self._option('train_split')}={self._config.train_split}"
        if examples:
            fewer = [number for number in shots if number <= examples] or [examples]
            remedy += f", or give {self._option('shots')}={as_typed(fewer)}"
        raise UserError(
            f"{source.name}: class {class_name(source, few)!r} has {examples} examples, fewer than "
            f"{max(shots)} shots; {remedy}"
        )


def choose_l2(features: np.ndarray, rows: np.ndarray) -> float:
    """The one of `L2_CHOICES` that is best on the last fifth of the shots; in a tie the strongest.

    Args:
      features: [examples, features].
      rows: int [classes, shots], which examples are the shots of each class.
    """
    held_out = rows.shape[1] // 5
    fitted, judged = rows[:, :-held_out], rows[:, -held_out:]
    classes = np.repeat(np.arange(len(rows)), held_out)
    predicted = _predict(features, fitted, features[judged.reshape(-1)], L2_CHOICES)
    right = [int((each == classes).sum()) for each in predicted]
    return max(zip(right, L2_CHOICES, strict=True))[1]


def _predict(
    features: np.ndarray, rows: np.ndarray, test: np.ndarray, penalties: Sequence[float]
) -> list[np.ndarray]:
    """The predicted class of each test image, by the rows' first axis, for each penalty."""
    labels = np.repeat(np.arange(len(rows)), rows.shape[1])
    fits = fit(features[rows.reshape(-1)], labels, len(rows), penalties)
    test = test.astype(np.float64)
    return [classifier.classes(test) for classifier in fits]
