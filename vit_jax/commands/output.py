"""What commands print: on streams that may be closed, full or broken, and in plain characters."""

import contextlib
import errno
import io
import logging
import os
import sys
from typing import Any, BinaryIO, TextIO

from vit_jax.plain import plain, plain_lines


class OutputError(OSError):
    """Standard output does not take what a command prints."""


class _Stream(io.TextIOWrapper):
    """A standard stream whose failures are told apart from those of files, or do not matter.

    Args:
      buffer: what it writes to.
      needed: whether a failure raises `OutputError`, or `BrokenPipeError` where whoever read it has
        enough. Otherwise what cannot be written is lost.
    """

    def __init__(self, buffer: BinaryIO, *, needed: bool, **options: Any) -> None:
        super().__init__(buffer, errors="backslashreplace", **options)
        self.is_needed = needed

    def write(self, text: str, /) -> int:
        """Writes text; returns its length."""
        with self._failing():
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Writes what is kept back."""
        with self._failing():
            super().flush()

    @contextlib.contextmanager
    def _failing(self) -> Any:
        try:
            yield
        except OSError as error:
            if not self.is_needed:
                _lead_nowhere(2 if self is sys.stderr else 1)
            elif isinstance(error, BrokenPipeError):
                raise
            else:
                raise OutputError(error.errno, error.strerror) from error


class _Closed(io.RawIOBase):
    """In the place of a stream that was closed before the program started."""

    _has_failed = False

    def writable(self) -> bool:
        """As every stream says it."""
        return True

    def write(self, data: Any, /) -> int:
        """Fails, as it does for every program; once, because the interpreter tries again."""
        if self._has_failed:
            return len(data)
        self._has_failed = True
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def open_streams(*, needed: bool) -> None:
    """Mends the standard streams at the start of a program.

    Args:
      needed: whether a command is for nothing without its standard output. Standard error is never
        needed.
    """
    closed = []
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The next file that is opened would take the number, and libraries would print into it.
            # This one takes the lowest free number.
            os.open(os.devnull, os.O_RDWR)
            closed.append(descriptor)
    sys.stdout = _mended(sys.stdout, needed and 1 in closed, needed)
    sys.stderr = _mended(sys.stderr, False, False)


def _mended(stream: TextIO | None, fails: bool, needed: bool) -> TextIO:
    if fails:
        return _Stream(io.BufferedWriter(_Closed()), needed=needed, encoding="utf-8")
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream  # Somebody has put another one there.
    is_prompt = stream.line_buffering or stream.isatty()
    encoding = stream.encoding
    return _Stream(
        stream.detach(),
        needed=needed,
        encoding=encoding,
        line_buffering=is_prompt,
    )


def _lead_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def give_up_output() -> None:
    """Keeps the interpreter from writing at its end what could not be written before."""
    _lead_nowhere(1)
    if isinstance(sys.stdout, _Stream):
        sys.stdout.is_needed = False


def say(line: str) -> None:
    """Writes a plain line to standard error, if there is anybody to read it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(plain(line), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Writes text, of one line or several, to standard output at once."""
    print(plain_lines(text), flush=True)


class PlainFormatter(logging.Formatter):
    """Log lines as `plain` writes them; those of other libraries may be several."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        is_own = record.name.partition(".")[0] == "vit_jax"
        if is_own and not record.exc_info and not record.stack_info:
            return plain(record.getMessage())
        return plain_lines(super().format(record))
