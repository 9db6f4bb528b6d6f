"""Draws of a few examples of each class: by a seed, and written down for others to repeat."""

import json
from collections.abc import Sequence

import numpy as np

from vit_jax.data.sources.records import Source, file_paths
from vit_jax.errors import StorageError, UserError
from vit_jax.evaluation.frozen_features import Labelled
from vit_jax.storage import objects
from vit_jax.storage.paths import as_path


def draw_shots(labels: np.ndarray, most: int, seed: int, draw: int) -> np.ndarray:
    """Draws the same number of examples of each class.

    Fewer shots are the first columns. What is drawn of a class depends on its own examples, the
    seed and the draw alone.

    Args:
      labels: int [rows]; each that occurs has at least `most` rows.
      draw: number of the draw, from 0.

    Returns:
      int [classes, most]: the drawn rows of each class that occurs, in the order of the labels.
    """
    drawn = []
    for label in np.unique(labels).tolist():
        rng = np.random.default_rng((seed, draw, label))
        drawn.append(rng.permutation(np.flatnonzero(labels == label))[:most])
    return np.stack(drawn)


def write_draws(
    file: str, source: Source, examples: Labelled, draws: Sequence[np.ndarray], seed: int
) -> None:
    """Writes the names of the drawn images as JSON, by draw and by class.

    Args:
      file: to write.
      source: which the examples are of.
      draws: as `draw_shots` returns each.

    Raises:
      UserError: the file cannot be written.
    """
    classes = np.unique(examples.labels).tolist()
    paths = file_paths(source)

    def image_name(position: int) -> str:
        # A record of a file would be read for its name alone.
        return source[position].name if paths is None else paths[position]

    written = {
        "data": source.name,
        "seed": seed,
        "rule": "K shots of a class are the first K images of its list",
        "draws": [
            {
                class_name(source, label): [
                    image_name(position) for position in examples.positions[of_class].tolist()
                ]
                for label, of_class in zip(classes, rows, strict=True)
            }
            for rows in draws
        ],
    }
    text = json.dumps(written, indent=1, ensure_ascii=False) + "\n"
    try:
        # Names of files need not be text.
        objects.write_bytes(as_path(file), text.encode("utf-8", "backslashreplace"))
    except StorageError:
        raise
    except OSError as error:
        raise UserError(f"draws_file={file}: {error.strerror}; choose another file") from error


def class_name(source: Source, label: int) -> str:
    """The name of a class; its number if it has none."""
    return source.class_names[label] if label < len(source.class_names) else str(label)
