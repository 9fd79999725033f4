"""Reads one event stream, over HTTP/1.1 or WebSocket, from connection to connection.

As far as ids go, no event comes twice, and there is no gap that the server did not report.
"""

import ssl
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from noti.client.event_stream import StreamEvent
from noti.client.http import HttpResponse, open_response
from noti.client.reconnection import GiveUp, Move, NextStep, Open, Reconnect, Reconnection, Stop
from noti.client.websocket import WebSocketResponse, is_websocket, open_websocket
from noti.errors import MessageInvalid, PeerUnavailable, Unavailable

HEAD_S_MAX: Final = 30.0
"""Until the answer's head is here; a node that catches up answers after 2 s at the latest."""
SILENCE_S_MAX: Final = 60.0
"""A connection without a byte for so long counts as dead: servers send heartbeats."""
EXPLANATION_BYTES_MAX: Final = 400
"""Of a rejection's body that are shown to a person."""


class Watcher(Protocol):
    """Receives the events of a stream, and what happens to its connection."""

    def opened(self, url: str, resumed_from: str | None) -> None:
        """A stream has begun."""

    def event(self, event: StreamEvent) -> bool:
        """Take an event; return False to have no more."""

    def waiting(self, pause: Reconnect) -> None:
        """The stream is away, and is tried again after a pause."""


async def read_stream(
    reconnection: Reconnection,
    watcher: Watcher,
    *,
    tls: ssl.SSLContext,
    headers: Sequence[tuple[str, str]] = (),
    silence_s_max: float = SILENCE_S_MAX,
    head_s_max: float = HEAD_S_MAX,
) -> None:
    """Read until the server ends it permanently (204), or the watcher has enough.

    An attempt may take `head_s_max` seconds until the head of the answer is here.
    Raises `LocalError` for a URL that cannot be followed, `Unavailable` when the
    server rejects the request permanently. Cancellation: the connection is closed.
    """
    while True:
        step: NextStep | None
        try:
            step = await _one_connection(
                reconnection, watcher, tls, headers, silence_s_max, head_s_max
            )
        except PeerUnavailable as error:
            step = _failed(reconnection, error)
        except MessageInvalid as error:
            step = reconnection.ended(str(error))
        except trio.TooSlowError:
            step = reconnection.ended("it does not answer")
        match step:
            case None | Stop():
                return
            case Move() | Open():
                pass
            case Reconnect() as pause:
                watcher.waiting(pause)
                await trio.sleep(pause.after_s)
            case GiveUp(why):
                raise Unavailable(f"{reconnection.url}: {why}")


async def _one_connection(
    reconnection: Reconnection,
    watcher: Watcher,
    tls: ssl.SSLContext,
    headers: Sequence[tuple[str, str]],
    silence_s_max: float,
    head_s_max: float,
) -> NextStep | None:
    """Read one connection to its end; None when the watcher has enough."""
    own = headers if reconnection.at_home else ()
    open_stream = open_websocket if is_websocket(reconnection.url) else open_response
    async with open_stream(
        reconnection.url,
        tls,
        headers=[*reconnection.request_headers(), *own],
        head_s=head_s_max,
        silence_s=silence_s_max,
    ) as response:
        step = reconnection.answered(response.status, response.headers)
        if isinstance(step, GiveUp):
            return GiveUp(f"{step.why}{await _explanation(response)}")
        if not isinstance(step, Open):
            return step
        watcher.opened(reconnection.url, step.resumed_from)
        while True:
            try:
                data = await response.read_some()
            except trio.TooSlowError:
                return reconnection.ended(f"it was silent for {silence_s_max:g} s")
            if not data:
                return reconnection.ended("the stream ended")
            for event in reconnection.feed(data):
                if not watcher.event(event):
                    return None


async def _explanation(response: HttpResponse | WebSocketResponse) -> str:
    """Return what the body of a rejection says, ready to be appended."""
    body = b""
    with trio.move_on_after(1):
        while len(body) < EXPLANATION_BYTES_MAX and (data := await response.read_some()):
            body += data
    text = " ".join(body[:EXPLANATION_BYTES_MAX].decode("utf-8", "replace").split())
    return f": {text}" if text and "<" not in text else ""


def _failed(reconnection: Reconnection, error: PeerUnavailable) -> NextStep:
    match error.__cause__:
        case ssl.SSLCertVerificationError():
            return GiveUp(f"{error} (see --tls-ca)")
        case _:
            return reconnection.ended(str(error))
