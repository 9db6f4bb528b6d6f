"""Locks on files: they end with the process that holds them, however it ends."""

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Only Linux is supported; other systems do without.
    fcntl = None  # type: ignore[assignment]


def try_lock(file: IO[Any] | int) -> bool:
    """Locks an open file unless another process holds it; returns whether it did."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def lock_with_others(file: IO[Any] | int) -> None:
    """Locks an open file together with others that do so, and waits for one that has it alone."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_SH)


def lock(file: IO[Any] | int) -> None:
    """Locks an open file, and waits for another process that holds it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)
