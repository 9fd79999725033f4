"""Publishes to a cluster, and reads from it, over HTTP: for applications, on Trio or asyncio.

    async with Client(["http://10.0.0.1:8402", "http://10.0.0.2:8402"], token=token) as client:
        event_id = await client.publish("news", "hello", type="greeting")
        async with client.subscribe("news") as events:
            async for event in events:
                print(event.last_event_id, event.data)

Any node will do, so a client that knows several goes on when one of them dies: what it publishes is
shown once, as each attempt carries the same key; what it reads comes once and without a gap, as far
as history reaches.
"""

import inspect
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random
from types import TracebackType
from typing import Final, Self, TypeAlias
from urllib.parse import urlencode

import anyio
import httpx

from noti.address import HUB_PATH, PORT_MAX
from noti.backoff import Backoff
from noti.client.event_stream import StreamEvent
from noti.client.reconnection import GiveUp, Move, NextStep, Open, Reconnect, Reconnection, Stop
from noti.client.strangers import is_strangers, type_of
from noti.client.transport_errors import said, transport_problem
from noti.errors import (
    LocalError,
    MessageInvalid,
    ProposalUncertain,
    RequestRejected,
    Unavailable,
)
from noti.redaction import redacted, redacted_url

WITHIN_S: Final = 30.0
"""How long an event is tried to be published: an election, and a node that restarts."""
ANSWER_S_MAX: Final = 15.0
"""How long a node may take for one answer; it gives an event up after 10 s at the latest."""
SILENCE_S_MAX: Final = 60.0
"""A stream without a byte for so long counts as dead: nodes send heartbeats."""

Token: TypeAlias = str | Callable[[], str | Awaitable[str]] | None
"""A token, or what returns a fresh one; it is asked before each request."""

_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
_UNKNOWN: Final = frozenset({500, 502, 504})
"""Of these, what may have been committed all the same."""


_CONNECTING: Final = frozenset(
    f"connection.{step}.started" for step in ("connect_tcp", "connect_unix_socket", "start_tls")
)
"""What httpx does before anything of a request leaves. Looking up a name is a part of it."""


class _Stranger(RequestRejected):
    """What answers is no hub, and certainly has not taken the event."""


class _RequestSteps:
    """How far a request has come, as httpx tells it; other transports may tell nothing."""

    def __init__(self) -> None:
        self.may_have_left = False

    async def trace(self, event: str, info: object) -> None:
        """Learn of a step."""
        if event.endswith(".started"):
            self.may_have_left = event not in _CONNECTING


class Client:
    """One cluster, as an application sees it."""

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        token: Token = None,
        http: httpx.AsyncClient | None = None,
        rng: Random | None = None,
    ) -> None:
        """`urls` are nodes, as `http://HOST:PORT`, or hubs with their path; else `LocalError`.

        `http` has settings of its own (certificates, proxies), and stays open in the end.
        """
        self._hubs = [_hub(url) for url in ([urls] if isinstance(urls, str) else urls)]
        if not self._hubs:
            raise LocalError("a client needs the URL of a node, one at least")
        self._token = token
        self._own_http = http is None
        self._http = httpx.AsyncClient() if http is None else http
        self._rng = Random() if rng is None else rng
        self._turn = 0
        """The hub that answered last."""

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close its connections."""
        if self._own_http:
            await self._http.aclose()

    async def publish(
        self,
        topics: str | Sequence[str],
        data: str = "",
        *,
        id: str | None = None,  # noqa: A002 - the field's name
        type: str | None = None,  # noqa: A002 - the field's name
        private: bool = False,
        retry_ms: int | None = None,
        idempotency_key: str | None = None,
        within_s: float = WITHIN_S,
    ) -> str:
        """Return the event's id once a majority of nodes has it on disk.

        Until then it is tried at one node after the other, and shown once: each attempt carries
        `idempotency_key`, or one that is made here.

        Raises `RequestRejected` when it will never be taken, or when no URL is a hub's; after
        `within_s` seconds `Unavailable` when nothing was committed, `ProposalUncertain` when that
        is not known. *Cancellation*: it may be committed all the same.
        """
        fields = [("topic", topic) for topic in ([topics] if isinstance(topics, str) else topics)]
        fields.append(("data", data))
        given = {"id": id, "type": type, "private": "on" if private else None, "retry": retry_ms}
        fields += [(name, str(value)) for name, value in given.items() if value is not None]
        content = urlencode(fields).encode()
        key = idempotency_key or str(uuid.uuid4())
        backoff = Backoff(self._rng)
        uncertain, why, retry_after_s, asking = False, "", 0.0, False
        steps = _RequestSteps()
        with anyio.move_on_after(within_s):
            while True:
                strangers = 0
                for _ in self._hubs:
                    asking, steps = True, _RequestSteps()
                    try:
                        answer = await self._attempt(content, key, steps)
                    except _Stranger as stranger:
                        strangers += 1
                        if strangers == len(self._hubs) and not uncertain:
                            raise RequestRejected(stranger.status, str(stranger)) from None
                        answer = str(stranger), False, 0.0
                    asking = False
                    if isinstance(answer, str):
                        return answer
                    why, maybe, retry_after_s = answer
                    uncertain = uncertain or maybe
                    self._turn = (self._turn + 1) % len(self._hubs)
                await anyio.sleep(backoff.failed(retry_after_s))
        if asking:
            uncertain = uncertain or steps.may_have_left
            missing = "answer" if steps.may_have_left else "connection"
            why = f"{self._asked}: no {missing} within {within_s:g} s"
        if uncertain:
            raise ProposalUncertain(
                f"the event may or may not be committed: {why}; publish it again with the same id"
            )
        raise Unavailable(f"nothing was committed within {within_s:g} s: {why}")

    @asynccontextmanager
    async def subscribe(
        self,
        *topics: str,
        last_event_id: str = "",
        silence_s_max: float = SILENCE_S_MAX,
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        """Follow topics (selectors of Mercure 0.x; `*` for all), from now or after an event.

        Yields the events, each once. An event of the type `noti-gap` tells that some are missing,
        as history does not reach back far enough. The iteration ends when the server says so.
        While iterating, raises `RequestRejected` when the server rejects the stream permanently.
        Leaving the context, or *cancellation*, closes the connection.
        """
        query = urlencode([*(("topic", topic) for topic in topics), ("cursor", "1")])
        urls = [f"{hub}?{query}" for hub in self._hubs]
        reconnection = Reconnection(urls, self._rng, last_event_id)
        events = self._events(reconnection, silence_s_max)
        try:
            yield events
        finally:
            await events.aclose()

    @property
    def _asked(self) -> str:
        """The hub whose turn it is, for a person."""
        return redacted(self._hubs[self._turn])

    async def _attempt(
        self, content: bytes, key: str, steps: _RequestSteps
    ) -> str | tuple[str, bool, float]:
        """Return the id, or what went wrong, whether it may be committed, and when to come back.

        Raises `RequestRejected`, as `_Stranger` when it is no hub that answers.
        """
        hub = self._hubs[self._turn]
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Idempotency-Key": key,
            **await self._authorization(),
        }
        steps.may_have_left = True
        try:
            response = await self._http.post(
                hub,
                content=content,
                headers=headers,
                timeout=ANSWER_S_MAX,
                extensions={"trace": steps.trace},
            )
        except httpx.TransportError as error:
            refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            maybe = steps.may_have_left and not refused
            return f"{self._asked}: {transport_problem(error)}", maybe, 0.0
        text = said(response.status_code, response.reason_phrase, response.text)
        strange = is_strangers(response.status_code, response.headers)
        if response.is_success:
            if strange or type_of(response.headers) == "application/json":
                kind = "a page" if strange else "JSON"
                raise _Stranger(response.status_code, f"{self._asked} answers with {kind}: no hub")
            return response.text
        if strange:
            raise _Stranger(response.status_code, f"{self._asked}: {text}")
        if response.status_code not in _AGAIN:
            raise RequestRejected(response.status_code, f"{self._asked}: {text}")
        wanted = response.headers.get("retry-after", "")
        retry_after_s = float(wanted) if wanted.isascii() and wanted.isdigit() else 0.0
        maybe = response.status_code in _UNKNOWN
        return f"{self._asked}: {text}", maybe, retry_after_s

    async def _events(
        self, reconnection: Reconnection, silence_s_max: float
    ) -> AsyncGenerator[StreamEvent, None]:
        step: NextStep
        while True:
            why = ""
            try:
                async with self._opened(reconnection, silence_s_max) as response:
                    step = reconnection.answered(response.status_code, response.headers)
                    if isinstance(step, GiveUp):
                        text = " ".join((await response.aread()).decode("utf-8", "replace").split())
                        raise RequestRejected(response.status_code, f"{step.why}: {text}")
                    if isinstance(step, Open):
                        async with _pieces(response) as pieces:
                            async for data in pieces:
                                for event in reconnection.feed(data):
                                    yield event
                        why = "the stream ended"
            except httpx.TransportError as error:
                why = transport_problem(error)
            except MessageInvalid as error:
                why = str(error)
            if why:
                step = reconnection.ended(why)
            match step:
                case Stop():
                    return
                case Reconnect(after_s, _):
                    await anyio.sleep(after_s)
                case Move() | Open() | GiveUp():
                    pass

    @asynccontextmanager
    async def _opened(
        self, reconnection: Reconnection, silence_s_max: float
    ) -> AsyncIterator[httpx.Response]:
        headers = dict(reconnection.request_headers())
        if reconnection.at_home:
            headers |= await self._authorization()
        timeout = httpx.Timeout(ANSWER_S_MAX, read=silence_s_max)
        async with self._http.stream(
            "GET", reconnection.url, headers=headers, timeout=timeout
        ) as response:
            yield response

    async def _authorization(self) -> dict[str, str]:
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        return {} if token is None else {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def _pieces(response: httpx.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """Yield the pieces of a body, which need not be read to its end.

    httpx reads by generators inside generators, none of which closes the one that it reads. Asked
    once more when the response is closed, they all end, here and not when they are collected.
    """
    pieces = response.aiter_raw()
    try:
        yield pieces
    finally:
        await response.aclose()
        with suppress(httpx.TransportError, httpx.StreamError, StopAsyncIteration):
            await anext(pieces)


def _hub(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL()
    known = parts.scheme in ("http", "https") and parts.host and (parts.port or 0) <= PORT_MAX
    if not known:
        raise LocalError(f"{redacted_url(url)!r} is not the URL of a node; write http://HOST:PORT")
    return str(parts.copy_with(path=HUB_PATH) if parts.path in ("", "/") else parts)
