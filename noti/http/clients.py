"""The browsers of one node: the hub that sends, and the HTTP server that takes them in."""

import random
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import trio

from noti.address import Address
from noti.authorization.authorizer import Authorizer
from noti.authorization.grant import Dialect
from noti.authorization.revoked_file import RevokedNames
from noti.authorization.revoking import Revoking
from noti.certificates import uses
from noti.certificates.renewal import Current, Renewed
from noti.client_counts import ClientCounts
from noti.config import Config
from noti.descriptors import Shares
from noti.history.state_machine import HistoryStateMachine
from noti.history.store import Store
from noti.http.config import HttpConfig
from noti.http.node_view import NodeView
from noti.http.ops import Operations
from noti.http.publish_endpoint import PublishEndpoint
from noti.http.server import Frontend
from noti.presence.presence import Presence
from noti.publishing.ports import CommandForwarder, Publishing
from noti.raft.ports import StateMachine
from noti.streams.config import HubConfig
from noti.streams.hub import Hub
from noti.streams.open_streams import StreamObserver
from noti.tracing.lookup import ProcessReport
from noti.tracing.ports import Tracer
from noti.tracing.trail import EventTrail
from noti.trio_clock import TrioClock

DIALECTS: Final = {
    "both": frozenset(Dialect),
    "0": frozenset({Dialect.V0}),
    "1": frozenset({Dialect.V1}),
}
"""What `mercure_protocol` stands for."""


SLICE_ALONE_S: Final = 0.002
"""How long streams may hold the loop of a process that has no part in consensus."""


def tls_for_browsers(config: Config) -> Renewed[ssl.SSLContext] | None:
    """Return what makes HTTPS of HTTP, to be kept renewed; None without a certificate.

    Raises `ConfigInvalid`.
    """
    if config.http_tls_cert is None or config.http_tls_key is None:
        return None
    return uses.for_browsers(config.http_tls_cert, config.http_tls_key)


class ClientHub(Protocol):
    """The open streams of one node."""

    @property
    def clients(self) -> int:
        """Streams open now."""

    @property
    def pressure(self) -> float:
        """How full the backlog of clients that read is: 0.0 empty, 1.0 (or more) at its bound.

        Clients that do not read never raise it. Cheap: may be asked for with every message.
        """

    def observe(self, observer: StreamObserver) -> None:
        """Tell `observer` of every stream that begins and ends; before the first one."""

    def disconnect(self, *, subject: str | None = None, token_id: str | None = None) -> int:
        """End the streams that have all of these; return how many; never waits."""


def disconnect_all(hub: ClientHub, names: RevokedNames) -> None:
    """End the streams of all whom an operator's file revokes."""
    for subject in sorted(names.subjects):
        hub.disconnect(subject=subject)
    for token_id in sorted(names.token_ids):
        hub.disconnect(token_id=token_id)


class CommandLog(CommandForwarder, Protocol):
    """The replicated log, wherever its leader is (`noti.raft.forwarder`)."""

    async def propose(self, command: bytes) -> None:
        """Return once the command is committed, and applied on this node.

        Waits for a leader as long as there is none. Raises `Overloaded` or `ProposalUncertain`.
        """

    async def read(self) -> None:
        """Return when everything committed before this call is applied on this node.

        Waits for a leader as long as there is none.
        """


class Clients(Protocol):
    """The browsers of one node."""

    @property
    def hub(self) -> ClientHub:
        """Their streams."""

    def processes(self) -> list[dict[str, object]]:
        """Return how those stand that serve them beside this process, ready for JSON."""

    def change(self, config: Config, shares: Shares) -> None:
        """Go by other settings from now on; of these, what may change while a node runs."""

    @property
    def trail(self) -> EventTrail:
        """What is known of the events that were applied of late."""

    async def known_of(self, event_id: str, seqs: Sequence[int]) -> list[ProcessReport]:
        """Return what each process with streams knows of an id, whose events these are."""

    def state_machine(self, store: Store) -> StateMachine:
        """Return what applies commands to `store`, and shows them what it holds; before `serve`."""

    async def serve(
        self,
        node: NodeView,
        publishing: Publishing,
        *,
        commands: CommandLog,
        authorizer: Authorizer,
        presence: Presence | None,
        revoking: Revoking,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take connections until cancelled; events of publishers go to `publishing`.

        `commands` is for those who are served by other processes. `authorizer` knows what tokens
        allow, `revoking` revokes them. Without `presence`, nobody is told who is subscribed. Then
        end the streams in order. Raises `AddressInUse`.
        """

    def abandon(self) -> None:
        """When `serve` is cancelled from now on, reset the streams at once: the node falls."""


@dataclass(frozen=True)
class Elsewhere:
    """What a process that is not the node itself has from the node."""

    listeners: list[socket.socket]
    probes: Operations
    """How the node answers those of everybody."""


class HttpClients:
    """Browsers over HTTP: the hub and its frontend."""

    def __init__(
        self,
        config: Config,
        rng: random.Random,
        shares: Shares,
        tls: Current[ssl.SSLContext] | None = None,
        elsewhere: "Elsewhere | None" = None,
        tracer: Tracer | None = None,
    ) -> None:
        """Prepare; nothing listens before `serve`. With `tls`, browsers get HTTPS."""
        self._elsewhere = elsewhere
        self._config = config
        self._shares = shares
        self._tls = tls
        self.hub = Hub(self._hub_settings(config, shares), rng)
        self.trail = EventTrail(
            TrioClock().wall_ms, self.hub, tracer=tracer, log_share=config.log_events_share
        )
        """What is known of the events that were applied of late."""
        self.hub.passed = self.trail.passed
        self.connection_counts = ClientCounts()
        """How many connections that are no streams each client has, where that matters."""
        self._frontend: Frontend | None = None
        self._falls = trio.Event()
        self._pieces_of_state: Callable[[], Iterator[bytes]] | None = None

    def processes(self) -> list[dict[str, object]]:
        """Return nothing: they are served here."""
        return []

    async def known_of(self, event_id: str, seqs: Sequence[int]) -> list[ProcessReport]:
        """Return what is known here of the events with these numbers."""
        return [ProcessReport(0, self.hub.sent(seqs), [])]

    def change(self, config: Config, shares: Shares) -> None:
        """Go by other settings from now on."""
        self._config, self._shares = config, shares
        self.hub.change(self._hub_settings(config, shares))
        self.trail.log_share(config.log_events_share)
        if self._frontend is not None:
            self._frontend.change(_http_settings(config, shares))

    def _hub_settings(self, config: Config, shares: Shares) -> HubConfig:
        settings = HubConfig(
            backlog_bytes=config.sse_backlog_bytes,
            stall_timeout_s=config.sse_stall_s,
            heartbeat_s=config.sse_heartbeat_s,
            lifetime_s=config.sse_lifetime_s,
            drain_window_s=config.sse_drain_s,
            clients_max=shares.streams,
            clients_per_address_max=config.sse_clients_per_address_max,
        )
        if self._elsewhere is not None:
            return replace(settings, slice_s=SLICE_ALONE_S, work_slice_s=SLICE_ALONE_S)
        return settings

    def state_machine(self, store: Store) -> HistoryStateMachine:
        """Show what `store` holds, and what becomes visible, to the hub's streams."""
        self._pieces_of_state = store.snapshot_pieces
        self.hub.feed.lost_through = store.lost_through
        if store.last_seq:
            self.hub.reset(store.history(), store.first_seq)
        return HistoryStateMachine(store, self.hub, self.trail)

    def abandon(self) -> None:
        """When `serve` is cancelled from now on, reset the streams at once."""
        self._falls.set()

    async def serve(
        self,
        node: NodeView,
        publishing: Publishing,
        *,
        commands: CommandLog,
        authorizer: Authorizer,
        presence: Presence | None,
        revoking: Revoking,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve HTTP until cancelled."""
        web = _http_settings(self._config, self._shares)
        frontend = self._frontend = Frontend(
            self._config.http_addr,
            self.hub,
            node,
            web,
            tls=self._tls,
            authorizer=authorizer,
            revoking=revoking,
            endpoint=PublishEndpoint(publishing, authorizer, web, ready=node.ready),
            presence=presence,
            ops_bind=None if self._elsewhere else self._config.ops_addr,
            probes=None if self._elsewhere is None else self._elsewhere.probes,
            listeners=None if self._elsewhere is None else self._elsewhere.listeners,
            falls=self._falls,
            counts=self.connection_counts,
            pieces_of_state=self._pieces_of_state,
        )
        await frontend.run(task_status=task_status)


def _http_settings(config: Config, shares: Shares) -> HttpConfig:
    return HttpConfig(
        cors_origins=config.cors_origins,
        public_url=config.public_url,
        dialects=DIALECTS[config.mercure_protocol],
        trusted_proxies=config.trusted_proxies,
        plain_too=config.http_tls_mode == "permissive",
        leader_sheds=config.sse_leader_sheds,
        head_bytes_max=config.head_bytes_max,
        pending_connections_max=shares.arriving,
        publish_body_bytes_max=config.publish_body_bytes_max,
        connections_max=shares.http,
        connections_per_address_max=config.http_connections_per_address_max,
    )
