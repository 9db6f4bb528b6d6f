"""Exceptions that are no fault of the program."""


class UserError(ValueError):
    """A mistake in what the user asked for, not a fault of the program.

    The message is one line that says what is wrong, where, and what to do about it. Commands
    print it and exit with code 2; libraries raise it like any `ValueError`.
    """

    def __init__(self, message: str):
        # What it quotes of the user's may hold line breaks, of which Unicode has several.
        super().__init__(" ".join(message.splitlines()))


class NoDataError(UserError):
    """A data set that is not here.

    Attributes:
      is_known: whether it has only to be prepared; else its name may be a slip.
    """

    def __init__(self, message: str, *, is_known: bool):
        super().__init__(message)
        self.is_known = is_known


class Stopped(Exception):
    """A run was asked to end, and its state is saved; the message says after which step."""
