"""A model in a few lines, in place of its arrays: for a notebook and for `print`."""

import html
from collections.abc import Sequence

from vit_jax.image_size import format_size
from vit_jax.models.config import ModelConfig
from vit_jax.plain import plain
from vit_jax.preprocessing import PreprocessingConfig

_SHOWN_CLASSES = 5
Rows = list[tuple[str, str]]


def rows(config: ModelConfig, parameters: int, class_names: Sequence[str] | None) -> Rows:
    """What a model is: labels and texts.

    Args:
      config: completed.
      parameters: how many numbers they are.
      class_names: of the head, if known.
    """
    height, width = config.input_size
    found = [
        ("model", config.name),
        ("parameters", f"{parameters:,}"),
        ("images", f"float [batch, {height}, {width}, 3]"),
        ("activations", config.dtype),
    ]
    if config.num_classes:
        found.append(("classes", f"{config.num_classes:,}{_names(class_names)}"))
    else:
        found.append(("classes", "none: returns features"))
    if config.preprocessing is not None:
        found.append(("preprocessing", _in_words(config.preprocessing, config)))
    return found


def as_text(found: Rows) -> str:
    """A line each, below the model's name."""
    (_, name), *rest = found
    width = max(len(label) for label, _ in rest)
    return "\n".join([name, *(f"  {label:{width}}  {plain(text)}" for label, text in rest)])


def as_html(found: Rows) -> str:
    """A table."""
    lines = "".join(
        f'<tr><th style="text-align:left">{html.escape(label)}</th>'
        f'<td style="text-align:left">{html.escape(plain(text))}</td></tr>'
        for label, text in found
    )
    return f"<table>{lines}</table>"


def _names(class_names: Sequence[str] | None) -> str:
    if not class_names:
        return ""
    more = "; …" if len(class_names) > _SHOWN_CLASSES else ""
    return f": {'; '.join(class_names[:_SHOWN_CLASSES])}{more}"


def _in_words(how: PreprocessingConfig, config: ModelConfig) -> str:
    size = format_size(config.input_size)
    side = how.short_side or min(config.input_size)
    fit = (
        f"squashed to {size}" if how.resize == "squash" else f"shorter side {side}, crop of {size}"
    )
    smoothing = "antialiased" if how.antialias else "not antialiased"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
    return f"{fit}, {how.interpolation}, {smoothing}; mean {mean}; std {std}"
