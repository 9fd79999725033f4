"""Ports for the servers of tests and benchmarks."""

import itertools
import random
import socket
from collections.abc import Iterator

HOST = "127.0.0.1"


def _candidates() -> Iterator[int]:
    """Yield ports below the range from which the kernel takes ports for outgoing connections.

    Otherwise a connection could take the port before its server starts, or while it is dead. Then
    the server cannot start; and somebody who dials it again and again would one day be connected to
    himself.
    """
    first = random.Random().randrange(10_000, 24_000)
    return itertools.count(first)


_CANDIDATES = _candidates()


def free_port() -> int:
    """Return a port that is free for TCP and UDP, and will be free again when its owner died."""
    for port in _CANDIDATES:
        try:
            with (
                socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            ):
                tcp.bind((HOST, port))
                udp.bind((HOST, port))
        except OSError:
            continue
        return port
    raise AssertionError("ports never end")
