"""The browsers of one node: the hub that sends, and the HTTP server that takes them in."""

import random
import ssl
from typing import Final, Protocol

import trio

from noti.address import Address
from noti.authorization.authorizer import Authorizer
from noti.authorization.grant import Dialect
from noti.authorization.revoking import Revoking
from noti.certificates.renewal import Current
from noti.config import Config
from noti.descriptors import Shares
from noti.history.state_machine import HistoryObserver
from noti.http.config import HttpConfig
from noti.http.node_view import NodeView
from noti.http.publish_endpoint import PublishEndpoint
from noti.http.server import Frontend
from noti.presence.presence import Presence
from noti.publishing.ports import Publishing
from noti.streams.config import HubConfig
from noti.streams.feed import Feed
from noti.streams.hub import Hub
from noti.streams.open_streams import StreamObserver

DIALECTS: Final = {
    "both": frozenset(Dialect),
    "0": frozenset({Dialect.V0}),
    "1": frozenset({Dialect.V1}),
}
"""What `mercure_protocol` stands for."""


class ClientHub(HistoryObserver, Protocol):
    """What the browsers of one node are shown."""

    feed: Feed
    """What can be read; asks the history what readers may have lost."""

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


class Clients(Protocol):
    """The browsers of one node."""

    @property
    def hub(self) -> ClientHub:
        """What they are shown."""

    async def serve(
        self,
        node: NodeView,
        publishing: Publishing,
        *,
        authorizer: Authorizer,
        presence: Presence | None,
        revoking: Revoking,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take connections until cancelled; events of publishers go to `publishing`.

        `authorizer` knows what tokens allow, `revoking` revokes them. Without `presence`, nobody is
        told who is subscribed.
        Then end the streams in order. Raises `AddressInUse`.
        """

    def abandon(self) -> None:
        """When `serve` is cancelled from now on, reset the streams at once: the node falls."""


class HttpClients:
    """Browsers over HTTP: the hub and its frontend."""

    def __init__(
        self,
        config: Config,
        rng: random.Random,
        shares: Shares,
        tls: Current[ssl.SSLContext] | None = None,
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
        self.hub = Hub(settings, rng)
        self._falls = trio.Event()

    def abandon(self) -> None:
        """When `serve` is cancelled from now on, reset the streams at once."""
        self._falls.set()

    async def serve(
        self,
        node: NodeView,
        publishing: Publishing,
        *,
        authorizer: Authorizer,
        presence: Presence | None,
        revoking: Revoking,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve HTTP until cancelled."""
        web = HttpConfig(
            cors_origins=self._config.cors_origins,
            public_url=self._config.public_url,
            dialects=DIALECTS[self._config.mercure_protocol],
            trusted_proxies=self._config.trusted_proxies,
            leader_sheds=self._config.sse_leader_sheds,
            head_bytes_max=self._config.head_bytes_max,
            pending_connections_max=self._shares.arriving,
            publish_body_bytes_max=self._config.publish_body_bytes_max,
            connections_max=self._shares.http,
            connections_per_address_max=self._config.http_connections_per_address_max,
        )
        frontend = Frontend(
            self._config.http_addr,
            self.hub,
            node,
            web,
            tls=self._tls,
            authorizer=authorizer,
            revoking=revoking,
            endpoint=PublishEndpoint(publishing, authorizer, web, ready=node.ready),
            presence=presence,
            ops_bind=self._config.ops_addr,
            falls=self._falls,
        )
        await frontend.run(task_status=task_status)
