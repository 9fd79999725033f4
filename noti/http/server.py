"""Serves HTTP until it is stopped: acceptor, Hypercorn and hub, started and stopped in order.

The acceptor takes connections, Hypercorn serves those that want no stream, the hub the others.

Shutdown order: stop accepting; end streams and let answers in progress finish, bounded; then
return. No client is shown a traceback.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial

import structlog
import trio

from noti.address import Address
from noti.authorization.authorizer import AuthorizationConfig, Authorizer
from noti.authorization.keys import TrustedKeys
from noti.authorization.revoking import Revoking
from noti.certificates.rejection_log import RejectionLog
from noti.certificates.renewal import Current
from noti.client_counts import ClientCounts
from noti.http.acceptor import HttpAcceptor
from noti.http.app import bound_bodies, create_app, create_operations_app
from noti.http.config import HttpConfig
from noti.http.connection_limits import ConnectionLimits
from noti.http.handshakes import Handshakes
from noti.http.heads import HeadState, RequestHead
from noti.http.hypercorn_glue import Connection, Hypercorn
from noti.http.node_view import NodeView
from noti.http.ops import STOPPING, NodeOperations, NodeProbes, Operations
from noti.http.ops_server import serve_operators
from noti.http.publish_connections import PublishConnections
from noti.http.publish_endpoint import PublishEndpoint
from noti.http.request_counts import answers_always
from noti.http.response_heads import ResponseHeads
from noti.http.subscribe import Admission
from noti.http.subscriptions_api import SubscriptionsApi
from noti.http.tls import SecuredConnection
from noti.http.tls_socket import TlsSocket
from noti.listening import open_listeners
from noti.live_settings import take_over
from noti.optional import contained
from noti.presence.presence import Presence
from noti.service import set_when_cancelled
from noti.streams.end_reason import EndReason
from noti.streams.hub import Hub
from noti.trio_clock import TrioClock

log = structlog.get_logger("noti.http")


LOOK_EVERY_S = 0.5
"""How often the node is asked whether it leads; sending browsers away takes longer anyway."""


class Frontend:
    """A node's HTTP address."""

    def __init__(
        self,
        bind: Address,
        hub: Hub,
        node: NodeView,
        config: HttpConfig,
        *,
        tls: Current[ssl.SSLContext] | None = None,
        authorizer: Authorizer | None = None,
        endpoint: PublishEndpoint | None = None,
        presence: Presence | None = None,
        revoking: Revoking | None = None,
        ops_bind: Address | None = None,
        probes: Operations | None = None,
        listeners: list[socket.socket] | None = None,
        falls: trio.Event | None = None,
        counts: ClientCounts | None = None,
        pieces_of_state: Callable[[], Iterator[bytes]] | None = None,
    ) -> None:
        """With `tls`, `bind` speaks HTTPS, or both where `config.plain_too` says so.

        Without `endpoint`, nothing can be published. Without `revoking`, no token can be revoked.
        Without `authorizer`, public events are everybody's. Without `presence`, nobody is told who
        is subscribed.

        Operators are served at `ops_bind`, without TLS; by somebody else without one. `probes`
        answers those of everybody, if that is not this node itself.
        `falls` is set when nothing is to be ended in order any more. `listeners` listen at `bind`
        already. `counts` has what clients have at other processes of this node, too. Backups have
        `pieces_of_state`.
        """
        self._falls = trio.Event() if falls is None else falls
        self._bind = bind
        self._listeners = listeners
        self._ops_bind = ops_bind
        self._handshakes = None if tls is None else _handshakes(tls, config)
        self._hub = hub
        self._config = config
        self._node = node
        authorizer = authorizer or Authorizer(AuthorizationConfig(anonymous=True), TrustedKeys())
        clock = TrioClock()
        self._admission = Admission(hub, node.ready, config, authorizer, clock, presence)
        subscriptions = None
        if presence is not None:
            subscriptions = SubscriptionsApi(presence, hub.feed, node, authorizer, config, clock)
        self._app = create_app(
            hub,
            node,
            self._admission,
            endpoint,
            config,
            authorizer,
            revoking,
            subscriptions,
            probes=probes or NodeProbes(node, self._why_not_serving),
            pieces_of_state=pieces_of_state,
        )
        self._hypercorn = Hypercorn(config)
        most, per_address_max = config.connections_max, config.connections_per_address_max
        self._limits = ConnectionLimits("http", most, config, per_address_max, counts)
        self._connections: set[Connection] = set()
        self._closed = trio.lowlevel.ParkingLot()
        heads = self._heads = ResponseHeads(config)
        self._acceptor: HttpAcceptor | None = None
        self._publishers: PublishConnections | None = None
        if endpoint is not None:
            self._publishers = PublishConnections(endpoint, heads, config, self._note_closed)

    def change(self, config: HttpConfig) -> None:
        """Go by other settings from now on; what is under way may end by those before."""
        take_over(self._config, config)
        self._limits.change()
        self._hypercorn.change(self._config)
        if self._publishers is not None:
            bound_bodies(self._app, self._config)
        if self._acceptor is not None:
            self._acceptor.change()

    async def run(
        self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled, and run the hub meanwhile.

        Started with the address that it listens on.

        Raises `AddressInUse` before anything is started. Cancellation: browsers' streams end in
        order; returns within the two grace times of the configuration.
        """
        stop = trio.Event()
        async with AsyncExitStack() as stack:
            listeners = self._listeners or await open_listeners(self._bind, "--http-addr")
            ops_listeners = []
            _closed_by(stack, listeners)
            if self._ops_bind is not None:
                ops_listeners = await open_listeners(self._ops_bind, "--ops-addr")
                _closed_by(stack, ops_listeners)
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(set_when_cancelled, stop)
            await nursery.start(self._serve_until, stop, listeners)
            await trio.lowlevel.checkpoint_if_cancelled()  # it may have ended since
            host, port = listeners[0].getsockname()[:2]
            log.info("listening for http", host=host, port=port, tls=self._handshakes is not None)
            if ops_listeners:
                operations = NodeOperations(self._node, self._why_not_serving)
                app = create_operations_app(operations)
                await nursery.start(serve_operators, ops_listeners, app)
            task_status.started((host, port))

    def _why_not_serving(self) -> tuple[str, str] | None:
        return None if self._hub.running else STOPPING

    async def _serve_until(
        self,
        stop: trio.Event,
        listeners: list[socket.socket],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop`.

        Shielded, because a cancellation from above becomes `stop`, and has a deadline from then on.
        """
        with trio.CancelScope(shield=True) as service:
            async with trio.open_nursery() as serving:
                await serving.start(self._hub.run)
                async with trio.open_nursery() as connections:
                    async with trio.open_nursery() as accepting:
                        await self._accept(listeners, accepting, connections)
                        accepting.start_soon(self._limits.log_episodes)
                        accepting.start_soon(self._shed_when_leading)
                        task_status.started()
                        await stop.wait()
                        accepting.cancel_scope.cancel()
                    for listener in listeners:
                        listener.close()
                    if self._falls.is_set():
                        self._hub.abandon()  # Cancelled, it would end them in order.
                        service.cancel()
                    hub = self._hub.config
                    grace_s = hub.drain_window_s + self._config.grace_s
                    service.deadline = trio.current_time() + grace_s + hub.drain_timeout_s
                    self._hub.drain()
                    if self._publishers is not None:
                        self._publishers.drain()
                    await self._hypercorn.end_idle()
                    with trio.move_on_after(grace_s):
                        await self._all_closed()
                    for connection in self._connections:
                        connection.close()  # Also ends the sends that Hypercorn shields.
                    connections.cancel_scope.cancel()

    async def _accept(
        self, listeners: list[socket.socket], accepting: trio.Nursery, connections: trio.Nursery
    ) -> None:
        """Begin to take connections."""
        acceptor = self._acceptor = HttpAcceptor(
            self._admission,
            self._hub,
            self._config,
            catch_up=self._node.barrier,
            hand_over=partial(self._take, connections),
            publish=self._take_publisher if self._publishers is not None else None,
            heads=self._heads,
            handshakes=self._handshakes,
        )
        if self._publishers is not None:
            await connections.start(self._publishers.run, acceptor.take_back)
        accepting.start_soon(acceptor.run, listeners)

    async def _shed_when_leading(self) -> None:
        led = False
        while True:
            leads = self._node.is_leader()
            if leads and not led and self._config.leader_sheds:
                self._hub.end_within(self._config.shed_window_s, EndReason.SHED)
            led = leads
            await trio.sleep(LOOK_EVERY_S)

    async def _all_closed(self) -> None:
        while self._connections or self._publishers:
            await self._closed.park()

    def _note_closed(self) -> None:
        self._closed.unpark_all()

    def _take(
        self,
        connections: trio.Nursery,
        sock: socket.socket,
        head: RequestHead,
        peer: str,
    ) -> None:
        """Let Hypercorn serve a connection whose first request is no stream's, if there is room."""
        connection: Connection
        if isinstance(sock, TlsSocket):
            connection = SecuredConnection(sock, self._app, self._config, head.received)
        else:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            connection = Connection(stream, self._app, self._config, head.received)
        forwarded_for = head.header("x-forwarded-for")
        # Of HTTP/2, the acceptor has read nothing.
        always = answers_always(head.method, head.path) if len(head) else None
        if self._limits.admit(connection, peer, forwarded_for=forwarded_for, always=always):
            if head.reading is not HeadState.COMPLETE:
                connection.mark_idle()
            connections.start_soon(self._serve, connection)

    def _take_publisher(self, sock: socket.socket, head: RequestHead, peer: str) -> None:
        """Let a connection publish, if there is room for it."""
        assert self._publishers is not None, "only then the acceptor looks for publishers"
        connection = self._publishers.connection(sock, peer)
        forwarded_for = head.header("x-forwarded-for")
        if self._limits.admit(connection, peer, forwarded_for=forwarded_for, always=False):
            self._publishers.adopt(connection, head.received)

    async def _serve(self, connection: Connection) -> None:
        self._connections.add(connection)
        try:
            with contained("connection"):
                await self._hypercorn.serve(connection)
        finally:
            connection.close()
            self._connections.discard(connection)
            self._note_closed()


def _closed_by(stack: AsyncExitStack, listeners: list[socket.socket]) -> None:
    for listener in listeners:
        stack.callback(listener.close)


def _handshakes(tls: Current[ssl.SSLContext], config: HttpConfig) -> Handshakes:
    return Handshakes(tls, RejectionLog("http"), plain_too=config.plain_too)
