"""The pictures of `predict --attention_maps`."""

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etils import epath

from vit_jax.data.sources import bucket_folder
from vit_jax.errors import StorageError, UserError
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket

if TYPE_CHECKING:
    from vit_jax.inference.prediction import Seen


class AttentionMaps:
    """A directory with a picture for each image, under the image's path and name.

    Args:
      directory: is made if it is missing.
      named: as in `--images`: files, folders and patterns.
      files: all images; paths are kept below the deepest folder that holds them all.

    Raises:
      UserError: the directory lies among the images: its pictures would be read the next time; or
        its bucket cannot be used.
    """

    def __init__(self, directory: epath.Path, named: Sequence[str], files: Sequence[str]) -> None:
        self._directory = directory
        self._root = os.path.commonpath([os.path.dirname(_place(file)) for file in files])
        folders = [path for each in named if _is_folder(path := os.path.expanduser(each))]
        if any(_is_below(directory, each) for each in folders) or any(
            _is_below(each, directory) for each in files
        ):
            raise UserError(
                f"--attention_maps={directory} lies among the images, and its pictures would be "
                "taken for some; choose a directory of its own"
            )
        if is_bucket(directory):
            objects.require_writable(directory / "maps")

    def write(self, file: str, seen: "Seen") -> None:
        """Writes the picture of an image: `DIR/sub/a.jpg.png` for `sub/a.jpg`.

        Raises:
          UserError: it cannot be written.
        """
        from vit_jax.analysis.attention_maps import overlay

        path = self._directory / f"{os.path.relpath(_place(file), self._root)}.png"
        picture = io.BytesIO()
        overlay(*seen).save(picture, "PNG", compress_level=1)
        try:
            objects.write_bytes(path, picture.getvalue())
        except StorageError:
            raise
        except OSError as error:
            raise UserError(
                f"--attention_maps={self._directory}: cannot write {path.name} "
                f"({error.strerror or error}); choose another directory"
            ) from error


def _place(path: str | os.PathLike[str]) -> str:
    """An absolute path; of an object, one that names its bucket as a folder."""
    if is_bucket(path):
        return f"/{os.fspath(path).replace('://', '/', 1)}"
    return os.path.abspath(path)


def _is_folder(path: str) -> bool:
    return bucket_folder.is_folder(path) if is_bucket(path) else os.path.isdir(path)


def _is_below(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    if is_bucket(path) != is_bucket(folder):
        return False
    above, below = (_place(p) if is_bucket(p) else os.path.realpath(p) for p in (folder, path))
    return os.path.commonpath([above, below]) == os.path.normpath(above)
