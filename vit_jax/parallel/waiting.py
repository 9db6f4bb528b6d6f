"""What a process waits for at the start, while the processes of a run join."""

import socket
from pathlib import Path


def describe(address: str | None, process: int, count: int | None) -> str:
    """Returns for whom a process waits, at which address, and what is known of the reason.

    Args:
      address: `HOST:PORT` of process 0; None if the launcher has not told it yet.
      process: the number of this process.
      count: the number of all processes.
    """
    if address is None:
        return "this process waits for its launcher to tell the address of process 0"
    host, _, port = address.rpartition(":")
    if process == 0:
        others = (count or 1) - 1
        joined = _connections(int(port)) if port.isdecimal() else None
        if joined is None or not 1 <= joined <= others:
            return f"process 0 waits at {address} for {others} of {count} processes"
        # One connection is its own.
        missing = others - (joined - 1)
        return f"process 0 waits at {address} for {missing} of {count} processes"
    return f"process {process} waits for process 0 at {address}, {_state(host, port)}"


def _state(host: str, port: str) -> str:
    """What a process sees of process 0."""
    try:
        socket.getaddrinfo(host.strip("[]"), port)
    except (OSError, UnicodeError):
        return "a name that does not resolve here"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"which does not answer ({reason})"
    return "which is up, but other processes are missing"


def _connections(port: int) -> int | None:
    """Open TCP connections to a port of this host, which Linux lists; None elsewhere."""
    found = 0
    try:
        for table in ("tcp", "tcp6"):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                found += state == "01" and int(local.rpartition(":")[2], 16) == port
    except (OSError, ValueError):
        return None
    return found
