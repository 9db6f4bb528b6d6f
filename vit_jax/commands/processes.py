"""What commands do about processes: the flags to join several, and how a process ends.

`parallel.agreement` says when which of its two mechanisms ends a run.
"""

import argparse
import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from vit_jax.commands.output import OutputError, give_up_output, say
from vit_jax.errors import Stopped, UserError
from vit_jax.plain import plain_lines

_OF_FILE_SYSTEMS = {
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR),
    *(errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE),
}
# What JAX raises when a collective breaks, or when another process is no longer heard of.
_PEER_IS_GONE = re.compile("(?i:gloo|nccl|coordination)|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED")


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that make a command one of several processes; see `join`."""
    group = parser.add_argument_group("several processes, each started with the same command")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="take the number of processes and this one's index from the launcher (Slurm, Open "
        "MPI, Kubernetes, TPU slice). Otherwise give all three of these:",
    )
    group.add_argument("--coordinator_address", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--num_processes", type=int, metavar="N", help="number of processes")
    group.add_argument(
        "--process_id", type=int, metavar="INDEX", help="index of this process, from 0"
    )


def join(arguments: argparse.Namespace, **options: Any) -> None:
    """Joins the other processes as the flags say; call it within `fail_together`.

    Args:
      **options: others of `join_processes`.
    """
    from vit_jax.parallel.processes import join_processes

    join_processes(
        arguments.coordinator_address,
        arguments.num_processes,
        arguments.process_id,
        distributed=arguments.distributed,
        **options,
    )


@contextmanager
def fail_together() -> Iterator[None]:
    """Around all work of a command: whatever ends one of several processes ends the others too.

    An interpreter that exits waits for the other processes to exit, and these may wait for it in a
    collective. So a process that fails leaves at once; the others notice and fail in turn.
    """
    from vit_jax.parallel.processes import is_joined

    try:
        yield
    except Stopped:
        raise  # All of them stop here, after the same step.
    except BaseException as error:
        if not is_joined():
            raise
        leave(explain(error))


def leave(code: int) -> NoReturn:
    """Ends the process at once; an interpreter that exits may crash on threads that compute."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def end_at_second_interrupt() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt once, and end the process the second time.

    The first one closes what is open, which another exception would leave half done.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # It is ignored, as in the background of a script.

    def second(*_: object) -> None:
        with suppress(OSError):
            os.write(2, b"interrupted twice, so ended at once\n")
        os._exit(128 + signal.SIGINT)

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, second)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, first)


def explain(error: BaseException) -> int:
    """Prints what ended a command, and returns its exit code."""
    match error:
        case UserError():
            say(f"error: {error}")
            return 2
        case Stopped():
            # As if the signal had ended the process, so that schedulers start it again.
            say(f"{error}; the same command resumes there")
            return error.code
        case KeyboardInterrupt():
            # As if SIGINT had ended it.
            say(f"interrupted; {error}" if error.args else "interrupted")
            return 130
        case BrokenPipeError():
            give_up_output()  # Whoever read it, such as `head`, has enough.
            return 141
        case OutputError():
            say(f"error: cannot write to standard output ({error.strerror})")
            give_up_output()
            return 1
    if (reason := told_by_system(error)) is not None:
        say(f"error: {reason}")
        return 2
    if _is_end_of_peer(error):
        reason = str(error).partition("\n")[0]
        say(f"error: another process has ended, so this one does too ({reason})")
    else:
        with suppress(OSError, AttributeError):
            print(plain_lines("".join(traceback.format_exception(error))), file=sys.stderr)
    return 1


def told_by_system(error: BaseException) -> str | None:
    """What is wrong, if a file system or an account is to blame and not the program."""
    if isinstance(error, OSError) and error.errno in _OF_FILE_SYSTEMS:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{where}{error.strerror}"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "this account has no home directory: set HOME to a directory that can be written"
    return None


def _is_end_of_peer(error: BaseException) -> bool:
    import jax

    is_from_jax = isinstance(error, jax.errors.JaxRuntimeError)
    return is_from_jax and _PEER_IS_GONE.search(str(error)) is not None
