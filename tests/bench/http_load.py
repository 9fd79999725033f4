"""Many publishers over HTTP/1.1, each on a connection that is kept, one request after the other.

Raw sockets and one epoll descriptor: a request and its answer take some 10 us of this process, so
that it is the servers that are measured.
"""

import re
import select
import socket
import time
from dataclasses import dataclass

from tests.bench.report import quantile

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
WITHIN_S = 30.0
"""No server takes longer for any answer."""


@dataclass(frozen=True, slots=True)
class Load:
    """What publishers saw."""

    rate: float
    p50_ms: float
    p99_ms: float
    client_share: float
    """Of a processor, what this process took."""


class _Connection:
    __slots__ = ("received", "sent_at", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self.received = b""

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.sock.sendall(request)

    def receive(self) -> bool:
        """Return whether the answer is complete; raises when it is none of success."""
        self.received += self.sock.recv(65536)
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = LENGTH.search(head + b"\r\n")
        if not end or (length is not None and len(body) < int(length[1])):
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(self.received.decode("latin-1"))
        self.received = b""
        return True


def load(port: int, request: bytes, publishers: int, warm_up_s: float, seconds: float) -> Load:
    """Let so many publishers send one request after the other; the warm-up does not count."""
    connections = [_Connection(port) for _ in range(publishers)]
    latencies_s: list[float] = []
    with select.epoll() as epoll:
        by_fd = {connection.sock.fileno(): connection for connection in connections}
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        begin = time.perf_counter() + warm_up_s
        end = begin + seconds
        cpu_s = time.process_time()
        for connection in connections:
            connection.send(request)
        while (now := time.perf_counter()) < end:
            ready = epoll.poll(WITHIN_S)
            if not ready:
                raise TimeoutError(f"no answer within {WITHIN_S:g} s")
            for fd, _ in ready:
                connection = by_fd[fd]
                if connection.receive():
                    now = time.perf_counter()
                    if begin <= now < end:
                        latencies_s.append(now - connection.sent_at)
                    connection.send(request)
    share = (time.process_time() - cpu_s) / (warm_up_s + seconds)
    for connection in connections:
        connection.sock.close()
    p50_s, p99_s = (quantile(latencies_s, share) for share in (0.5, 0.99))
    return Load(len(latencies_s) / seconds, 1000 * p50_s, 1000 * p99_s, share)
