"""The pictures of `predict --attention_maps`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vit_jax.errors import UserError

if TYPE_CHECKING:
    from vit_jax.inference.prediction import Seen


class AttentionMaps:
    """A directory with a picture for each image, under the image's path and name.

    Args:
      directory: is made if it is missing.
      named: as in `--images`: files, folders and patterns.
      files: all images; paths are kept below the deepest folder that holds them all.

    Raises:
      UserError: the directory lies among the images: its pictures would be read the next time.
    """

    def __init__(self, directory: Path, named: Sequence[str], files: Sequence[str]) -> None:
        self._directory = directory
        self._root = os.path.commonpath([os.path.dirname(os.path.abspath(f)) for f in files])
        folders = [path for each in named if os.path.isdir(path := os.path.expanduser(each))]
        if any(_is_below(directory, each) for each in folders) or any(
            _is_below(each, directory) for each in files
        ):
            raise UserError(
                f"--attention_maps={directory} lies among the images, and its pictures would be "
                "taken for some; choose a directory of its own"
            )

    def write(self, file: str, seen: "Seen") -> None:
        """Writes the picture of an image: `DIR/sub/a.jpg.png` for `sub/a.jpg`.

        Raises:
          UserError: it cannot be written.
        """
        from vit_jax.analysis.attention_maps import overlay

        path = self._directory / f"{os.path.relpath(os.path.abspath(file), self._root)}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            overlay(*seen).save(path, compress_level=1)
        except OSError as error:
            raise UserError(
                f"--attention_maps={self._directory}: cannot write {path.name} "
                f"({error.strerror or error}); choose another directory"
            ) from error


def _is_below(path: str | Path, folder: str | Path) -> bool:
    folder = os.path.realpath(folder)
    return os.path.commonpath([folder, os.path.realpath(path)]) == folder
