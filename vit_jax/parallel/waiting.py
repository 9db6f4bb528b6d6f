"""What a process waits for at the start, while the processes of a run join."""

import ipaddress
import socket
from collections import Counter
from pathlib import Path

# Where Linux lists the TCP connections of this host; other systems have no such files.
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))

# The address and the port of one end of a connection.
_End = tuple[str, int]


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
    whom = "process 0 waits" if process == 0 else f"process {process} waits for process 0"
    if not resolves(address):
        return f"{whom} at {address}, a name that does not resolve here"
    if process != 0:
        return f"{whom} at {address}, {_answer(host, port)}"
    others = (count or 1) - 1
    connected = _connected(int(port)) if port.isdecimal() else None
    # One connection is its own.
    if connected is None or not 1 <= connected.total() <= others:
        return f"{whom} at {address} for {others} of {count} processes"
    missing = others - (connected.total() - 1)
    elsewhere = [f"{number} from {host}" for host, number in sorted(connected.items()) if host]
    come = f" (come so far: {', '.join(elsewhere)})" if elsewhere else ""
    return f"{whom} at {address} for {missing} of {count} processes{come}"


def resolves(address: str) -> bool:
    """Whether this host knows the name in `HOST:PORT`."""
    host, _, port = address.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), port)
    except (OSError, UnicodeError):
        return False
    return True


def _answer(host: str, port: str) -> str:
    """What another process sees of process 0."""
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"which does not answer ({reason})"
    return "which is up, but other processes are missing"


def _connected(port: int) -> Counter[str] | None:
    """How many connections to a port of this host are open, by the hosts from which they come.

    Those of this host are counted under "". None where the system does not list them.
    """
    try:
        lines = [line for table in _TABLES for line in table.read_text().splitlines()[1:]]
        ends = [
            (_end(local), _end(remote))
            for _, local, remote, state, *_ in map(str.split, lines)
            if state == "01"
        ]
    except (OSError, ValueError):
        return None
    # A connection within this host is listed twice, once from each end.
    here = {local for local, _ in ends}
    return Counter(
        "" if remote in here else remote[0] for local, remote in ends if local[1] == port
    )


def _end(text: str) -> _End:
    """An end of a connection, from hexadecimal words in the byte order of this host."""
    address, _, port = text.rpartition(":")
    words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
    found = ipaddress.ip_address(b"".join(words))
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(found), int(port, 16)
