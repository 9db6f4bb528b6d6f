"""A run's claim on its directory in a bucket.

A disk has locks, which end with the process that holds them. In a bucket, the claim is an object
that only one can create, and that its holder writes again every few seconds. If it stays as it is
for longer, its holder is gone, and the next run takes it over: it replaces the very version that it
has watched, so that of several only one succeeds. Nobody compares clocks of different hosts.

The holder in turn stops writing before anyone else may think it gone, and ends once it sees that
another has taken over.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

from vit_jax.errors import StorageError, TakenOverError, UserError
from vit_jax.storage import objects
from vit_jax.storage.fences import NotNow, fences

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intervals:
    """Seconds of a claim.

    Attributes:
      renew: between two renewals.
      stale: without a renewal, after which another run may take over.
      watch: between two looks at a claim of another run.
    """

    renew: float = 20.0
    stale: float = 60.0
    watch: float = 2.0


INTERVALS = Intervals()


class Claim:
    """Holds a directory of a bucket for this process, from now until `release`.

    Args:
      directory: its address.
      name: of the object in it.

    Raises:
      UserError: another run holds it.
      StorageError: the bucket cannot be used.
    """

    def __init__(self, directory: str, name: str = "lock", intervals: Intervals | None = None):
        self._directory = directory.rstrip("/")
        self._path = f"{self._directory}/{name}"
        self._intervals = intervals or INTERVALS
        self._id, self._count = uuid.uuid4().hex, 0
        self._lost: str | None = None
        self._released = threading.Event()
        self._version, self._renewed = self._take()
        fences.put_up(self._directory, self._check_change)
        self._thread = threading.Thread(target=self._keep, name="claim", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises `TakenOverError` if another run has taken over."""
        if self._lost is not None:
            raise TakenOverError(self._lost)

    def release(self) -> None:
        """Lets the next run in at once."""
        self._released.set()
        self._thread.join()
        fences.take_down(self._directory)
        if self._lost is None:
            try:
                self._write(is_released=True)
            except StorageError as error:
                _log.warning("%s; the next run has to wait %.0f s", error, self._intervals.stale)

    def _take(self) -> tuple[str, float]:
        """The version of the claim, and when it was made by `time.monotonic`."""
        seen = began = None
        while True:
            # In this order: what it says may be newer than its version, and then is not replaced.
            version = objects.version(self._path)
            found = None if version is None else _read(self._path)
            holder = None if found is None or found.get("released") else found
            if holder is not None and version != seen:
                if seen is not None:
                    raise UserError(
                        f"the work directory {self._directory} is in use by another run, on "
                        f"{_words(holder)}; wait for it, end it, or choose another with --workdir"
                    )
                seen, began = version, time.monotonic()
                _log.warning(
                    "%s is claimed by a run on %s: waiting %.0f s to see whether it still goes on",
                    self._directory,
                    _words(holder),
                    self._intervals.stale,
                )
            waited = time.monotonic() - (began or 0)
            if holder is not None and waited < self._intervals.stale:
                time.sleep(min(self._intervals.watch, self._intervals.stale - waited))
                continue
            now = time.monotonic()
            taken = objects.write_if(self._path, self._content(), version)
            if taken is None:
                seen = seen or ""  # Another was faster: it is watched, and refused once it goes on.
                continue
            if holder is not None:
                _log.warning(
                    "%s: the run on %s has not been heard of for %.0f s; this one takes over",
                    self._directory,
                    _words(holder),
                    self._intervals.stale,
                )
            return taken, now

    def _keep(self) -> None:
        """Renews the claim until it is released or lost."""
        while not self._released.wait(self._intervals.renew):
            now = time.monotonic()
            try:
                version = self._write()
            except StorageError as error:
                _log.warning("the claim could not be renewed: %s", error)
                continue
            if version is None:
                self._lost = (
                    f"the work directory {self._directory} was taken over by another run"
                    f"{_new_holder(self._path)}, as this one was not heard of for "
                    f"{self._intervals.stale:.0f} s; this one ends and writes nothing more"
                )
                return
            self._version, self._renewed = version, now

    def _write(self, *, is_released: bool = False) -> str | None:
        """Writes the claim again; returns its new version, or None if it is another run's."""
        content = self._content(is_released=is_released)
        written = objects.write_if(self._path, content, self._version)
        if written is None:
            # A renewal that failed may have been written all the same, without any answer.
            version, found = objects.version(self._path), _read(self._path)
            if version is not None and found is not None and found.get("id") == self._id:
                written = objects.write_if(self._path, content, version)
        return written

    def _check_change(self, path: str) -> None:
        """Is asked before anything below the directory is changed."""
        if path == self._path:
            return
        self.check()
        # A request may be on its way for a while, so that it must begin earlier.
        if time.monotonic() - self._renewed > 0.75 * self._intervals.stale:
            raise NotNow(f"the claim on {self._directory} waits for its renewal")

    def _content(self, *, is_released: bool = False) -> bytes:
        self._count += 1  # Never twice the same.
        content = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "id": self._id,
            "renewals": self._count,
            "released": is_released,
        }
        return (json.dumps(content) + "\n").encode()


def _read(path: str) -> dict[str, Any] | None:
    """What a claim says; None if there is none."""
    try:
        content = json.loads(objects.read_bytes(path))
    except FileNotFoundError:
        return None
    except ValueError:
        content = {}
    return content if isinstance(content, dict) else {}


def _words(claim: dict[str, Any]) -> str:
    return f"host {claim.get('host', 'unknown')}, process {claim.get('process', 'unknown')}"


def _new_holder(path: str) -> str:
    try:
        found = _read(path)
    except StorageError:
        return ""
    return f" on {_words(found)}" if found else ""
