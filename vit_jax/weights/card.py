"""The model card: a `README.md` beside a `model.safetensors`, as the Hugging Face Hub reads it.

Its front matter is YAML with the Hub's keys (`license`, `library_name`, `pipeline_tag`, `tags`,
`model-index`); the rest is Markdown. Names of classes, files and data are written so that they
cannot act as either.
"""

from __future__ import annotations

import math
import os
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

import jax

from vit_jax.errors import UserError
from vit_jax.image_size import format_size
from vit_jax.models.config import ModelConfig
from vit_jax.models.functional import abstract_params
from vit_jax.plain import plain
from vit_jax.runs.config_file import is_run, read_config
from vit_jax.storage.paths import as_path, is_bucket
from vit_jax.version import __version__
from vit_jax.weights.catalogue.names import find, is_in_bucket
from vit_jax.weights.files import Weights

UNKNOWN_LICENCE = "unknown"

# Identifiers of the Hub, such as apache-2.0.
_LICENCE = re.compile(r"[a-z0-9]+([.+-][a-z0-9]+)*")
_LISTED_CLASSES = 20
_MARKDOWN = str.maketrans({mark: f"\\{mark}" for mark in string.punctuation})
_CITATION = """@inproceedings{dosovitskiy2021image,
  title = {An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale},
  author = {Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and Weissenborn, Dirk
            and Zhai, Xiaohua and Unterthiner, Thomas and Dehghani, Mostafa and Minderer, Matthias
            and Heigold, Georg and Gelly, Sylvain and Uszkoreit, Jakob and Houlsby, Neil},
  booktitle = {International Conference on Learning Representations},
  year = {2021},
  url = {https://arxiv.org/abs/2010.11929}
}"""
_TIMM = """import timm
from PIL import Image

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
outputs = model(transform(Image.open("photo.jpg").convert("RGB"))[None])"""
_CLASSIFY = """from transformers import pipeline

classify = pipeline("image-classification", "FOLDER")
outputs = classify("photo.jpg")"""
_ENCODE = """from PIL import Image
from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained("FOLDER")
processor = AutoImageProcessor.from_pretrained("FOLDER")
outputs = model(**processor(Image.open("photo.jpg").convert("RGB"), return_tensors="pt"))"""
# By layout that has a card: its library's name on the Hub, and how its users name a folder there.
LIBRARIES = {"timm": ("timm", "hf-hub:OWNER/NAME"), "huggingface": ("transformers", "OWNER/NAME")}


@dataclass(frozen=True)
class Origin:
    """Where weights come from, as far as it is recorded.

    Attributes:
      source: in words.
      data: what they were trained on, in words.
      scores: by name, such as `test/top1`.
      datasets: data set and split of each evaluation, by its name.
      image_size: of the images that the scores are of.
    """

    source: str
    data: str | None
    scores: Mapping[str, float]
    datasets: Mapping[str, tuple[str, str]]
    image_size: str


def require_licence(name: str) -> None:
    """Checks an identifier of a licence.

    Raises:
      UserError: no licence has such an identifier on the Hub.
    """
    if not _LICENCE.fullmatch(name):
        raise UserError(
            f"--license={name}: the Hugging Face Hub has identifiers such as apache-2.0, mit or "
            "cc-by-4.0; write one of them"
        )


def origin_of(weights: str, opened: Weights) -> Origin:
    """What is recorded of weights: by their run, by the list of released files, or beside them.

    Args:
      weights: as the user named them.
      opened: the same.
    """
    scores = opened.extra.get("scores")
    named = {} if not isinstance(scores, Mapping) else scores
    numbers = {
        name: float(value) for name, value in named.items() if isinstance(value, int | float)
    }
    size = format_size(opened.model.input_size)
    directory: PurePath = opened.path.parent
    if is_in_bucket(weights):  # What was opened is a copy.
        named = as_path(weights)
        directory = named.parent if named.name == opened.path.name else named
    if opened.path.name == "weights.npz" and is_run(directory):
        config = read_config(directory)
        data, step = config.get("data", {}), opened.extra.get("step")
        dataset, split = _shown(str(data.get("dataset"))), str(data.get("train", "train"))
        trained = f"{_escaped(dataset)}, split {_escaped(split)}"
        if isinstance(data.get("subset"), int):
            trained += f", {data['subset']} examples of it"
        start = config.get("init_from")
        source = f"a run of vit\\_jax, step {step}, "
        source += f"started from {_escaped(_shown(str(start)))}" if start else "from scratch"
        datasets = {
            name: (_shown(str(each.get("dataset") or dataset)), str(each.get("split", "test")))
            for name, each in (config.get("evals") or {}).items()
            if isinstance(each, Mapping)
        }
        return Origin(source, trained, numbers, datasets, size)
    if not is_in_bucket(weights) and not os.path.exists(Path(weights).expanduser()):
        try:
            release = find(weights)
        except UserError:  # It was found elsewhere, such as on a hub.
            return Origin(_escaped(weights), None, numbers, {}, size)
        source = f"the released file {_escaped(release.name)}, {_escaped(release.url)}"
        return Origin(source, _escaped(release.dataset.replace("+", ", then ")), numbers, {}, size)
    return Origin(f"the file {_escaped(opened.path.name)}", None, numbers, {}, size)


def model_card(
    model: ModelConfig,
    class_names: tuple[str, ...] | None,
    loss: str | None,
    origin: Origin,
    *,
    layout: str,
    licence: str = UNKNOWN_LICENCE,
) -> str:
    """The card of a model.

    Args:
      model: completed, at the size at which it is written.
      loss: that its head was trained with, if known.
      layout: `timm` or `huggingface`.
      licence: an identifier of the Hub.
    """
    library, hub_name = LIBRARIES[layout]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(model)))
    size = format_size(model.input_size)
    head = f"a head of {model.num_classes} classes" if model.num_classes else "no head"
    use = _TIMM if layout == "timm" else _CLASSIFY if model.num_classes else _ENCODE
    parts = [
        _front_matter(model, origin, library, licence),
        f"# {_escaped(model.name)}",
        f"A Vision Transformer for images of {size} pixels with {head} and {count:,} parameters. "
        f"It comes from {origin.source}. vit\\_jax {_escaped(__version__)} wrote it for {library}.",
        "## Use",
        f"```python\n{use}\n```",
        f"`FOLDER` is this folder; on the Hub, `{hub_name}` takes its place. "
        '`vit_jax.load_model(weights="FOLDER")` loads it too.',
        "## Training data",
        origin.data or "Not recorded.",
        "## Scores",
        _scores(origin),
        "## Preprocessing",
        _preprocessing(model),
        *_classes(class_names, loss),
        "## Licence",
        _escaped(licence) if licence != UNKNOWN_LICENCE else "Unknown: it was not stated.",
        "## Citation",
        f"```bibtex\n{_CITATION}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(model: ModelConfig, origin: Origin, library: str, licence: str) -> str:
    task = "image-classification" if model.num_classes else "image-feature-extraction"
    lines = [
        "---",
        f"license: {licence}",
        f"library_name: {library}",
        f"pipeline_tag: {task}",
        "tags:",
        *(f"- {tag}" for tag in (task, "vision-transformer", "vit_jax")),
    ]
    results: list[str] = []
    for name, value in origin.scores.items():
        evaluation, _, score = name.rpartition("/")
        if score == "top1" and evaluation in origin.datasets and math.isfinite(value):
            dataset, split = origin.datasets[evaluation]
            results += [
                "  - task:",
                "      type: image-classification",
                "    dataset:",
                f"      name: {_quoted(dataset)}",
                f"      type: {_quoted(dataset)}",
                f"      split: {_quoted(split)}",
                "    metrics:",
                "    - type: accuracy",
                f"      value: {value}",
                "      name: top-1",
            ]
    if results:
        lines += ["model-index:", f"- name: {_quoted(model.name)}", "  results:", *results]
    return "\n".join([*lines, "---"])


def _scores(origin: Origin) -> str:
    if not origin.scores:
        return "Not recorded."
    rows = [f"| {_escaped(name)} | {_number(value)} |" for name, value in origin.scores.items()]
    of = "; ".join(
        f"{_escaped(name)}: {_escaped(dataset)}, split {_escaped(split)}"
        for name, (dataset, split) in origin.datasets.items()
    )
    head = f"On images of {origin.image_size} pixels" + (f" ({of})" if of else "")
    return "\n".join([f"{head}:\n", "| score | value |", "| --- | --- |", *rows])


def _preprocessing(model: ModelConfig) -> str:
    how = model.preprocessing
    assert how is not None
    size = format_size(model.input_size)
    side = how.short_side or min(model.input_size)
    fit = {
        "squash": f"resized to {size} pixels, whatever their aspect",
        "short_side": f"resized to {side} pixels on their shorter side and cropped in the centre "
        f"to {size}",
    }[how.resize]
    text = (
        f"RGB images are {fit} ({how.interpolation}, {'with' if how.antialias else 'without'} "
        f"antialiasing). Values are (x / 255 - mean) / std for pixels x from 0 to 255, with the "
        f"mean {_triple(how.mean)} and the std {_triple(how.std)} of the channels."
    )
    if not how.antialias:
        text += (
            " The library's own transforms resize with antialiasing, and so outputs for large "
            "images differ a little from those that the scores are of."
        )
    return text


def _classes(class_names: tuple[str, ...] | None, loss: str | None) -> list[str]:
    words = {
        "sigmoid": "Each class has a probability of its own, the sigmoid of its output.",
        "softmax": "The softmax of the outputs gives the probabilities of the classes.",
    }
    parts = [words[loss]] if loss in words else []
    if class_names:
        shown = [f"- {_escaped(name)}" for name in class_names[:_LISTED_CLASSES]]
        if more := len(class_names) - len(shown):
            shown.append(f"- and {more} more, in config.json")
        parts.append("\n".join(shown))
    return ["## Classes", *parts] if parts else []


def _shown(name: str) -> str:
    """The name of data or weights; of a path its last part: where it lay is nobody's concern."""
    if name.startswith(("/", "./", "../", "~")) or os.path.exists(name):
        return os.path.basename(os.path.abspath(name))
    if is_bucket(name):
        return name.rstrip("/").rpartition("/")[2]
    kind, colon, rest = name.partition(":")
    if rest.startswith("//"):
        return name  # It is public.
    return f"{kind}:{_shown(rest)}" if colon else name


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) > 1 else f"{value:.4f}"


def _triple(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _escaped(text: str) -> str:
    """A text that shows itself in Markdown, on one line."""
    return plain(text).strip().translate(_MARKDOWN)


def _quoted(text: str) -> str:
    """A text as YAML's double-quoted string."""
    # The two that YAML refuses although they are no control characters.
    shown = re.sub("[\ufffe\uffff]", "\ufffd", plain(text))
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
