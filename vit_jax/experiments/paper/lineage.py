"""What weights were trained on, one training after the other: of runs and of released files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from vit_jax.analysis.published.timm import RELEASED, TIMM
from vit_jax.data.sources.published import DATASETS
from vit_jax.errors import UserError
from vit_jax.runs.config_file import is_run, read_config
from vit_jax.storage.paths import bucket_of, given_path, is_bucket
from vit_jax.weights.catalogue import augreg
from vit_jax.weights.catalogue.names import find, is_in_bucket

_BY_TFDS_NAME = {dataset.tfds: name for name, dataset in DATASETS.items()}
_BY_TFDS_NAME["imagenet2012_real"] = "imagenet_real"
# Runs that start from each other in a circle, as after a renaming, have an end here.
_MOST_STAGES = 8


class Stage(NamedTuple):
    """One training.

    Attributes:
      dataset: as configs name it, see `dataset_named`.
      epochs: passes over the data; None if nothing tells them.
      optimizer: `adamw` or `sgd`; None if nothing tells it.
      image_size: pixels a side; None if unknown or not square.
      collection: of the released file that it is a part of, such as `vit` or `augreg`; None for a
        run.
      model: as its config or its release names it.
    """

    dataset: str
    epochs: float | None
    optimizer: str | None
    image_size: int | None
    collection: str | None
    model: str


class UnknownOriginError(Exception):
    """Nothing tells what weights were trained on; the message says which."""


def dataset_named(name: str) -> str:
    """The name of a data set in configs, such as `pets` for TFDS's `oxford_iiit_pet:4.0.0`."""
    bare = re.sub(r":[\d.*]+$", "", name)
    return _BY_TFDS_NAME.get(bare, bare)


def is_near(start: str, directory: epath.Path) -> bool:
    """Whether what a run started from may be asked for: on a disk, or in the run's own bucket.

    Someone may have sent the run; what its config says reaches no network by itself.
    """
    return bucket_of(start) in (None, bucket_of(directory))


def of_config(
    config: Mapping[str, Any], directory: epath.Path, *, most: int = _MOST_STAGES
) -> tuple[Stage, ...]:
    """The stages of a run, the first training first.

    Args:
      config: nested, as in `config.json`.
      directory: of the run.

    Raises:
      UnknownOriginError: it starts from weights of which nothing is known.
    """
    start = config.get("init_from")
    most = most - 1 if is_near(str(start), directory) else 0
    earlier = of_weights(str(start), most=most) if start else ()
    return (*earlier, _stage(config))


def of_weights(weights: str, *, most: int = _MOST_STAGES) -> tuple[Stage, ...]:
    """The stages of weights: a run's directory, its `weights.npz`, or a released file.

    Raises:
      UnknownOriginError: they are something else.
    """
    path = given_path(weights)
    directory = path.parent if path.name == "weights.npz" else path
    if most and (is_in_bucket(weights) or not is_bucket(weights)) and is_run(directory):
        try:
            return of_config(read_config(directory), directory, most=most)
        except UserError as error:
            raise UnknownOriginError(str(error)) from error
    release = released(weights)
    if release is None:
        raise UnknownOriginError(f"nothing tells what {weights} was trained on")
    return _of_release(release)


class Released(NamedTuple):
    """A released file, as far as its name tells.

    Attributes:
      name: as `--weights` takes it.
      datasets: names of the data sets that it was trained on, in this order.
      epochs: of the first training; None if the name lacks them.
    """

    name: str
    collection: str
    model: str
    datasets: tuple[str, ...]
    resolution: int | None
    epochs: float | None


def released(weights: str) -> Released | None:
    """The released file that a name or a path means; None for anything else. Downloads nothing."""
    path = Path(weights.partition("://")[2] or weights)
    # Without the storage's address, so that `find` chooses none of AugReg's files by their index.
    for part in ("/".join(path.parts[-2:]), path.name):
        text = RELEASED.get(timm_name(part) or "", part.removesuffix(".npz"))
        choice = augreg.read_choice(text.removeprefix("augreg/")) if "/" in text else None
        if choice is not None:
            datasets = ["imagenet21k", *([choice.dataset] if choice.dataset else [])]
            return Released(
                *(text, "augreg", augreg.model_name(choice.model)),
                *(tuple(map(dataset_named, datasets)), choice.resolution or 224, 300.0),
            )
        try:
            release = find(text)
        except UserError:
            continue
        epochs = re.search(r"-(\d+)ep-", release.name)
        return Released(
            *(release.name, release.collection, release.model),
            *(tuple(map(dataset_named, release.dataset.split("+"))), release.resolution),
            float(epochs[1]) if epochs else None,
        )
    return None


def timm_name(weights: str) -> str | None:
    """The weights of `TIMM` that a name or a path means, with or without the tag after the dot."""
    last = Path(weights.partition("://")[2] or weights).name.partition("@")[0]
    stem = re.sub(r"\.(npz|safetensors|bin|pth|pt)$", "", last)
    named = [name for (name,) in TIMM.rows if stem in (name, name.partition(".")[0])]
    return named[0] if len(named) == 1 else None


def _stage(config: Mapping[str, Any]) -> Stage:
    data, model = config.get("data") or {}, config.get("model") or {}
    size, epochs = model.get("image_size"), config.get("epochs")
    dataset = dataset_named(str(data.get("dataset")))
    if epochs is None and (examples := _examples(dataset, str(data.get("train")))):
        epochs = (config.get("total_steps") or 0) * (data.get("batch_size") or 0) / examples
    return Stage(
        dataset,
        None if epochs is None else float(epochs),
        (config.get("optimizer") or {}).get("name"),
        size if isinstance(size, int) else None,
        None,
        str(model.get("name")),
    )


def _examples(dataset: str, split: str) -> int | None:
    """Examples of a whole split of a published data set."""
    return DATASETS[dataset].sizes.get(split) if dataset in DATASETS else None


def _of_release(release: Released) -> tuple[Stage, ...]:
    last = len(release.datasets) - 1
    return tuple(
        Stage(
            *(dataset, None if number else release.epochs, None),
            release.resolution if number == last else 224,
            *(release.collection, release.model),
        )
        for number, dataset in enumerate(release.datasets)
    )
