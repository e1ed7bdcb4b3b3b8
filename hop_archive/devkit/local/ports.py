"""Which TCP ports the servers listen on."""

from __future__ import annotations

import random
import socket

from hop_archive.errors import UnavailableError

LOOPBACK = "127.0.0.1"

# Below 32768, where Linux begins to hand out ports to outgoing connections: a port from there may be in
# somebody's use at the moment when a stopped server wants it back.
_CHOICE = range(20_000, 32_000)
_ATTEMPTS = 1_000

# Not the module's generator: a test that seeds that one would send every stack to the same ports.
_random = random.SystemRandom()


def is_free(port: int) -> bool:
    """Tell whether a server could listen on `port` of the loopback address now; a moment later it may not."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # As the servers do: connections of a predecessor that linger in TIME_WAIT are no hindrance.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_ports(count: int) -> tuple[int, ...]:
    """Return `count` different ports that are free now, chosen at random so that two stacks seldom meet.

    Raises:
        UnavailableError: Hardly a port of the range is free.
    """
    chosen: set[int] = set()
    for _ in range(_ATTEMPTS):
        if len(chosen) == count:
            return tuple(sorted(chosen))
        port = _random.choice(_CHOICE)
        if is_free(port):
            chosen.add(port)
    raise UnavailableError(
        f"Found fewer than {count} free ports between {_CHOICE.start} and {_CHOICE.stop} on {LOOPBACK}.",
        remedy="Stop what is listening there.",
    )
