"""Exceptions that are no fault of the program."""


class UserError(ValueError):
    """A mistake in what the user asked for, not a fault of the program.

    The message is one line that says what is wrong, where, and what to do about it. Commands
    print it and exit with code 2; libraries raise it like any `ValueError`.
    """

    def __init__(self, message: str):
        # Quoted input may hold line breaks, and Unicode has several kinds of them.
        super().__init__(" ".join(message.splitlines()))


class NoDataError(UserError):
    """A data set is missing.

    Attributes:
      problem: what is missing, and where.
      remedy: what to type, or which name may have been meant.
      is_registered: whether the name is known, so that the data set only has to be prepared.
        Otherwise the name may be misspelt.
    """

    def __init__(self, problem: str, remedy: str, *, is_registered: bool):
        super().__init__(f"{problem}; {remedy}")
        self.problem, self.remedy, self.is_registered = problem, remedy, is_registered


class NotSavedError(UserError):
    """State or metrics of a run could not be written; what was saved before is whole."""


class StorageError(UserError, OSError):
    """A bucket cannot be used: it does not answer, does not exist, or does not let one in.

    Code that expects a disk to fail with `OSError` expects this too.
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.strerror = str(self)


class TakenOverError(StorageError):
    """Another run has taken over the directory of this one, which must not write any more."""


class BadStepError(UserError):
    """A run must not go on from a step as it is.

    Attributes:
      step: the first step that it was seen after.
      key: of the config, which says what the run does then.
    """

    key: str

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step


class NotFiniteError(BadStepError):
    """The loss, the gradient or the state of a run is NaN or infinite."""

    key = "on_non_finite"


class SpikeError(BadStepError):
    """The loss of a step is far above those of the steps before."""

    key = "on_spike"


class Stopped(Exception):
    """A run was asked to end, and its state is saved; the message names the step.

    Attributes:
      code: the exit code, as if the signal that asked had ended the process.
    """

    def __init__(self, message: str, code: int = 143):
        super().__init__(message)
        self.code = code
