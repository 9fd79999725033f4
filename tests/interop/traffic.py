"""Numbered events into NATS, and browsers that write down every number they see."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import h11
import nats.errors
import trio
from nats.aio.client import Client

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.client.event_stream import EventStreamParser, StreamEvent
from noti.rpc.generated.category.v1 import CategoryMessage
from tests.interop.nats_client import connect_aio

INTERVAL_S = 1 / 50
SUBJECT = "jobs.noti.number"
CATEGORY, MERCURE = "/category?cursor=1", "/.well-known/mercure?topic=*&cursor=1"

CONNECT_S_MAX = 1.0
HEAD_S_MAX = 4.0
"""Longer than a node waits for its own catching up (2 s) before it answers."""
RETRY_FIRST_S = 1.0
"""Until a node orders another delay."""


class Publisher:
    """Publishes 1, 2, 3, … and goes on to the next number only when JetStream has the last one."""

    def __init__(self, asyncio_loop: AsyncioLoop, url: str) -> None:
        self.acknowledged = 0
        self.begun: dict[int, float] = {}
        """When each number was sent for the first time, `time.monotonic()`."""
        self._asyncio_loop = asyncio_loop
        self._url = url
        self._stopping = False
        self._stopped = trio.Event()

    async def run(self) -> None:
        """Publish until stopped; NATS may come and go."""
        while not self._stopping:
            await self._asyncio_loop.call(self._session_aio)
            await trio.sleep(0.05)
        self._stopped.set()

    async def stop(self) -> int:
        """Stop once the number on its way is acknowledged, and return it."""
        self._stopping = True
        await self._stopped.wait()
        return self.acknowledged

    async def publish_garbage(self) -> None:
        """Put one message into the stream that is no event."""
        await self._asyncio_loop.call(self._garbage_aio)

    async def _session_aio(self) -> None:
        try:
            client = await connect_aio([self._url])
            try:
                await self._publish_aio(client)
            finally:
                await client.close()
        except (nats.errors.Error, OSError, TimeoutError):
            return  # the next session sends the same number again

    async def _publish_aio(self, client: Client) -> None:
        jetstream = client.jetstream(timeout=1)
        due = time.monotonic()
        while not self._stopping:
            number = self.acknowledged + 1
            self.begun.setdefault(number, time.monotonic())
            payload = bytes(CategoryMessage(number, "books", "films"))
            # An ack may get lost; JetStream knows the second copy by its id.
            await jetstream.publish(SUBJECT, payload, headers={"Nats-Msg-Id": f"number-{number}"})
            self.acknowledged = number
            due = max(due + INTERVAL_S, time.monotonic() - 1)
            await asyncio.sleep(due - time.monotonic())

    async def _garbage_aio(self) -> None:
        client = await connect_aio([self._url])
        try:
            await client.jetstream().publish(SUBJECT, b"\xff\xff this is no protobuf")
        finally:
            await client.close()


@dataclass(frozen=True)
class Delivery:
    """One event at one browser."""

    number: int
    node: Address
    at: float
    """`time.monotonic()`."""


class Subscriber:
    """A browser: reads its node's stream, and that of another node while its own is down."""

    def __init__(self, target: str, nodes: Sequence[Address], last_event_id: str = "") -> None:
        """Read `target` from the first of `nodes` that answers."""
        self.deliveries: list[Delivery] = []
        self.gaps: list[str] = []
        self.refusals: list[str] = []
        self.opened = 0
        self._target = target
        self.nodes = nodes
        """Where to look, in this order; may change."""
        self._last_event_id = last_event_id
        self._retry_s = RETRY_FIRST_S

    def __str__(self) -> str:
        return f"{self._target} at {self.nodes[0][1]}"

    @property
    def last(self) -> int:
        """The newest number."""
        return self.deliveries[-1].number if self.deliveries else 0

    async def run(self) -> None:
        """Read and reconnect until cancelled."""
        while True:
            for node in self.nodes:
                if await self._read_from(node):
                    break
            await trio.sleep(self._retry_s)

    def problem(self, published: int) -> str | None:
        """Say what is wrong if this is not each of the published numbers, once, in order."""
        numbers = [delivery.number for delivery in self.deliveries]
        expected = range(1, published + 1)
        if numbers == list(expected) and not self.gaps and not self.refusals:
            return None
        counted = Counter(numbers)
        missing = [number for number in expected if number not in counted]
        repeated = [number for number, count in counted.items() if count > 1]
        backwards = [(first, second) for first, second in pairwise(numbers) if second <= first]
        return (
            f"{self}: {len(numbers)} of {published} seen on {self.opened} connections, last "
            f"{self.last}; missing {shown(missing)}; repeated {shown(repeated)}; "
            f"backwards {backwards[:5]}; gaps {self.gaps}; refusals {self.refusals}"
        )

    async def _read_from(self, node: Address) -> bool:
        """Read one stream to its end; return whether there was one."""
        opened = self.opened
        try:
            with trio.fail_after(CONNECT_S_MAX):
                stream = await trio.open_tcp_stream(*node)
            async with stream:
                http = h11.Connection(h11.CLIENT)
                await self._open(stream, http)
                await self._read(stream, http, node)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError, h11.RemoteProtocolError):
            pass  # what a browser calls an error: it comes back with its last id
        return self.opened > opened

    async def _open(self, stream: trio.SocketStream, http: h11.Connection) -> None:
        headers = [("Host", "localhost"), ("Accept", "text/event-stream")]
        if self._last_event_id:
            headers.append(("Last-Event-ID", self._last_event_id))
        request = h11.Request(method="GET", target=self._target, headers=headers)
        await stream.send_all(http.send(request) + http.send(h11.EndOfMessage()))
        with trio.fail_after(HEAD_S_MAX):
            head = await _next_event(stream, http)
        if not isinstance(head, h11.Response):
            raise h11.RemoteProtocolError("the connection ended before the response")
        if head.status_code != 200:
            self.refusals.append(f"status {head.status_code}")
        self.opened += 1

    async def _read(self, stream: trio.SocketStream, http: h11.Connection, node: Address) -> None:
        parser = EventStreamParser(self._last_event_id)
        while isinstance(received := await _next_event(stream, http), h11.Data):
            for event in parser.feed(bytes(received.data)):
                self._take(event, node)
            self._last_event_id = parser.last_event_id
            if parser.retry_ms is not None:
                self._retry_s = parser.retry_ms / 1000

    def _take(self, event: StreamEvent, node: Address) -> None:
        if event.type != "message":
            self.gaps.append(f"{event.type} {event.data} after {self.last}")
        else:
            self.deliveries.append(Delivery(_number(event.data), node, time.monotonic()))


async def _next_event(stream: trio.SocketStream, http: h11.Connection) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await stream.receive_some(65_536))
    return event


def _number(data: str) -> int:
    if found := re.fullmatch(r"UserID: (\d+) Category: books MatchCategory: films", data):
        return int(found[1])
    return int(json.loads(data)["user_id"])


def shown(numbers: Sequence[int]) -> str:
    """Return numbers as runs, the first few of them."""
    runs = list(_runs(numbers))
    return (", ".join(runs[:8]) + (", …" if len(runs) > 8 else "")) or "none"


def _runs(numbers: Sequence[int]) -> Iterator[str]:
    first = last = None
    for number in [*sorted(numbers), None]:
        if first is not None and number != (last or 0) + 1:
            yield str(first) if first == last else f"{first}-{last}"
            first = None
        first = number if first is None else first
        last = number
