"""What a person may change of a run that resumes: its length, and its data if that is meant."""

import logging
import os
from collections.abc import Mapping

import jax

from vit_jax.data.sources.records import Source, listing
from vit_jax.errors import StorageError, UserError
from vit_jax.runs import data_list
from vit_jax.runs.config_file import is_run, read_extension
from vit_jax.runs.directory import RunDirectory
from vit_jax.training.schedule import make_schedule
from vit_jax.training.setup import Setup

_log = logging.getLogger(__name__)


def extended_steps(workdir: str | os.PathLike[str], extend_to: int | None) -> int | None:
    """Steps of the run in a directory in place of those in its config; None if those hold.

    Args:
      extend_to: what `train` was asked for; None is what the directory says.

    Raises:
      UserError: there is no run, or it was extended further.
    """
    if not is_run(workdir):
        if extend_to is not None:
            raise UserError(
                f"--extend_to={extend_to}: {workdir} is not the directory of a run; start one with "
                f"--config.total_steps={extend_to}"
            )
        return None
    stored = read_extension(workdir)
    if extend_to is not None and stored is not None and extend_to < stored:
        raise UserError(
            f"--extend_to={extend_to}: the run was extended to {stored} steps; name that or more"
        )
    return extend_to or stored


def extend(setup: Setup, directory: RunDirectory, extend_to: int | None) -> int | None:
    """Notes an extension in the run's directory; returns the steps before, or None without one.

    Raises:
      UserError: the run has as many steps already.
    """
    if extend_to is None:
        return None
    before = read_extension(directory.path) or setup.config.steps(len(setup.source))
    if extend_to == read_extension(directory.path):
        return None  # The same command, once more.
    if extend_to <= before:
        raise UserError(f"--extend_to={extend_to}: the run has {before} steps in all; give more")
    if jax.process_index() == 0:
        directory.extend(before, extend_to)
    return before


def describe_extension(setup: Setup, before: int, start: int) -> str:
    """A line that says what an extension does to the schedule.

    Args:
      before: the steps that the run had.
      start: the step after which it resumes.
    """
    old = float(make_schedule(setup.config.optimizer, before)(max(start - 1, 0)))
    new = float(setup.program.schedule(start))
    return (
        f"extended from {before} to {setup.total_steps} steps: from step {start + 1} on, the rate "
        f"follows the schedule of {setup.total_steps} steps ({new:.3g}, after {old:.3g} in the "
        f"schedule of {before})"
    )


def check_data(
    directory: RunDirectory, sources: Mapping[str, Source], step: int, *, accept: bool
) -> None:
    """Compares the data with what the run was trained and scored on, on process 0; reads no image.

    Args:
      step: the step after which the run resumes; at 0 nothing was computed from other data.
      accept: whether other data is meant; the differences are then noted in the directory.

    Raises:
      UserError: the data differs, and that was not accepted.
    """
    if jax.process_index() != 0:
        return
    new = {name: listing(source) for name, source in sources.items()}
    if step and not _is_unchanged(directory, new, step, accept):
        _log.warning("other data from step %d on, as accepted", step + 1)
    try:
        data_list.write(directory.data_list, new)
    except StorageError:
        raise
    except OSError as error:
        raise UserError(f"cannot write {directory.data_list} ({error.strerror})") from error


def _is_unchanged(directory: RunDirectory, new: data_list.Lists, step: int, accept: bool) -> bool:
    try:
        old = data_list.read(directory.data_list)
    except UserError:
        if not accept:
            raise
        directory.note_changed_data(step, 0, [f"{directory.data_list.name} was damaged"])
        return False
    if old is None:
        _log.warning(
            "%s does not say which data the run was trained on, as those of version 0.1.0 do not: "
            "today's is taken for it",
            directory.path,
        )
        return True
    found, first = data_list.differences(old, new)
    if found and not accept:
        more = f"; and {found - len(first)} more" if found > len(first) else ""
        raise UserError(
            f"the data is not what the run in {directory.path} was trained and scored on "
            f"({'; '.join(first)}{more}); restore it, or add --accept_changed_data to go on with it"
        )
    if found:
        directory.note_changed_data(step, found, first)
    return not found
