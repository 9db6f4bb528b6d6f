"""Moves what is no whole checkpoint out of the way, to `unreadable/` in the run's directory."""

import logging
import os

import jax
from etils import epath

from vit_jax.errors import UserError
from vit_jax.storage import objects
from vit_jax.storage.paths import is_bucket

# The file that Orbax adds to a checkpoint in a bucket once it is complete.
COMMITTED = "commit_success.txt"

_log = logging.getLogger(__name__)


def move_no_directories_aside(directory: epath.Path) -> None:
    """Moves a pipe or a dangling link under a step's name aside: Orbax opens what is there.

    Args:
      directory: of the checkpoints.

    Raises:
      UserError: there is no checkpoint besides.
    """
    if is_bucket(directory):
        return
    if jax.process_index() == 0 and directory.is_dir():
        steps = [path for path in directory.iterdir() if path.name.isdecimal()]
        strange = [path for path in steps if not path.is_dir()]
        if strange and len(strange) == len(steps):
            raise UserError(
                f"{strange[0]} is no directory, and there is no other checkpoint; remove "
                f"{directory} to start anew"
            )
        for path in strange:
            _log.warning("the checkpoint of step %s is broken: it is no directory", path.name)
            move_aside(path)


def move_aside(path: epath.Path) -> None:
    """Moves a checkpoint to `unreadable/` in the run's directory."""
    aside = path.parent.parent / "unreadable"
    if is_bucket(path):
        _move_objects(path, aside)
        return
    aside.mkdir(exist_ok=True)
    target = aside / path.name
    while os.path.lexists(target):
        target = target.with_name(target.name + "+")
    path.rename(target)


def _move_objects(path: epath.Path, aside: epath.Path) -> None:
    name, taken = path.name, objects.list_names(aside)
    while name in taken:
        name += "+"
    # What makes it a checkpoint comes last: a move that is interrupted is made again.
    for file in sorted(objects.list_files(path), key=lambda file: file == COMMITTED):
        objects.move(path / file, aside / name / file)
