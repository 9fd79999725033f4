"""A web worker: its process from start to end.

It inherits the socket to its node, and one that listens at the node's address.
"""

import math
import os
import pickle
import random
import secrets
import signal
import socket
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
import trio
from prometheus_client import REGISTRY

from noti import descriptors, telemetry
from noti.authorization.revoking import Revoking
from noti.authorization.service import Authorization
from noti.certificates.renewal import keep_renewed
from noti.client_counts import ClientCounts
from noti.config import Config
from noti.descriptors import Shares
from noti.errors import ConfigInvalid, MessageInvalid, WorkerLost
from noti.history.levels import TRACED_EVENTS
from noti.history.state_machine import HistoryStateMachine
from noti.history.store import Store, StoreDecoder
from noti.http.clients import Elsewhere, HttpClients, disconnect_all, tls_for_browsers
from noti.optional import keep_going
from noti.presence.announcing import Announcing
from noti.presence.commits import Commits
from noti.presence.holders import holder_of
from noti.presence.presence import Presence
from noti.publishing.publisher import Publisher
from noti.service import Tree, running
from noti.tracing.refusals import Refusals
from noti.tracing.switching import RunningTracer, tracer_of
from noti.tracing.taking import TakenTraces
from noti.trio_clock import TrioClock
from noti.web_workers.link import Link
from noti.web_workers.merging import families_of
from noti.web_workers.messages import (
    Allowance,
    Answered,
    Applied,
    Counts,
    Drain,
    Find,
    Found,
    Heartbeat,
    Listening,
    Measure,
    Measured,
    Message,
    NodeState,
    Page,
    Settings,
    Start,
    StateEnd,
    StatePiece,
)
from noti.web_workers.node_link import NodeLink
from noti.web_workers.shared_limits import KINDS

log = structlog.get_logger("noti.web_workers")

ALIVE_EVERY_S: Final = 0.1
"""Also how late the node is to learn that clients cannot follow."""
HOLDER_ID_BYTES: Final = 8


class Worker:
    """One web worker."""

    def __init__(self, stream: trio.SocketStream, listeners: list[socket.socket]) -> None:
        self._link = Link(stream)
        self._listeners = listeners
        self._node = NodeLink(self._link)
        self._start: Start | None = None
        self._config: Config
        self._decoder = StoreDecoder()
        self._machine: HistoryStateMachine | None = None
        self._store: Store
        self._clients: HttpClients
        self._authorization: Authorization | None = None
        self._allowance = 0
        self._counted: dict[str, ClientCounts]
        self._complete = trio.Event()
        self._any_counts = trio.Event()
        self._drains = trio.CancelScope()
        self._tracer: RunningTracer | None = None
        self._refusals = Refusals(TrioClock().wall_ms)

    async def run(self) -> None:
        """Serve until the node says that it is over; raises `WorkerLost` when the node is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            await self._complete.wait()
            with self._drains:
                await self._serve()
            nursery.cancel_scope.cancel()

    async def _follow(self) -> None:
        try:
            await self._link.run(self._take)
        except* WorkerLost:
            # Whoever is here has to find another node, at once.
            if self._machine is not None:
                self._clients.abandon()
            self._node.lost()
            raise

    def _take(self, message: Message) -> None:
        match message:
            case Applied(commands, log_indexes):
                assert self._machine is not None, "commands follow the state"
                for command, log_index in zip(commands, log_indexes, strict=True):
                    self._machine.apply(command, log_index)
            case Answered() | Page() | NodeState():
                self._node.take(message)
            case Start():
                self._start = message
            case StatePiece(piece):
                self._decoder.feed(piece)
            case StateEnd():
                self._take_state(self._decoder.finish())
                self._decoder = StoreDecoder()
            case Settings(config):
                self._change(pickle.loads(config))  # noqa: S301 - the parent's own
            case Allowance(streams):
                self._allowance = streams
                self._hold_to_allowance()
            case Measure(number):
                self._link.send(Measured(number, families_of(REGISTRY)))
            case Find(number, event_id, seqs):
                refused = self._refusals.of(event_id)
                sent = self._clients.hub.sent(seqs)
                self._link.send(Found(number, sent, [] if refused is None else [refused]))
            case Counts(kind, by_client):
                self._counted[kind].set_elsewhere(by_client)
            case Drain():
                self._drains.cancel()
            case _:
                raise MessageInvalid(f"a node never says {type(message).__name__}")

    def _hold_to_allowance(self) -> None:
        hub = self._clients.hub
        hub.limits.streams_max = min(self._allowance, hub.config.clients_max)

    def _change(self, config: Config) -> None:
        """Go by other settings, unless there is something wrong with a file by now."""
        try:
            if self._authorization is not None:
                self._authorization.change(config)
        except ConfigInvalid as error:
            log.error("new settings rejected, the old ones stay in use", reason=str(error))
            return
        self._config = config
        telemetry.set_up(level=config.log_level, form=config.log_format)
        self._clients.change(config, self._shares())
        self._hold_to_allowance()

    def _shares(self) -> Shares:
        assert self._start is not None, "it has begun"
        shares = descriptors.shares_of(self._config, with_rpc=False)
        return _part(shares, self._config, self._start.workers)

    def _take_state(self, store: Store) -> None:
        if self._machine is not None:
            self._machine.restore(store)
            return
        assert self._start is not None, "the state follows the start"
        self._config = pickle.loads(self._start.config)  # noqa: S301 - the parent's own
        telemetry.set_up(level=self._config.log_level, form=self._config.log_format)
        self._store = store
        if self._config.tracing:
            self._tracer = tracer_of(self._config.name, self._start.number)
        self._tls = tls_for_browsers(self._config)
        self._clients = HttpClients(
            self._config,
            random.Random(),
            self._shares(),
            self._tls,
            Elsewhere(self._listeners, self._node.probes),
            self._tracer,
        )
        # None begins before the node has said how many there may be.
        self._clients.hub.limits.streams_max = 0
        kinds = (self._clients.hub.limits.by_client, self._clients.connection_counts)
        self._counted = dict(zip(KINDS, kinds, strict=True))
        for counts in kinds:
            counts.tell(lambda: self._any_counts.set())
        self._machine = self._clients.state_machine(store)
        self._complete.set()

    async def _serve(self) -> None:
        assert self._start is not None
        config, store, clock, rng = self._config, self._store, TrioClock(), random.Random()
        traces = TakenTraces(self._tracer, lambda: store.level >= TRACED_EVENTS, self._refusals)
        publisher = Publisher(self._node, clock, rng, id_of=store.id_of, traces=traces)
        disconnect = partial(disconnect_all, self._clients.hub)
        authorization = self._authorization = Authorization(
            config, clock, rng, store.revocations.is_revoked, disconnect
        )
        make_id = partial(secrets.token_hex, HOLDER_ID_BYTES)
        presence = announcing = None
        if config.subscriptions:
            table = store.subscriptions
            presence = Presence(table, Commits(self._node, clock, rng), clock, make_id)
            holder = holder_of(self._start.node_id, self._start.number)
            announcing = Announcing(holder, table, Commits(self._node, clock, rng), clock, make_id)
            self._clients.hub.observe(announcing)
        async with AsyncExitStack() as stack, Tree() as tree:
            if self._tls is not None:
                renew = partial(keep_renewed, [self._tls])
                await stack.enter_async_context(running("certificates", renew))
            if self._tracer is not None:
                trace = partial(keep_going, "tracing", self._tracer.run, clock, rng)
                await tree.start("tracing", trace)
            await tree.start("alive", self._say_alive)
            await tree.start("counts", self._tell_counts)
            await tree.start("publisher", publisher.run)
            await tree.start("authorization", authorization.run)
            serve = partial(
                self._clients.serve,
                self._node,
                publisher,
                commands=self._node,
                authorizer=authorization.authorizer,
                presence=presence,
                revoking=Revoking(self._node.propose, clock),
            )
            await tree.start("browsers", serve)
            if announcing is not None:
                announce = partial(keep_going, "presence", announcing.run, clock, rng)
                await tree.start("presence", announce)
            self._link.send(Listening())
            await trio.sleep_forever()

    async def _say_alive(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        while True:
            hub = self._clients.hub
            self._link.send(Heartbeat(hub.clients, hub.pressure, self._allowance))
            await trio.sleep(ALIVE_EVERY_S)

    async def _tell_counts(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Tell what clients have here, in the turn after it has changed."""
        task_status.started()
        while True:
            await self._any_counts.wait()
            self._any_counts = trio.Event()
            for kind, counts in self._counted.items():
                if changes := counts.take_changes():
                    self._link.send(Counts(kind, changes))


def _part(shares: Shares, config: Config, workers: int) -> Shares:
    """Return what of a node's connections that are no streams one worker may have.

    Where more come to one than to others, who is idle longest makes room.
    """
    return replace(shares, http=min(shares.http, math.ceil(config.http_connections_max / workers)))


async def _run(link_fd: int, listener_fds: list[int]) -> None:
    link = socket.socket(fileno=link_fd)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(link))
    listeners = [socket.socket(fileno=fd) for fd in listener_fds]
    await Worker(stream, listeners).run()


def main(arguments: list[str]) -> None:
    """Serve until the node is gone, or says that it is over.

    Arguments: which worker this is, and the inherited descriptors of the socket to the node and of
    those that listen.
    """
    # They are for a whole process group; the node tells its workers what to do.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    telemetry.set_up()
    number, link_fd, *listener_fds = map(int, arguments)
    structlog.contextvars.bind_contextvars(web_worker=number)
    try:
        trio.run(_run, link_fd, listener_fds)
    except* WorkerLost:
        os._exit(1)
