"""Keeps a process from changing objects in a bucket once they may be another's.

A bucket has no lock that ends with its holder. So whoever has a directory to itself for a while
says here until when, and every request of this process that would change something below that
directory asks first.
"""

import threading
from collections.abc import Callable


class NotNow(ConnectionError):
    """It is not known just now whether the directory is this process's; it will be."""


class Fences:
    """Directories, and what says whether they may be changed now."""

    def __init__(self) -> None:
        self._checks: dict[str, Callable[[str], None]] = {}
        self._lock = threading.Lock()

    def put_up(self, directory: str, check: Callable[[str], None]) -> None:
        """From now on, `check` is asked before a change below a directory.

        Args:
          check: takes the path that is to be changed; raises `NotNow` if the change is to be tried
            again a little later, and `StorageError` if it must never be made.
        """
        with self._lock:
            self._checks[directory.rstrip("/") + "/"] = check

    def take_down(self, directory: str) -> None:
        """Ends what `put_up` began."""
        with self._lock:
            self._checks.pop(directory.rstrip("/") + "/", None)

    def check(self, path: str) -> None:
        """Asks before a change.

        Raises:
          NotNow, StorageError: as above.
        """
        with self._lock:
            checks = [check for root, check in self._checks.items() if path.startswith(root)]
        for each in checks:
            each(path)


fences = Fences()
