"""A hub of one node that publishes and is read over HTTP, for tests that state Mercure's rules.

What is real: HTTP, tokens, checks of events, commands, history, streams. What is not: Raft; a
command is applied as soon as it is submitted.
"""

import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import h11
import pytest
import trio
from wsproto.events import TextMessage

from noti.address import Address
from noti.authorization.grant import Dialect
from noti.completion import OnDone
from noti.errors import MessageInvalid
from noti.history.state_machine import HistoryStateMachine
from noti.history.store import Store
from noti.http.config import HttpConfig
from noti.http.publish_endpoint import PublishEndpoint
from noti.http.server import Frontend
from noti.publishing.publisher import Publisher
from noti.streams.hub import Hub
from noti.trio_clock import TrioClock
from tests.authorization.tokens import authorizer, detail, token_v0, token_v1
from tests.http.stage import Client, Node, events, hub
from tests.http.websocket_stage import HANDSHAKE, Speaker

HUB = "/.well-known/mercure"
HUB_URL = f"http://localhost{HUB}"
V0, V1 = Dialect.V0, Dialect.V1
DIALECTS = (V0, V1)

SELECT = {V0: "topic", V1: "match"}
"""The parameter that names a topic."""
LAST_EVENT_ID = {V0: "lastEventID", V1: "last_event_id"}
"""The parameter with a cursor."""
RESUMED_FROM = {V0: b"last-event-id", V1: b"mercure-last-event-id"}
"""The header of the answer."""


_ends = itertools.count()


def target(dialect: Dialect, *topics: str, **parameters: str) -> str:
    """Return where events of these topics are."""
    fields = [(SELECT[dialect], topic) for topic in topics]
    return f"{HUB}?{urlencode([*fields, *parameters.items()], quote_via=quote)}"


def token(
    dialect: Dialect,
    *,
    publish: Iterable[str] = (),
    subscribe: Iterable[str] = (),
    lasts_s: float = 600,
    **claims: Any,
) -> str:
    """Return a good token of a dialect."""
    expires = time.time() + lasts_s
    if dialect is V0:
        return token_v0(list(publish), list(subscribe), exp=expires, **claims)
    details = [
        detail(*topics, actions=(action,))
        for action, topics in [("publish", publish), ("subscribe", subscribe)]
        if topics
    ]
    return token_v1(*details, aud=HUB_URL, exp=expires, **claims)


def bearer(text: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {text}"


@dataclass(frozen=True)
class Answered:
    """A whole response."""

    status: int
    headers: Mapping[bytes, bytes]
    body: str


class LogOfOne:
    """A `CommandForwarder` whose cluster agrees at once."""

    def __init__(self, there: Hub) -> None:
        self.store = Store()
        self._machine = HistoryStateMachine(self.store, there)
        self._index = 0

    def submit(self, command: bytes, on_done: OnDone[int]) -> None:
        self._index += 1
        try:
            self._machine.apply(command)
        except MessageInvalid as error:
            on_done(error)
        else:
            on_done(self._index)

    async def wait_news(self) -> None:
        await trio.sleep_forever()


@dataclass(frozen=True)
class MercureHub:
    """Where it is, and what it shows."""

    address: Address
    hub: Hub
    subprotocol: str | None = None
    """Of the WebSockets by which `shown` reads; None for event streams."""

    async def ask(
        self,
        to: str,
        *headers: tuple[str, str],
        method: str = "GET",
        body: bytes = b"",
    ) -> Answered:
        """Return a whole answer; that of a stream ends nowhere."""
        async with self.open(to, *headers, method=method, body=body) as (response, one):
            text = await one.read_all()
            return Answered(response.status_code, dict(response.headers), text)

    @asynccontextmanager
    async def open(
        self,
        to: str,
        *headers: tuple[str, str],
        method: str = "GET",
        body: bytes = b"",
    ) -> AsyncIterator[tuple[h11.Response, Client]]:
        """Return a response whose body may go on."""
        one = await Client.open(self.address)
        async with one.stream:
            lengths = [("Content-Length", str(len(body)))] if body or method == "POST" else []
            response = await one.request(to, [*headers, *lengths], method, body)
            yield response, one

    async def post(
        self,
        *fields: tuple[str, str],
        by: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        **more: str,
    ) -> Answered:
        """Publish a form, with a token of 0.x that may publish everything unless told otherwise."""
        by = token(V0, publish=["*"]) if by is None else by
        given = [("Content-Type", "application/x-www-form-urlencoded"), *headers]
        if by:
            given.append(bearer(by))
        body = urlencode([*fields, *more.items()]).encode()
        return await self.ask(HUB, *given, method="POST", body=body)

    async def publish(self, *topics: str, **more: str) -> str:
        """Publish an event, and return its id."""
        answer = await self.post(*(("topic", topic) for topic in topics), *more.items())
        assert answer.status == 200, answer
        return answer.body

    async def shown(
        self, to: str, *headers: tuple[str, str], method: str = "GET", body: bytes = b""
    ) -> list[str]:
        """Return the ids of all events of history that a reader gets, in order.

        To see their end, a last event is published, on a topic of its own that is asked for too.
        """
        last = f"end-{next(_ends)}"
        separator = "&" if "?" in to else "?"
        ends = f"match={last}" if "match" in to or method == "QUERY" else f"topic={last}"
        to = f"{to}{separator}{ends}"
        if self.subprotocol is not None and method == "GET":
            return await self._shown_over_websocket(to, headers, last, self.subprotocol)
        async with self.open(to, *headers, method=method, body=body) as (response, one):
            assert response.status_code == 200, await one.read_all()
            end = await self.publish(last)
            return [event["id"] for event in events(await one.read_until(f"id: {end}\n"))][:-1]

    async def _shown_over_websocket(
        self, to: str, headers: Iterable[tuple[str, str]], last: str, subprotocol: str
    ) -> list[str]:
        offered, page = ("sec-websocket-protocol", subprotocol), ("origin", "http://localhost")
        given = [*HANDSHAKE, offered, page, *headers]
        async with Speaker.open(self.address, to, given) as speaker:
            assert speaker.status == 101, speaker.body
            end = await self.publish(last)
            shown: list[str] = []
            while end not in shown:
                message = await speaker.hear()
                if isinstance(message, TextMessage):
                    shown += ids_in(message.data, subprotocol)
            return shown[:-1]


def ids_in(message: str, subprotocol: str) -> list[str]:
    """Return the ids of the events in a message: one, or none."""
    if subprotocol == "sse":
        return [event["id"] for event in events(message)]
    said = json.loads(message)
    return [said["id"]] if "topics" in said else []


over_every_transport = pytest.mark.parametrize(
    "subprotocol",
    [
        pytest.param(None, id="event-stream"),
        pytest.param("noti", id="websocket-noti"),
        pytest.param("sse", id="websocket-sse"),
    ],
)


@asynccontextmanager
async def mercure_hub(
    config: HttpConfig | None = None,
    *,
    authorization: Mapping[str, Any] | None = None,
    subprotocol: str | None = None,
    **hub_settings: object,
) -> AsyncIterator[MercureHub]:
    """Serve a hub whose tokens are checked with the key of `tests.authorization.tokens`.

    Everybody may read public events, unless `authorization` says `anonymous=False`.
    """
    there = hub(**hub_settings)
    config = config or HttpConfig()
    settings = {"anonymous": True, "audience": None, **(authorization or {})}
    who = authorizer(**settings)
    log = LogOfOne(there)
    publisher = Publisher(log, TrioClock(), random.Random(1), id_of=log.store.id_of)
    endpoint = PublishEndpoint(publisher, who, config)
    frontend = Frontend(("127.0.0.1", 0), there, Node(), config, authorizer=who, endpoint=endpoint)
    async with trio.open_nursery() as nursery:
        await nursery.start(publisher.run)
        address = await nursery.start(frontend.run)
        yield MercureHub(address, there, subprotocol)
        nursery.cancel_scope.cancel()
