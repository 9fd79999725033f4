"""Starts fleets, orders them about together, and adds up what they saw.

Enters: a URL, a number of clients. Leaves: totals, and how far deliveries have come.
Never: reading a stream itself.

Blocks: the load generator has nothing else to do than to wait for its fleets.
"""

import json
import math
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from noti.errors import LocalError, Unavailable
from tests.bench.load.fleet import COUNTS
from tests.bench.load.tally import Tally

CLIENTS_OF_A_FLEET: Final = 15_000
"""Open files of one process, with a margin."""
CLIENTS_OF_A_SOURCE: Final = 5_000
"""Connections from one loopback address: a quarter of its ports, as closed ones block theirs."""
CONNECTING_MAX: Final = 1_000
"""Connections that wait for their answer at once; a server's accept queue holds some thousand."""
UPGRADE: Final = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: bm90aSBsb2FkIGNsaWVudA==",
)
"""The same key for all: nobody looks at the answer to it. 16 bytes, as RFC 6455 wants."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How long it took, in seconds."""

    open_s: float
    """Until every stream was open."""
    reached_s: float
    """Until every client also had the event that was waited for."""


class Fleets:
    """All clients of one run; a context manager that starts and ends their processes."""

    def __init__(
        self,
        url: str,
        clients: int,
        run: str,
        *,
        processes: int | None = None,
        cpus: Sequence[int] = (),
        headers: Sequence[str] = (),
        sources: int | None = None,
        tls_ca: Path | None = None,
    ) -> None:
        """Prepare; `cpus` names the processors that clients may use (default: all)."""
        self.clients = clients
        self._run = run
        self._cpus = list(cpus)
        self._target = _target(url, headers, sources or math.ceil(clients / CLIENTS_OF_A_SOURCE))
        self._target["tls_ca"] = None if tls_ca is None else str(tls_ca)
        self._number = processes or math.ceil(clients / CLIENTS_OF_A_FLEET)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._shared: mmap.mmap | None = None

    def __enter__(self) -> Self:
        counts_fd = os.memfd_create("noti-load")
        os.ftruncate(counts_fd, self._number * COUNTS.size)
        self._shared = mmap.mmap(counts_fd, 0)
        for number in range(self._number):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.load.fleet"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[counts_fd],
            )
            self._processes.append(process)
            self._order(
                process,
                {
                    "run": self._run,
                    "number": number,
                    "cpus": self._cpus,
                    "counts_fd": counts_fd,
                    "target": self._target,
                },
            )
        os.close(counts_fd)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()

    def open(self, in_flight: int = CONNECTING_MAX) -> Reached:
        """Open all streams; returns when the last one is open."""
        shares = [self.clients // self._number] * self._number
        shares[0] += self.clients % self._number
        orders = [
            {"do": "open", "clients": share, "in_flight": in_flight // self._number, "seq": 0}
            for share in shares
        ]
        return _slowest(self._tell(orders))

    def drop(self) -> None:
        """Close all streams, as far as clients can."""
        self._tell_all({"do": "drop"})

    def reopen(self, seq: int, in_flight: int = CONNECTING_MAX) -> Reached:
        """Open all streams again, each from its last id; returns when all have event `seq`."""
        order = {"do": "reopen", "in_flight": in_flight // self._number, "seq": seq}
        return _slowest(self._tell_all(order))

    def wait_until_all_have(self, seq: int) -> Reached:
        """Return when every stream is open and every client has event `seq`."""
        return _slowest(self._tell_all({"do": "reach", "seq": seq}))

    def start_counting(self) -> None:
        """Forget what was counted."""
        self._tell_all({"do": "start"})

    def report(self, last_seq: int) -> tuple[Tally, float]:
        """Return what was counted, and the CPU seconds that the clients used so far.

        Clients that do not have `last_seq` lost what is between.
        """
        total = Tally()
        cpu_s = 0.0
        for answer in self._tell_all({"do": "report", "last_seq": last_seq}):
            total.add(Tally.from_json(answer["tally"]))
            cpu_s += answer["cpu_s"]
        return total, cpu_s

    @property
    def received(self) -> int:
        """Events received by all clients since the beginning; costs nothing to ask."""
        return sum(events for events, _ in self._counts())

    @property
    def open_now(self) -> int:
        """Streams that are open, as far as fleets have noticed; costs nothing to ask."""
        return sum(streams for _, streams in self._counts())

    def _counts(self) -> list[tuple[int, int]]:
        assert self._shared is not None, "a context manager is entered first"
        return [
            COUNTS.unpack_from(self._shared, number * COUNTS.size) for number in range(self._number)
        ]

    def _tell_all(self, order: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self._tell([order] * self._number)

    def _tell(self, orders: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        for process, order in zip(self._processes, orders, strict=True):
            self._order(process, order)
        return [self._answer(process) for process in self._processes]

    def _order(self, process: subprocess.Popen[bytes], order: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise Unavailable("the process of the clients ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer


def _slowest(answers: Sequence[Mapping[str, Any]]) -> Reached:
    return Reached(
        max(answer["open_s"] for answer in answers),
        max(answer["reached_s"] for answer in answers),
    )


def _target(url: str, headers: Sequence[str], sources: int) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise LocalError(f"{url!r} cannot be loaded: write http://HOST:PORT/PATH, or ws://…")
    tls = parts.scheme in ("https", "wss")
    websocket = parts.scheme in ("ws", "wss")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            parts.hostname, parts.port or (443 if tls else 80), type=socket.SOCK_STREAM
        )[0]
    except OSError as error:
        raise LocalError(f"{parts.hostname} has no address: {error.strerror}") from None
    path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += UPGRADE if websocket else ["Accept: text/event-stream"]
    return {
        "family": int(family),
        "address": address,
        "request_head": "".join(f"{line}\r\n" for line in (*lines, *headers)),
        "host": parts.hostname,
        "tls": tls,
        "websocket": websocket,
        "sources": sources if str(address[0]).startswith("127.") else 1,
    }
