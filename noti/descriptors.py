"""File descriptors: how many each kind of client may have, and what happens when none is left.

The shares are made so that descriptors never run out: browsers in any number leave enough for the
other nodes, the log, probes and metrics. Should they run out all the same (the whole machine may
have none), a connection is taken with a spare one and closed at once: a client that waits in the
kernel's queue would otherwise wake the node without end, and never learn anything.
"""

import errno
import logging
import math
import os
import resource
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import structlog
from prometheus_client import Counter, Gauge

from noti.config import Config
from noti.errors import LocalError

log = structlog.get_logger("noti.descriptors")

OPS_CONNECTIONS_MAX: Final = 16
"""Connections at --ops-addr: kubelet's probes, two Prometheus servers, and people."""
GOSSIP_STREAMS_MAX: Final = 16
"""Gossip over TCP at a time: each may bring 20 MiB, and lasts a moment."""
CONTROL_CONNECTIONS_MAX: Final = 8
"""Operators of one machine, at a time."""
PROBES_MAX: Final = 16
"""Connections kept for probes and metrics when all others are busy."""
PEERS_MAX: Final = 16
"""Other nodes of the cluster that are counted on."""
STRANGERS_MAX: Final = 16
"""Connections of nodes that are not in the configuration: those of a whole cluster that is founded,
or of many nodes that join at once."""

RESERVE: Final = (
    24  # stdio, Trio, the asyncio loop, log writer, lock, NATS, DNS
    + 16  # listeners, epolls, spares; with the line above: a node at rest has 28
    + 2 * PEERS_MAX  # each of the other nodes is dialed, and dials
    + STRANGERS_MAX
    + GOSSIP_STREAMS_MAX
    + CONTROL_CONNECTIONS_MAX
    + OPS_CONNECTIONS_MAX
    + 2 * PROBES_MAX  # over HTTP, and over gRPC
    + 16  # what lasts a moment: files being read, connections that are taken or change hands
)
"""Descriptors that neither browsers nor publishers get."""

ARRIVING_MAX: Final = 4096
"""HTTP connections without a whole request: a node that dies sends its neighbours some thousand at
once. The oldest makes room."""

FILES_WANTED: Final = 20_000
"""Room for the browsers that one node can serve, and for those that come when another one dies."""

LEAST: Final = RESERVE + 32
"""With fewer descriptors a node could serve hardly any client."""

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
QUIET_S: Final = 10.0
"""An episode of rejections is over when none came for so long."""
GREETING_BYTES_MAX: Final = 64 * 1024
"""Read from a connection that is rejected: closed with unread bytes in it, it would be reset, and
the reason lost."""

REJECTED: Final = Counter(
    "noti_connections_rejected_total",
    "Connections rejected, by listener and by what was used up.",
    ["listener", "reason"],
)
MADE_ROOM: Final = Counter(
    "noti_connections_made_room_total",
    "Connections closed because they were idle longest when another one came, by listener.",
    ["listener"],
)
OPEN: Final = Gauge("noti_connections", "Connections open, by listener; no streams.", ["listener"])
OPEN_MAX: Final = Gauge(
    "noti_connections_max", "Connections that there may be, by listener.", ["listener"]
)

LISTENERS: Final = ("http", "http_arriving", "ops", "rpc", "rpc_arriving", "gossip", "control")
REASONS: Final = ("descriptors", "node", "address")
for _listener in LISTENERS:
    MADE_ROOM.labels(_listener)
    for _reason in REASONS:
        REJECTED.labels(_listener, _reason)

Accepted: TypeAlias = tuple[socket.socket, tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Shares:
    """How many descriptors each kind of client may have."""

    streams: int
    """Streams of browsers; also those that wait for their answer while the node catches up."""
    arriving: int
    """HTTP connections without a whole request, or with a TLS handshake in progress."""
    http: int
    """HTTP connections that are no streams."""
    rpc: int
    """gRPC connections of publishers and operators."""


def allowed() -> int:
    """Return how many descriptors this process may have; raises the limit as far as it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 2**31 if soft == resource.RLIM_INFINITY else soft


def shares(limit: int, wanted: Shares) -> Shares:
    """Return what is wanted, as far as `limit` descriptors allow it.

    Of few descriptors, streams get half or more: they are what a node is for. Raises `LocalError`
    when there are too few for anything.
    """
    if limit < LEAST:
        raise LocalError(
            f"a node needs {LEAST} open files at least, and may have {limit}: raise `ulimit -Hn`"
        )
    free = limit - RESERVE
    arriving = min(wanted.arriving, free // 8)
    http = min(wanted.http, free // 4)
    rpc = min(wanted.rpc, free // 12)
    # While a connection is looked at, it has two descriptors: Trio's and asyncio's.
    left = free - arriving - http - rpc - 2 * rpc_unready_max(rpc)
    return Shares(min(wanted.streams, left), arriving, http, rpc)


def shares_of(config: Config, *, with_rpc: bool = True) -> Shares:
    """Return what each kind of client may have; logged when that is less than was configured.

    Without RPC, as in a web worker, browsers have its share. Raises `LocalError` when there are
    too few descriptors for anything.
    """
    wanted = Shares(
        config.sse_clients_max,
        ARRIVING_MAX,
        config.http_connections_max,
        config.rpc_connections_max if with_rpc else 0,
    )
    limit = allowed()
    granted = shares(limit, wanted)
    if granted != wanted:
        level = logging.WARNING if limit < FILES_WANTED else logging.INFO
        log.log(
            level,
            "open files limit the clients: raise `ulimit -Hn` for more than these",
            allowed=limit,
            streams=granted.streams,
            http_connections=granted.http,
            rpc_connections=granted.rpc,
        )
    return granted


def rpc_unready_max(connections_max: int) -> int:
    """Return how many RPC connections may be in their handshakes at a time."""
    return max(connections_max // 4, 4)


class Episode:
    """Rejections of one kind at one listener: logged when they begin and when they are over."""

    def __init__(self, listener: str, reason: str, remedy: str) -> None:
        """`remedy` says what to do."""
        self._listener = listener
        self._reason = reason
        self._remedy = remedy
        self._rejected = 0
        self._counter = REJECTED.labels(listener, reason)
        self.ends_at = math.inf
        """When it is over, if nothing else happens; infinity when there is none."""

    def reject(self, now: float) -> None:
        """Count a rejection, and log it if it is the first."""
        self._counter.inc()
        if not self._rejected:
            log.warning(
                f"connections are rejected: {self._remedy}",
                listener=self._listener,
                used_up=self._reason,
            )
        self._rejected += 1
        self.ends_at = now + QUIET_S

    def settle(self, now: float) -> None:
        """Log the end if it has come."""
        if now >= self.ends_at:
            log.info(
                "connections are taken again",
                listener=self._listener,
                used_up=self._reason,
                rejected=self._rejected,
            )
            self._rejected, self.ends_at = 0, math.inf


class Acceptor:
    """Takes connections from listening sockets, and survives that no descriptor is left."""

    def __init__(self, listener: str) -> None:
        self._spare: int | None = None
        self.episode = Episode(
            listener, "descriptors", "no file descriptor is left, raise `ulimit -Hn`"
        )
        self.stuck = False
        """Whether even the spare did not help, so that trying again at once is of no use."""
        self._open_spare()

    def accept(self, listening: socket.socket, now: float) -> Accepted | None:
        """Return a connection; None when it could not be taken.

        Raises `BlockingIOError` when no connection waits.
        """
        self.stuck = False
        try:
            return listening.accept()
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._shed(listening)
                self.episode.reject(now)
            return None  # Otherwise that client is gone already.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the spare back."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _open_spare(self) -> None:
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _shed(self, listening: socket.socket) -> None:
        """Take one connection with the spare descriptor and close it.

        Raises `BlockingIOError` when none waits: the kernel looks for a descriptor before it looks
        for a connection.
        """
        self.close()
        try:
            taken, _ = listening.accept()
        except BlockingIOError:
            raise
        except OSError:
            self.stuck = True
        else:
            taken.close()  # Without a word: any status would end an `EventSource` permanently.
        finally:
            self._open_spare()


def reject(taken: socket.socket, rejection: bytes) -> None:
    """Say why and close, without waiting; what the socket does not take at once is lost."""
    with suppress(OSError):
        taken.setblocking(False)
        with suppress(BlockingIOError):
            taken.recv(GREETING_BYTES_MAX)
        taken.send(rejection)
        taken.shutdown(socket.SHUT_WR)
    taken.close()
