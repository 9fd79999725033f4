"""Everything outside a node, as ports: the real ones, opened in order.

Enters: the configuration. Leaves: a `World`. Never: knows what the node does with it.
"""

import random
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import structlog
import trio

from noti import descriptors, loop_lag
from noti.address import Address
from noti.asyncio_loop import Island
from noti.certificates import uses
from noti.certificates.context import MutualContexts
from noti.certificates.renewal import Renewed, keep_renewed
from noti.config import Config
from noti.descriptors import Shares
from noti.history.notification import Notification
from noti.http.config import HttpConfig
from noti.http.node_view import NodeView
from noti.http.server import Frontend
from noti.membership.control import ControlSocket
from noti.membership.ports import Control
from noti.ports import Clock
from noti.publishing.nats.login import NatsLogin
from noti.publishing.nats.ports import Source
from noti.publishing.nats.source import NatsSettings, NatsSource
from noti.raft.storage.disk import open_disk
from noti.raft.storage.ports import Disk
from noti.rpc.accepting import RpcLimits
from noti.rpc.grpc import GrpcNetwork
from noti.rpc.ports import RpcNetwork
from noti.service import running
from noti.streams.config import HubConfig
from noti.streams.hub import Hub
from noti.swim.ports import GossipNetwork
from noti.swim.sockets import SocketNetwork
from noti.trio_clock import TrioClock

log = structlog.get_logger("noti.node")

ARRIVING_MAX = 4096
"""HTTP connections without a whole request: a node that dies sends its neighbours some thousand at
once. The oldest makes room."""


NODE_ID_BYTES = 8
"""64 random bits: two nodes of one cluster never get the same."""

FILES_WANTED = 20_000
"""Room for the browsers that one node can serve, and for those that come when another one dies."""


class Clients(Protocol):
    """The browsers of one node."""

    @property
    def count(self) -> int:
        """Streams open now."""

    @property
    def pressure(self) -> float:
        """How full the backlog of clients that read is: 0.0 empty, 1.0 (or more) at its bound.

        Clients that do not read never raise it. Cheap: may be asked for with every message.
        """

    def publish(self, notifications: Sequence[Notification]) -> None:
        """Show what has just become visible; never waits."""

    def trim(self, oldest_seq: int) -> None:
        """Let nobody resume from before this number; streams that are open get it still."""

    def reset(self, notifications: Sequence[Notification]) -> None:
        """Start anew with this history."""

    async def serve(
        self,
        node: NodeView,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take connections until cancelled.

        Then end the streams in order. Raises `AddressInUse`.
        """

    def abandon(self) -> None:
        """When `serve` is cancelled from now on, reset the streams at once: the node falls."""


@dataclass(frozen=True)
class World:
    """What one node needs from outside."""

    clock: Clock
    rng: random.Random
    """For delays and choices; nothing that must be unique or secret."""
    make_id: Callable[[], str]
    """Returns a new random id for a node."""
    disk: Disk
    gossip: GossipNetwork
    rpc: RpcNetwork
    clients: Clients
    source: Source | None
    """None when no event source is configured."""
    control: Control


OpenWorld: TypeAlias = Callable[[Config], AbstractAsyncContextManager[World]]


class HttpClients:
    """Browsers over HTTP: the hub and its frontend."""

    def __init__(
        self,
        config: Config,
        rng: random.Random,
        shares: Shares,
        tls: Renewed[ssl.SSLContext] | None = None,
    ) -> None:
        """Prepare; nothing listens before `serve`. With `tls`, browsers get HTTPS."""
        self._config = config
        self._shares = shares
        self._tls = tls
        settings = HubConfig(
            backlog_bytes=config.sse_backlog_bytes,
            stall_timeout_s=config.sse_stall_s,
            heartbeat_s=config.sse_heartbeat_s,
            lifetime_s=config.sse_lifetime_s,
            drain_window_s=config.sse_drain_s,
            clients_max=shares.streams,
            clients_per_address_max=config.sse_clients_per_address_max,
        )
        self._hub = Hub(settings, rng)
        self._falls = trio.Event()

    def abandon(self) -> None:
        """Do not end streams in order any more."""
        self._falls.set()

    @property
    def count(self) -> int:
        """Streams open now."""
        return self._hub.clients

    @property
    def pressure(self) -> float:
        """How full the backlog of clients that read is."""
        return self._hub.pressure

    def publish(self, notifications: Sequence[Notification]) -> None:
        """Show what has just become visible."""
        self._hub.publish(notifications)

    def trim(self, oldest_seq: int) -> None:
        """Let nobody resume from before this number."""
        self._hub.trim(oldest_seq)

    def reset(self, notifications: Sequence[Notification]) -> None:
        """Start anew with this history."""
        self._hub.reset(notifications)

    async def serve(
        self,
        node: NodeView,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve HTTP until cancelled."""
        web = HttpConfig(
            cors_origins=self._config.cors_origins,
            trusted_proxies=self._config.trusted_proxies,
            leader_sheds=self._config.sse_leader_sheds,
            head_bytes_max=self._config.head_bytes_max,
            pending_connections_max=self._shares.arriving,
            connections_max=self._shares.http,
            connections_per_address_max=self._config.http_connections_per_address_max,
        )
        frontend = Frontend(
            self._config.http_addr,
            self._hub,
            node,
            web,
            tls=self._tls,
            ops_bind=self._config.ops_addr,
            falls=self._falls,
        )
        await frontend.run(task_status=task_status)


@asynccontextmanager
async def real_world(config: Config) -> AsyncIterator[World]:
    """Lock the data directory, start the asyncio loop, and yield the real ports.

    Raises `StorageError` when the directory cannot be used, `ConfigInvalid` for a bad certificate,
    `LocalError` when there are too few file descriptors.
    """
    shares = _shares(config)
    rng = random.Random()
    island = Island()
    between_nodes = _tls_between_nodes(config)
    for_browsers = _tls_for_browsers(config)
    to_nats = _tls_to_nats(config)
    source = _source(config, island, to_nats)
    renewed = [tls for tls in (between_nodes, for_browsers, to_nats) if tls is not None]
    async with (
        open_disk(config.data_dir) as disk,
        running("loop lag", loop_lag.watch),
        running("asyncio loop", island.run),
        running("certificates", partial(keep_renewed, renewed)),
    ):
        yield World(
            clock=TrioClock(),
            rng=rng,
            make_id=partial(secrets.token_hex, NODE_ID_BYTES),
            disk=disk,
            gossip=SocketNetwork(),
            rpc=GrpcNetwork(
                island,
                between_nodes,
                RpcLimits(shares.rpc, config.rpc_connections_per_address_max),
            ),
            clients=HttpClients(config, rng, shares, for_browsers),
            source=source,
            control=ControlSocket(config.data_dir),
        )


def _shares(config: Config) -> Shares:
    """Return who may have how many descriptors, and tell it when that is less than was set."""
    wanted = Shares(
        config.sse_clients_max,
        ARRIVING_MAX,
        config.http_connections_max,
        config.rpc_connections_max,
    )
    limit = descriptors.allowed()
    shares = descriptors.shares(limit, wanted)
    if shares != wanted:
        tell = log.warning if limit < FILES_WANTED else log.info
        tell(
            "open files limit the clients: raise `ulimit -Hn` for more than these",
            allowed=limit,
            streams=shares.streams,
            http_connections=shares.http,
            rpc_connections=shares.rpc,
        )
    return shares


def _tls_for_browsers(config: Config) -> Renewed[ssl.SSLContext] | None:
    if config.http_tls_cert is None or config.http_tls_key is None:
        return None
    return uses.for_browsers(config.http_tls_cert, config.http_tls_key)


def _tls_between_nodes(config: Config) -> Renewed[MutualContexts] | None:
    if config.tls_cert is None or config.tls_key is None or config.tls_ca is None:
        return None
    return uses.for_nodes(config.tls_cert, config.tls_key, config.tls_ca, config.name)


def _tls_to_nats(config: Config) -> Renewed[ssl.SSLContext] | None:
    if config.nats_tls_ca is None and config.nats_tls_cert is None:
        return None
    return uses.for_nats(config.nats_tls_ca, config.nats_tls_cert, config.nats_tls_key)


def _source(config: Config, island: Island, tls: Renewed[ssl.SSLContext] | None) -> Source | None:
    """Return NATS as the source, if it is; raises `ConfigInvalid` for a file that is no login."""
    if config.nats_url is None:
        return None
    login = NatsLogin.of(config)
    login.options()
    settings = NatsSettings(
        urls=tuple(config.nats_url.split(",")),
        stream=config.nats_stream,
        subject=config.nats_subject,
        durable=config.nats_durable,
        retention=config.nats_retention,
        storage=config.nats_storage,
        replicas=config.nats_replicas,
        max_age_s=config.nats_max_age_s,
        max_bytes=config.nats_max_bytes or -1,
        login=login,
        tls=tls,
    )
    return NatsSource(island, settings)
