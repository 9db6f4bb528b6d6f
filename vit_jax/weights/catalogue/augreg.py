"""The files of "How to train your ViT?" (Steiner et al., arXiv 2106.10270): names and choice.

A name tells how a model was pre-trained and, after `--`, fine-tuned. The storage's `index.csv` has
the accuracies of all 50,000 files. The paper's augmentation levels light1 and light2 are light0 and
light1 in names, judging by the order of the two lists; the other five levels have equal names.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from vit_jax.analysis.published.augreg import FINE_TUNED_384, TABLE_3
from vit_jax.errors import UserError
from vit_jax.models.sizes import parse_name
from vit_jax.weights.catalogue.download import STORAGE, fetch
from vit_jax.weights.catalogue.released import NUM_CLASSES, Release

MODELS = (
    *("Ti_16", "S_16", "S_32", "B_8", "B_16", "B_32", "L_16"),
    *("R_Ti_16", "R26_S_32", "R26_B_32", "R50_L_32"),
)

_PRETRAINING_SETS = {"i1k": "imagenet2012", "i21k": "imagenet21k", "i21k_30": "imagenet21k"}
_NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
_STEM = re.compile(
    rf"(?P<model>{'|'.join(MODELS)})-(?P<ds>{'|'.join(_PRETRAINING_SETS)})-\d+ep-lr_{_NUMBER}"
    r"-aug_(?:none|light[01]|medium[12]|strong[12])"
    rf"-wd_{_NUMBER}-do_{_NUMBER}-sd_{_NUMBER}"
    rf"(?:--(?P<adapt_ds>[\w-]+?)-steps_\d+k-lr_{_NUMBER}-res_(?P<res>\d+))?",
    re.ASCII,
)
_CHOICE = re.compile(
    rf"(?P<model>{'|'.join(MODELS)})(?:--(?P<adapt_ds>[\w-]+?)-res_(?P<res>\d+))?", re.ASCII
)

# The columns of index.csv that the choice needs.
_COLUMNS = {
    *("filename", "ds", "final_val"),
    *("adapt_filename", "adapt_ds", "adapt_resolution", "adapt_final_val"),
}

# The files that the README of google-research's vision_transformer recommends: for each, the
# learning rate of its fine-tuning on ImageNet at 384 pixels. Their scores are in Table 3.
_RECOMMENDED = {
    "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0": "0.03",
    "S_32-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0": "0.01",
    "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0": "0.03",
    "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0": "0.01",
    "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0": "0.03",
    "L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0": "0.01",
    "R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0": "0.03",
    "R26_S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0": "0.01",
    "R50_L_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1": "0.01",
}


def _published() -> dict[str, tuple[float, str]]:
    """Top-1 and its source by file name."""
    found = {}
    for stem, rate in _RECOMMENDED.items():
        model = model_name(stem.partition("-")[0])
        top1 = TABLE_3.value((model,), FINE_TUNED_384)
        found[stem] = (top1, "AugReg Table 3, once fine-tuned at 384")
        fine_tuned = f"{stem}--imagenet2012-steps_20k-lr_{rate}-res_384"
        found[fine_tuned] = (top1, "AugReg Table 3")
    return found


def model_name(model: str) -> str:
    """The name of a model, such as `R26+ViT-S/32`, that files spell `R26_S_32`."""
    *stem, size, patch = model.split("_")
    return "+".join([*stem, f"ViT-{size}/{patch}"])


_PUBLISHED = _published()


def recommended() -> list[Release]:
    """Lists the files that the authors recommend, before and after fine-tuning on ImageNet."""
    return [release for stem in _PUBLISHED if (release := parse(stem)) is not None]


def rate_on_imagenet(model: str) -> float | None:
    """The learning rate with which the recommended file of a model was fine-tuned on ImageNet.

    Args:
      model: a name such as `ViT-B/16`; the result is None for a model without such a file.
    """
    for stem, rate in _RECOMMENDED.items():
        if parse_name(model_name(stem.partition("-")[0])) == parse_name(model):
            return float(rate)
    return None


def parse(stem: str) -> Release | None:
    """Reads a file name without `.npz`; None if it does not follow AugReg's grammar."""
    match = _STEM.fullmatch(stem)
    if match is None:
        return None
    datasets = [_PRETRAINING_SETS[match["ds"]]]
    datasets += [match["adapt_ds"]] if match["adapt_ds"] else []
    top1, source = _PUBLISHED.get(stem, (None, None))
    return Release(
        name=f"augreg/{stem}",
        collection="augreg",
        model=model_name(match["model"]),
        dataset="+".join(datasets),
        resolution=int(match["res"] or 224),
        num_classes=NUM_CLASSES.get(datasets[-1]),
        url=f"{STORAGE}/vit_models/augreg/{stem}.npz",
        accuracy=top1,
        accuracy_source=source,
    )


class Choice(NamedTuple):
    """What `choose` is asked for, in the words of file names.

    Attributes:
      model: such as `B_16`.
      dataset: that it is fine-tuned on, and `resolution` in pixels; None if it is not.
    """

    model: str
    dataset: str | None
    resolution: int | None


def read_choice(text: str) -> Choice | None:
    """Reads `MODEL` or `MODEL--DATASET-res_PIXELS`; None for any other text."""
    match = _CHOICE.fullmatch(text)
    if match is None:
        return None
    resolution = match["res"]
    return Choice(match["model"], match["adapt_ds"], int(resolution) if resolution else None)


def choose(text: str) -> Release | None:
    """Chooses the best file for `MODEL` or `MODEL--DATASET-res_PIXELS`; None for any other text.

    For a model, it is the file with the highest validation accuracy at the end of pre-training on
    ImageNet-21k (section 4.5). With a data set, it is the file with the highest validation accuracy
    among those that were fine-tuned from that one on this data at this resolution. This needs
    `index.csv`, which is downloaded.

    Raises:
      UserError: the index has no such file, or cannot be downloaded.
    """
    choice = read_choice(text)
    if choice is None:
        return None
    prefix = f"{choice.model}-"
    rows = [row for row in _read_index() if row["ds"] == "i21k"]
    rows = [row for row in rows if row["filename"].startswith(prefix)]
    stem = _highest(rows, "final_val", "filename", text)
    if choice.dataset is not None:
        rows = [row for row in rows if row["filename"] == stem]
        kind = f"{choice.dataset}-res_{choice.resolution}"
        alike = [row for row in rows if _kind(row) == kind]
        if not alike:
            kinds = ", ".join(sorted({_kind(row) for row in rows}))
            raise UserError(
                f"augreg/{text}: there is no fine-tuned file for {kind}, only for {kinds}; use one "
                "of these in the name"
            )
        stem = _highest(alike, "adapt_final_val", "adapt_filename", text)
    release = parse(stem.removesuffix(".npz"))
    if release is None:
        raise UserError(
            f"augreg/{text}: its index.csv names {stem!r}, which is no file of AugReg; "
            "remove index.csv from the cache and try again"
        )
    return release


def _kind(row: dict[str, str]) -> str:
    return f"{row['adapt_ds']}-res_{row['adapt_resolution'].removesuffix('.0')}"


def _highest(rows: Sequence[dict[str, str]], score: str, name: str, text: str) -> str:
    scores = [_number(row[score]) for row in rows]
    if not rows or max(scores) == -math.inf:
        raise UserError(f"augreg/{text}: index.csv has no such file; give a file by its whole name")
    return rows[scores.index(max(scores))][name]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return -math.inf
    return -math.inf if math.isnan(number) else number


def _read_index() -> list[dict[str, str]]:
    path = fetch(f"{STORAGE}/vit_models/augreg/index.csv")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a table ({error}); remove it and try again") from error
    missing = _COLUMNS - (rows[0].keys() if rows else set())
    if missing:
        raise UserError(
            f"{path} is not AugReg's index: it lacks {', '.join(sorted(missing))}; remove it and "
            "try again"
        )
    return rows
