"""Everything outside a node, as ports: the real ones, opened in order."""

import random
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import structlog

from noti import descriptors, loop_lag
from noti.asyncio_loop import AsyncioLoop
from noti.certificates import uses
from noti.certificates.context import MutualContexts
from noti.certificates.renewal import Renewed, keep_renewed
from noti.config import Config
from noti.descriptors import Shares
from noti.history.levels import SUPPORTED
from noti.http.clients import Clients, HttpClients, tls_for_browsers
from noti.membership.control import ControlSocket
from noti.membership.identity import NODE_ID_BYTES
from noti.membership.ports import Control
from noti.optional import keep_going
from noti.ports import Clock
from noti.publishing.nats.ports import Source
from noti.raft.storage.disk import open_disk
from noti.raft.storage.ports import Disk
from noti.rpc.accepting import RpcLimits
from noti.rpc.grpc import GrpcNetwork
from noti.rpc.ports import RpcNetwork
from noti.service import running
from noti.swim.ports import GossipNetwork
from noti.swim.sockets import SocketNetwork
from noti.tracing.ports import Tracer
from noti.tracing.switching import tracer_of
from noti.trio_clock import TrioClock
from noti.web_workers.cores import cores, worker_count

log = structlog.get_logger("noti.certificates")


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
    sources: Mapping[str, Source]
    """By the name of the stream, of those in `Config.streams`; empty when there are none."""
    control: Control
    tracer: Tracer | None = None
    """Records what becomes of events; None when nobody wants to know."""
    supports: int = SUPPORTED
    """The highest level of a cluster that this node takes part in; tests make nodes older."""
    change: Callable[[Config], None] = lambda _config: None
    """Has browsers and RPC go by other settings from now on."""


OpenWorld: TypeAlias = Callable[[Config], AbstractAsyncContextManager[World]]


@asynccontextmanager
async def real_world(config: Config) -> AsyncIterator[World]:
    """Lock the data directory, start the asyncio loop, and yield the real ports.

    Raises `StorageError` when the directory cannot be used, `ConfigInvalid` for a bad certificate,
    `LocalError` when there are too few file descriptors.
    """
    shares = descriptors.shares_of(config)
    rng = random.Random()
    asyncio_loop = AsyncioLoop()
    between_nodes = _tls_between_nodes(config)
    for_browsers = tls_for_browsers(config)
    to_nats = _tls_to_nats(config)
    for mode in ("tls_mode", "http_tls_mode"):
        if getattr(config, mode) == "permissive":
            log.warning("who comes without TLS is let in, until this is required", setting=mode)
    sources = _sources(config, asyncio_loop, to_nats)
    tracer = tracer_of(config.name) if config.tracing else None
    clock = TrioClock()
    renewed = [tls for tls in (between_nodes, for_browsers, to_nats) if tls is not None]
    async with (
        open_disk(config.data_dir) as disk,
        running("loop lag", loop_lag.watch),
        running("asyncio loop", asyncio_loop.run),
        running("certificates", partial(keep_renewed, renewed)),
        AsyncExitStack() as stack,
    ):
        if tracer is not None:
            trace = partial(keep_going, "tracing", tracer.run, clock, rng)
            await stack.enter_async_context(running("tracing", trace))
        rpc = GrpcNetwork(
            asyncio_loop,
            between_nodes,
            _rpc_limits(config, shares),
            plain_too=config.tls_mode == "permissive",
        )
        clients = _clients(config, rng, shares, for_browsers, tracer)

        def change(config: Config) -> None:
            shares = descriptors.shares_of(config)
            rpc.change(_rpc_limits(config, shares))
            clients.change(config, shares)

        yield World(
            clock=clock,
            rng=rng,
            make_id=partial(secrets.token_hex, NODE_ID_BYTES),
            disk=disk,
            gossip=SocketNetwork(),
            rpc=rpc,
            clients=clients,
            sources=sources,
            control=ControlSocket(config.data_dir),
            change=change,
            tracer=tracer,
        )


def _rpc_limits(config: Config, shares: Shares) -> RpcLimits:
    return RpcLimits(shares.rpc, config.rpc_connections_per_address_max)


def _clients(
    config: Config,
    rng: random.Random,
    shares: Shares,
    tls: Renewed[ssl.SSLContext] | None,
    tracer: Tracer | None,
) -> Clients:
    count = worker_count(config.web_workers, cores())
    if not count:
        return HttpClients(config, rng, shares, tls, tracer=tracer)
    # Here, so that nodes without workers start without what only these need.
    from noti.web_workers.workers import WebWorkers

    return WebWorkers(config, count, TrioClock(), rng)


def _tls_between_nodes(config: Config) -> Renewed[MutualContexts] | None:
    if config.tls_cert is None or config.tls_key is None or config.tls_ca is None:
        return None
    return uses.for_nodes(config.tls_cert, config.tls_key, config.tls_ca, config.name)


def _tls_to_nats(config: Config) -> Renewed[ssl.SSLContext] | None:
    if config.nats_tls_ca is None and config.nats_tls_cert is None:
        return None
    return uses.for_nats(config.nats_tls_ca, config.nats_tls_cert, config.nats_tls_key)


def _sources(
    config: Config, asyncio_loop: AsyncioLoop, tls: Renewed[ssl.SSLContext] | None
) -> dict[str, Source]:
    """Return the source of each stream; raises `ConfigInvalid` for a file that is no login."""
    if config.nats_url is None:
        return {}
    # Here, so that nodes without NATS start without its library.
    from noti.publishing.nats.login import NatsLogin
    from noti.publishing.nats.settings import NatsSettings
    from noti.publishing.nats.source import NatsSource

    login = NatsLogin.of(config)
    login.options()
    urls = tuple(config.nats_url.split(","))
    return {
        stream.name: NatsSource(
            asyncio_loop,
            NatsSettings(
                urls=urls,
                stream=stream.name,
                subjects=stream.filters,
                durable=stream.durable or config.nats_durable,
                retention=config.nats_retention,
                storage=config.nats_storage,
                replicas=config.nats_replicas,
                max_age_s=config.nats_max_age_s,
                max_bytes=config.nats_max_bytes or -1,
                dead_letter=stream.dead_letter_subject,
                login=login,
                tls=tls,
            ),
        )
        for stream in config.streams
    }
