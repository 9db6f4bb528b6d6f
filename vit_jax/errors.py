"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake in what the user asked for, not a fault of the program.

    The message is one line that says what is wrong, where, and what to do about it. Commands
    print it and exit with code 2; libraries raise it like any `ValueError`.
    """
