"""Many clients in one process, on one epoll: connects, reads, reconnects; told what to do by lines.

Enters: orders, one JSON object a line on stdin. Leaves: one answer a line on stdout, and counts in
shared memory.
Never: waiting for one client while another has something to read.

`python -m tests.bench.load.fleet` is a process of its own because the load generator must have more
CPU than the server that it measures, and because its clients are read at once, always.
"""

import errno
import heapq
import json
import mmap
import os
import resource
import select
import socket
import ssl
import struct
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from noti.errors import MessageInvalid
from tests.bench.load.reading import Body, Reader, Reading
from tests.bench.load.tally import DELAY_STEP_NS, Tally
from tests.bench.load.websocket_reading import WebSocketBody

FIRST_READ_BYTES: Final = 4 * 1024
"""Most often one event is there: a larger buffer would cost more than the call."""
READ_BYTES: Final = 64 * 1024
RETRY_S: Final = 1.0
"""Until a client whose stream ended comes back, unless the server ordered another delay."""

COUNTS: Final = struct.Struct("=qq")
"""What each fleet shares: events received, and streams open now."""

_ORDERS_BYTES_MAX: Final = 64 * 1024
_READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP


@dataclass(frozen=True, slots=True)
class Target:
    """Where clients connect, and what they ask for."""

    family: int
    address: tuple[Any, ...]
    request_head: bytes
    """The request without the blank line that ends it."""
    sources: int = 1
    """Loopback addresses to connect from: each has room for some 28,000 ports."""
    host: str = ""
    """What the certificate must name."""
    tls: ssl.SSLContext | None = None
    body: type[Body] | type[WebSocketBody] = Body

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Target":
        """Return what a fleet was told."""
        tls = None
        if document["tls"]:
            tls = ssl.create_default_context(cafile=document["tls_ca"])
        return cls(
            document["family"],
            tuple(document["address"]),
            document["request_head"].encode("latin-1"),
            document["sources"],
            document["host"],
            tls,
            WebSocketBody if document["websocket"] else Body,
        )


class Client:
    """One browser."""

    __slots__ = ("body", "expected_seq", "last_event_id", "number", "retry_s", "sock")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sock: socket.socket | None = None
        self.body: Body | WebSocketBody | None = None
        self.last_event_id = ""
        self.expected_seq = 1
        self.retry_s = RETRY_S


class Fleet:
    """The clients of this process."""

    def __init__(self, target: Target, reader: Reader, counts: memoryview) -> None:
        self._target = target
        self._reader = reader
        self._counts = counts
        self._epoll = select.epoll()
        self._clients: list[Client] = []
        self._by_fd: dict[int, Client] = {}
        self._to_open: deque[Client] = deque()
        self._later: list[tuple[float, int, Client]] = []
        self._opening = 0
        self._in_flight_max = 1
        self._open = 0
        self._ever_open = False
        self._waiting_for: dict[str, Any] | None = None
        self._events_ever = 0
        self.tally = Tally()
        self._orders = b""

    def run(self) -> None:
        """Serve orders until stdin ends."""
        os.set_blocking(0, False)
        self._epoll.register(0, select.EPOLLIN)
        while True:
            timeout = -1.0
            if self._later:
                timeout = max(0.0, self._later[0][0] - time.monotonic())
            for fd, events in self._epoll.poll(timeout, 1024):
                if fd == 0:
                    if not self._take_orders():
                        return
                    continue
                client = self._by_fd.get(fd)
                if client is None:
                    continue
                if client.body is not None:
                    self._read(client, client.body, fd)
                elif isinstance(client.sock, ssl.SSLSocket):
                    self._shake_hands(client, client.sock, fd)
                elif events & select.EPOLLOUT:
                    self._connected(client, fd)
            self._come_back()
            self._open_more()
            COUNTS.pack_into(self._counts, 0, self._events_ever, self._open)
            self._answer_when_done()

    # Orders

    def _take_orders(self) -> bool:
        data = os.read(0, _ORDERS_BYTES_MAX)
        *lines, self._orders = (self._orders + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return bool(data)

    def _obey(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "open":
                first = len(self._clients)
                new = [Client(first + n) for n in range(order["clients"])]
                self._clients += new
                self._begin(new, order)
            case "drop":
                for client in self._clients:
                    self._close(client)
                self._later.clear()
                _answer({"open": self._open})
            case "reopen":
                self._begin(self._clients, order)
            case "reach":
                self._waiting_for = order | {"since": time.monotonic()}
            case "start":
                self.tally = Tally()
                _answer({})
            case "report":
                _answer(self._report(order["last_seq"]))
            case unknown:
                raise AssertionError(unknown)

    def _begin(self, clients: list[Client], order: dict[str, Any]) -> None:
        self._in_flight_max = order["in_flight"]
        self._to_open.extend(clients)
        self._waiting_for = order | {"since": time.monotonic()}

    def _answer_when_done(self) -> None:
        """Answer an order that takes time: all streams open, and everybody at `seq`."""
        order = self._waiting_for
        if order is None or self._open < len(self._clients):
            return
        now = time.monotonic()
        order.setdefault("open_s", now - order["since"])
        wanted = order["seq"] + 1
        # Looked at from the end: the one that came last is the one that is behind.
        if all(client.expected_seq >= wanted for client in reversed(self._clients)):
            self._waiting_for = None
            _answer({"open_s": order["open_s"], "reached_s": now - order["since"]})

    def _report(self, last_seq: int) -> dict[str, Any]:
        tally = self.tally
        for client in self._clients:
            tally.lost += max(0, last_seq + 1 - client.expected_seq)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "tally": tally.as_json(),
            "open": self._open,
            "cpu_s": usage.ru_utime + usage.ru_stime,
        }

    # Connections

    def _open_more(self) -> None:
        while self._to_open and self._opening < self._in_flight_max:
            self._connect(self._to_open.popleft())

    def _come_back(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._to_open.append(heapq.heappop(self._later)[2])

    def _connect(self, client: Client) -> None:
        target = self._target
        sock = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if target.sources > 1:
            # The port is chosen at connect, when the kernel knows the other end and can share it.
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((_source(client.number % target.sources), 0))
        client.sock = sock
        self._opening += 1
        problem = sock.connect_ex(target.address)
        if problem not in (0, errno.EINPROGRESS):
            self._lost(client)
            return
        self._by_fd[sock.fileno()] = client
        self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def _connected(self, client: Client, fd: int) -> None:
        """The connection is there, or has failed."""
        assert client.sock is not None
        tls = self._target.tls
        if tls is None:
            self._send_request(client, fd)
            return
        try:
            client.sock = tls.wrap_socket(
                client.sock,
                server_hostname=self._target.host,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=True,
            )
        except OSError:
            self._lost(client)
            return
        self._shake_hands(client, client.sock, fd)

    def _shake_hands(self, client: Client, sock: ssl.SSLSocket, fd: int) -> None:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._epoll.modify(fd, select.EPOLLIN)
        except ssl.SSLWantWriteError:
            self._epoll.modify(fd, select.EPOLLOUT)
        except ssl.SSLCertVerificationError as error:
            _give_up(f"the server's certificate is refused: {error.verify_message}")
        except OSError:
            self._lost(client)
        else:
            self._send_request(client, fd)

    def _send_request(self, client: Client, fd: int) -> None:
        assert client.sock is not None
        request = self._target.request_head
        if client.last_event_id:
            request += b"Last-Event-ID: %b\r\n" % client.last_event_id.encode("utf-8")
        try:
            client.sock.send(request + b"\r\n")  # far smaller than an empty socket's buffer
        except OSError:
            self._lost(client)
            return
        client.body = self._target.body(self._reader)
        self._epoll.modify(fd, _READABLE)

    def _read(self, client: Client, body: Body | WebSocketBody, fd: int) -> None:
        try:
            if isinstance(client.sock, ssl.SSLSocket):
                data = _decrypted(client.sock)
            else:
                data = os.read(fd, FIRST_READ_BYTES)
                if len(data) == FIRST_READ_BYTES:
                    data += _rest(fd)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        now_ns = time.monotonic_ns()
        was_open = body.status
        try:
            readings = body.take(data) if data else []
        except MessageInvalid as error:
            _give_up(f"the server's answer cannot be read: {error}")
        if not was_open and body.status:
            self._opening -= 1
            if body.status != body.wanted_status:
                _give_up(
                    f"the server answers with status {body.status}; a stream needs"
                    f" {body.wanted_status}"
                )
            self._open += 1
            self._ever_open = True
        self.tally.received_bytes += len(data)
        for reading in readings:
            if reading.seqs:
                self._count(client, reading, now_ns)
            if reading.last_event_id is not None:
                client.last_event_id = reading.last_event_id
            if reading.retry_ms is not None:
                client.retry_s = reading.retry_ms / 1000
        if not data or body.ended:
            self._lost(client)

    def _count(self, client: Client, reading: Reading, now_ns: int) -> None:
        """Note what came. The oldest event of a piece stands for all of it: no flattery."""
        seqs = reading.seqs
        tally = self.tally
        tally.events += len(seqs)
        self._events_ever += len(seqs)
        tally.delays[(now_ns - reading.oldest_ns) // DELAY_STEP_NS] += len(seqs)
        if reading.in_step and seqs[0] == client.expected_seq:
            client.expected_seq += len(seqs)
            return
        for seq in seqs:
            if seq < client.expected_seq:
                tally.repeated += 1
            else:
                tally.lost += seq - client.expected_seq
                client.expected_seq = seq + 1

    def _lost(self, client: Client) -> None:
        """The server ended a stream, or broke it, or could not be reached."""
        if not self._ever_open:
            _give_up(f"no connection to {self._target.address[0]}:{self._target.address[1]}")
        self.tally.ended += 1
        self.tally.finished += client.body is not None and client.body.ended
        self._close(client)
        heapq.heappush(self._later, (time.monotonic() + client.retry_s, client.number, client))

    def _close(self, client: Client) -> None:
        if client.sock is None:
            return
        if client.body is not None and client.body.status:
            self._open -= 1
        else:
            self._opening -= 1
        self._by_fd.pop(client.sock.fileno(), None)
        client.sock.close()
        client.sock = client.body = None


_IP_BIND_ADDRESS_NO_PORT: Final = 24
"""ip(7); Python 3.11 does not name it."""


def _source(number: int) -> str:
    """Return a loopback address, 127.0.1.1 and up."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def _rest(fd: int) -> bytes:
    """Return what a first read left."""
    try:
        return os.read(fd, READ_BYTES)
    except BlockingIOError:
        return b""


def _decrypted(sock: ssl.SSLSocket) -> bytes:
    """Return all that is there: what OpenSSL holds already, epoll does not tell of."""
    data = sock.recv(READ_BYTES)
    while sock.pending():
        data += sock.recv(READ_BYTES)
    return data


def _answer(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _give_up(why: str) -> NoReturn:
    _answer({"error": why})
    sys.exit(1)


def main() -> None:
    """Run one fleet: the first line of stdin says which."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Unbuffered, so that the orders behind it stay in the pipe, where epoll sees them.
    with os.fdopen(0, "rb", buffering=0, closefd=False) as stdin:
        told = json.loads(stdin.readline())
    if told["cpus"]:
        os.sched_setaffinity(0, told["cpus"])
    shared = mmap.mmap(told["counts_fd"], 0)
    offset = told["number"] * COUNTS.size
    counts = memoryview(shared)[offset : offset + COUNTS.size]
    Fleet(Target.from_json(told["target"]), Reader(told["run"]), counts).run()


if __name__ == "__main__":
    main()
