"""Puts a report together and writes it: one file that opens without a network."""

import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from sklearn.metrics import confusion_matrix

from vit_jax.errors import StorageError, UserError
from vit_jax.evaluation.scores import calibration, per_class
from vit_jax.experiments.report import figures
from vit_jax.experiments.report.data import SplitSummary, class_rows, summarize
from vit_jax.experiments.report.judged import Judged, judge, scored_by_class, see
from vit_jax.experiments.report.record import Curve, RunRecord, read_run
from vit_jax.schema import build
from vit_jax.storage import objects
from vit_jax.training.config import TrainConfig
from vit_jax.training.setup import open_evaluation, open_training
from vit_jax.version import __version__

_WRONG, _RIGHT = 12, 6
# The figures of training, by title: the scalars that each shows, by name or by prefix. Losses of
# evaluations are drawn beside that of training.
_TRAINING = {
    "Loss": ("train/loss",),
    "Rate": ("train/lr",),
    "Images a second": ("time/images_per_second",),
    "Share of the time that waits for data": ("time/data_wait",),
    "Memory in GiB": ("memory/",),
}


@dataclass(frozen=True)
class Picture:
    """One image of the report: what the model sees, its attention, and what it says."""

    seen: str
    attention: str | None
    label: str
    predicted: str
    confidence: float
    share_of_label: float
    file: str


@dataclass(frozen=True)
class RunSection:
    """What the page shows of one run. What could not be had is None, and `missing` tells why."""

    record: RunRecord
    curves: list[str]
    commands: list[tuple[str, str]]
    judged: Judged | None
    classes: list[tuple[Any, ...]]
    drawings: list[str]
    wrong: list[Picture]
    right: list[Picture]
    splits: dict[str, SplitSummary]
    class_rows: list[tuple[str, list[int]]]
    missing: list[str]


def write_report(
    runs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    seconds: float = math.inf,
) -> None:
    """Writes the page of one run, or of several side by side, in one step.

    A run that has ended is scored on its first evaluation by class once more, image by image, on
    the devices of this process.

    Args:
      seconds: the longest that the images of one run may take to be scored; a page of a run that
        takes longer is written without them.

    Raises:
      UserError: a directory is not that of a run, or the file cannot be written.
    """
    sections = [_section(read_run(run), seconds) for run in runs]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vit_jax.experiments.report", "."),
        autoescape=True,  # Names of files and classes are text, whatever they hold.
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("page.html").render(
        sections=sections,
        compared=_compared(sections) if len(sections) > 1 else [],
        score_names=_score_names(sections),
        version=__version__,
    )
    try:
        objects.write_bytes(output, page.encode(errors="backslashreplace"))
    except StorageError:
        raise
    except OSError as error:
        raise UserError(f"{output}: {error.strerror}; choose another file") from error


def _section(record: RunRecord, seconds: float) -> RunSection:
    config = build(TrainConfig, record.config)
    missing: list[str] = []
    judged = _judged(record, config, seconds, missing)
    drawn: list[str] = []
    if judged is not None:
        drawn.append(figures.calibration(calibration(judged.confidence, judged.right)))
        drawn.append(_confusion(judged))
    splits = _splits(config, missing)
    return RunSection(
        record=record,
        curves=list(_curves([record])),
        commands=_commands(record),
        judged=judged,
        classes=[] if judged is None else _classes(judged),
        drawings=drawn,
        wrong=[] if judged is None else _pictures(judged, judged.most_wrong(_WRONG)),
        right=[] if judged is None else _pictures(judged, judged.some_right(_RIGHT)),
        splits=splits,
        class_rows=list(class_rows(splits)),
        missing=missing,
    )


def _judged(
    record: RunRecord, config: TrainConfig, seconds: float, missing: list[str]
) -> Judged | None:
    if not record.has_ended:
        missing.append("The run has not ended, so its images are not scored one by one.")
        return None
    name = scored_by_class(config)
    if name is None:
        missing.append("No evaluation of the config scores classes.")
        return None
    if seconds <= 0:
        again = f"python -m vit_jax report {shlex.quote(str(record.path))}"
        missing.append(f"There was no time to score images one by one: `{again}` does it.")
        return None
    try:
        return judge(config, record.path, name, seconds=seconds)
    except UserError as error:
        missing.append(f"Images are not scored one by one: {error}.")
        return None


def _splits(config: TrainConfig, missing: list[str]) -> dict[str, SplitSummary]:
    found: dict[str, SplitSummary] = {}
    try:
        found["train"] = summarize(open_training(config.data))
        for name, each in config.evals.items():
            found[name] = summarize(open_evaluation(config.data, each))
    except UserError as error:
        missing.append(f"The data is not counted: {error}.")
    return found


def _curves(records: Sequence[RunRecord]) -> Iterator[str]:
    """A figure for each kind of scalar that the runs have; one line for each run and scalar."""
    wanted = dict(_TRAINING)
    for name in records[0].config.get("evals", {}):
        for scalar in records[0].curves:
            prefix, _, score = scalar.partition("/")
            if prefix == name and "/" not in score and score != "examples":
                title = "Loss" if score == "loss" else score
                wanted[title] = (*wanted.get(title, ()), scalar)
    for title, names in wanted.items():
        prefixes = tuple(name for name in names if name.endswith("/"))
        lines: dict[str, Curve] = {}
        for record in records:
            for name, curve in record.curves.items():
                if name in names or name.startswith(prefixes):
                    lines[name if len(records) == 1 else f"{record.name} {name}"] = curve
        if lines:
            yield figures.curves(title, lines)


def _compared(sections: Sequence[RunSection]) -> list[str]:
    return list(_curves([section.record for section in sections]))


def _score_names(sections: Sequence[RunSection]) -> list[str]:
    names = (name for section in sections for name in section.record.scores)
    return [name for name in dict.fromkeys(names) if name.count("/") == 1]


def _classes(judged: Judged) -> list[tuple[Any, ...]]:
    """Rows of name, precision, recall, F1 and examples, the lowest F1 first."""
    each = per_class(judged.labels, judged.predicted)
    order = np.argsort(each.f1, kind="stable").tolist()
    columns = (each.precision, each.recall, each.f1, each.examples)
    return [(judged.name(int(each.classes[i])), *(c[i] for c in columns)) for i in order]


def _confusion(judged: Judged) -> str:
    classes = np.unique(np.concatenate([judged.labels, judged.predicted]))
    counts = confusion_matrix(judged.labels, judged.predicted, labels=classes)
    return figures.confusion(counts, [judged.name(int(label)) for label in classes])


def _pictures(judged: Judged, indices: np.ndarray) -> list[Picture]:
    pictures = []
    for index, seen in see(judged, indices):
        attention = seen.attention
        pictures.append(
            Picture(
                seen=figures.picture(seen.pixels),
                attention=None if attention is None else figures.picture(seen.pixels, attention),
                label=judged.name(int(judged.labels[index])),
                predicted=judged.name(int(judged.predicted[index])),
                confidence=float(judged.confidence[index]),
                share_of_label=float(judged.share_of_label[index]),
                file=judged.source[int(judged.positions[index])].name,
            )
        )
    return pictures


def _commands(record: RunRecord) -> list[tuple[str, str]]:
    run = shlex.quote(str(record.path))
    weights = shlex.quote(str(record.path / "weights.npz"))
    given: Mapping[str, str] = {
        "Score it again": f"python -m vit_jax evaluate --weights={run}",
        "Classes of your images": f"python -m vit_jax predict --weights={run} --images PHOTOS",
        "For timm": f"python -m vit_jax convert --source={weights} --layout=timm "
        "--target=model.safetensors",
        "This page": f"python -m vit_jax report {run}",
    }
    return list(given.items())
