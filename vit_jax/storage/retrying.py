"""Requests to a bucket that fail for a while are made again, within a bound."""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from vit_jax.errors import StorageError

T = TypeVar("T")

# Answers that may be another one a little later: too slow, too many requests, a server's fault.
PASSING_STATUS = frozenset((408, 429, 500, 502, 503, 504))

# Seconds without an answer after which a request has failed: to connect, and between two pieces.
CONNECT, READ = 10.0, 30.0

# Seconds between two lines of the log about it.
_QUIET = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long requests are made again.

    Attributes:
      first: seconds before the second try; each further pause is twice as long, with a random part
        so that many hosts do not ask at the same moment.
      longest: seconds of the longest pause.
      total: seconds after which no further try begins. A try takes up to READ, so that the whole
        is bounded by the sum of the two.
    """

    first: float = 0.25
    longest: float = 16.0
    total: float = 120.0

    @property
    def tries(self) -> int:
        """How often a request is made again within the total, where only that can be set."""
        tries, pause, waited = 0, self.first, 0.0
        while waited + pause <= self.total:
            waited += pause
            pause = min(2 * pause, self.longest)
            tries += 1
        return tries

    @property
    def for_tensorstore(self) -> dict[str, Any]:
        """The same as an option of TensorStore's drivers of buckets, such as `gcs_request_retries`.

        https://google.github.io/tensorstore/kvstore/gcs/
        """
        return {
            "max_retries": self.tries,
            "initial_delay": f"{self.first}s",
            "max_delay": f"{self.longest}s",
        }


class Retrying:
    """Makes requests again, and says so in the log."""

    def __init__(self, patience: Patience | None = None):
        self.patience = patience or Patience()
        self._lock = threading.Lock()
        self._said, self._unsaid = -_QUIET, 0

    async def request(
        self,
        attempt: Callable[[], Awaitable[T]],
        what: str,
        is_passing: Callable[[Exception], bool],
    ) -> T:
        """What `attempt` returns, once it does.

        Args:
          what: is asked for, for the log.
          is_passing: whether an exception may be gone at the next try. All others are raised.

        Raises:
          StorageError: the last try has failed too.
        """
        began, pause, tries = time.monotonic(), self.patience.first, 0
        while True:
            try:
                return await attempt()
            except Exception as error:
                if not is_passing(error):
                    raise
                tries += 1
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                taken = time.monotonic() - began
                if taken + pause > self.patience.total:
                    raise StorageError(
                        f"{what}: no good answer in {taken:.0f} s and {tries} tries ({reason}); "
                        "check the network and the name, then type the same command again"
                    ) from error
                self._say(what, reason, tries)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, self.patience.longest)

    def _say(self, what: str, reason: str, tries: int) -> None:
        """Logs a failure; those that follow within a few seconds are counted in a later line."""
        with self._lock:
            if time.monotonic() - self._said < _QUIET:
                self._unsaid += 1
                return
            self._said, unsaid, self._unsaid = time.monotonic(), self._unsaid, 0
        _log.warning(
            "%s failed (%s), try %d%s; trying again for up to %.0f s",
            what,
            reason,
            tries,
            f", as did {unsaid} other requests since the last line" if unsaid else "",
            self.patience.total,
        )


retrying = Retrying()
