"""A node's front end on a loopback port, and a client that speaks HTTP with h11 as the judge."""

import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h11
import trio

from noti.address import Address
from noti.authorization.authorizer import AuthorizationConfig, Authorizer
from noti.authorization.keys import TrustedKeys
from noti.certificates.renewal import Current
from noti.client.event_stream import EventStreamParser
from noti.history.notification import Notification
from noti.history.selectors import Selector, topic_selector
from noti.http.app import create_operations_app
from noti.http.config import HttpConfig
from noti.http.ops import NodeOperations, Operations
from noti.http.ops_server import serve_operators
from noti.http.server import Frontend
from noti.http.subscribe import Admission
from noti.listening import open_listeners
from noti.rpc.answers import ServerInfo
from noti.streams.config import HubConfig
from noti.streams.hub import Hub
from noti.trio_clock import TrioClock

LIMIT_S = 30.0
"""No condition takes longer than this, even on a busy machine; nothing is measured with it."""


def notification(seq: int, topic: str = "jobs.noti.1", data: str | None = None) -> Notification:
    if data is None:
        data = f'{{"user_id":{seq},"category_from":"a","category_to":"b"}}'
    return Notification(seq, f"id-{seq}", (topic,), data, 1_700_000_000_000 + seq)


def selecting(*texts: str) -> frozenset[Selector]:
    return frozenset(map(topic_selector, texts))


def notifications(first: int, last: int, topic: str = "jobs.noti.1") -> list[Notification]:
    return [notification(seq, topic) for seq in range(first, last + 1)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody announces: another task's or the kernel's doing."""
    with trio.fail_after(LIMIT_S):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


@dataclass
class Node:
    """A `NodeView` that says what it is told to say."""

    node_id = "n1"
    hostname: str = "host-1"
    build: str = "test"
    leader: bool = True
    is_ready: bool = True
    extra: dict[str, object] = field(default_factory=dict)
    barriers: int = 0
    on_barrier: Callable[[], None] = lambda: None
    told: list[dict[str, object]] = field(default_factory=lambda: [{"trouble": "quorum"}])

    def is_leader(self) -> bool:
        return self.leader

    def ready(self) -> bool:
        return self.is_ready

    def troubles(self) -> list[dict[str, object]]:
        return self.told

    async def trace(self, event_id: str) -> dict[str, object]:
        return {"node": self.node_id, "id": event_id}

    async def barrier(self) -> None:
        self.barriers += 1
        if not self.is_ready:
            await trio.sleep_forever()
        self.on_barrier()

    def servers(self) -> list[ServerInfo]:
        return [ServerInfo("n1", "127.0.0.1:8400", True), ServerInfo("n2", "127.0.0.1:8500", False)]

    def status(self) -> dict[str, object]:
        return {"role": "leader", **self.extra}


def hub(**settings: object) -> Hub:
    return Hub(HubConfig(**settings), random.Random(1))  # type: ignore[arg-type]


def show(there: Hub, first: int, last: int, history_size: int) -> None:
    """Publish, and keep a history of so many, as the state machine does."""
    there.publish(notifications(first, last))
    there.trim(max(1, last - history_size + 1))


def admission(there: Hub, node: Node, config: HttpConfig) -> Admission:
    """Return one that lets everybody read public events."""
    return Admission(there, node.ready, config, anybody(), TrioClock())


def anybody() -> Authorizer:
    return Authorizer(AuthorizationConfig(anonymous=True), TrustedKeys())


@asynccontextmanager
async def running(there: Hub) -> AsyncIterator[Hub]:
    async with trio.open_nursery() as nursery:
        await nursery.start(there.run)
        yield there
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving(
    hub: Hub,
    node: Node | None = None,
    config: HttpConfig | None = None,
    port: int = 0,
    authorizer: Authorizer | None = None,
    tls: Current[ssl.SSLContext] | None = None,
    probes: Operations | None = None,
) -> AsyncIterator[Address]:
    bind, config, node = ("127.0.0.1", port), config or HttpConfig(), node or Node()
    frontend = Frontend(bind, hub, node, config, authorizer=authorizer, tls=tls, probes=probes)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(frontend.run)
        yield address
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving_operators(node: Node | None = None, port: int = 0) -> AsyncIterator[Address]:
    """Run what a node has at its --ops-addr."""
    listeners = await open_listeners(("127.0.0.1", port), "--ops-addr")
    host, bound = listeners[0].getsockname()
    app = create_operations_app(NodeOperations(node or Node(), lambda: None))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_operators, listeners, app)
        yield host, bound
        nursery.cancel_scope.cancel()


class Client:
    """One HTTP/1.1 connection; every byte it gets goes through h11."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)
        self.text = ""
        self.ended = False

    @classmethod
    async def open(cls, address: Address) -> "Client":
        return cls(await trio.open_tcp_stream(*address))

    async def request(
        self,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        method: str = "GET",
        body: bytes = b"",
    ) -> h11.Response:
        """Send a request, the next one on this connection if need be, and return the head."""
        if self.ended:
            self.http.start_next_cycle()
            self.text, self.ended = "", False
        given = [("host", "localhost"), *headers]
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in given]
        event = h11.Request(method=method, target=target, headers=encoded)
        data = self.http.send(event)
        if body:
            data += self.http.send(h11.Data(data=body))
        await self.stream.send_all(data + self.http.send(h11.EndOfMessage()))
        response = await self._next()
        assert isinstance(response, h11.Response)
        return response

    async def _next(self) -> object:
        with trio.fail_after(LIMIT_S):
            while (event := self.http.next_event()) is h11.NEED_DATA:
                self.http.receive_data(bytes(await self.stream.receive_some(65536)))
        return event

    async def read_more(self) -> None:
        event = await self._next()
        match event:
            case h11.Data(data=data):
                self.text += bytes(data).decode()
            case h11.EndOfMessage():
                self.ended = True
            case _:
                raise AssertionError(event)

    async def read_until(self, text: str) -> str:
        while text not in self.text:
            assert not self.ended, self.text
            await self.read_more()
        return self.text

    async def read_all(self) -> str:
        while not self.ended:
            await self.read_more()
        return self.text

    async def aclose(self) -> None:
        await self.stream.aclose()


@asynccontextmanager
async def client(address: Address) -> AsyncIterator[Client]:
    one = await Client.open(address)
    async with one.stream:
        yield one


def events(text: str) -> list[dict[str, str]]:
    """Interpret an event stream; a cut-off end is dropped."""
    return [
        {
            "id": event.last_event_id,
            "event": "" if event.type == "message" else event.type,
            "data": event.data,
        }
        for event in EventStreamParser().feed(text.encode())
    ]


def ids(text: str) -> list[str]:
    return [event["id"] for event in events(text) if not event["event"]]
