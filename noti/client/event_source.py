"""Follows one event stream over HTTP/1.1, with or without TLS, from connection to connection.

Enters: a URL, a TLS context. Leaves: events and news about the connection, to whoever watches.
Never: an event twice or a gap that the server did not tell of, as far as ids go; a decision of its
own (`reconnection` has them).
"""

import ssl
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from noti.client.event_stream import StreamEvent
from noti.client.http import HttpResponse, open_response
from noti.client.reconnection import ComeBack, Follower, GiveUp, Move, Open, Stop, Verdict
from noti.errors import MessageInvalid, PeerUnavailable, Unavailable

HEAD_S_MAX: Final = 30.0
"""Until the answer's head is here; a node that catches up answers after 2 s at the latest."""
SILENCE_S_MAX: Final = 60.0
"""A connection without a byte for so long is taken for dead: servers send heartbeats."""
EXPLANATION_BYTES_MAX: Final = 400
"""Of a rejection's body that are shown to a person."""


class Watcher(Protocol):
    """Whoever is shown a stream."""

    def opened(self, url: str, resumed_from: str | None) -> None:
        """A stream has begun."""

    def event(self, event: StreamEvent) -> bool:
        """Take an event; return False to have no more."""

    def waiting(self, pause: ComeBack) -> None:
        """The stream is away, and is tried again after a pause."""


async def follow(
    follower: Follower,
    watcher: Watcher,
    *,
    tls: ssl.SSLContext,
    headers: Sequence[tuple[str, str]] = (),
    silence_s_max: float = SILENCE_S_MAX,
) -> None:
    """Follow until the server says that it is over (204), or the watcher has enough.

    Raises `LocalError` for a URL that cannot be followed, `Unavailable` when the server rejects for
    good. Cancellation: the connection is closed.
    """
    while True:
        verdict: Verdict | None
        try:
            verdict = await _one_connection(follower, watcher, tls, headers, silence_s_max)
        except PeerUnavailable as error:
            verdict = _failed(follower, error)
        except MessageInvalid as error:
            verdict = follower.ended(str(error))
        except trio.TooSlowError:
            verdict = follower.ended("it does not answer")
        match verdict:
            case None | Stop():
                return
            case Move() | Open():
                pass
            case ComeBack() as pause:
                watcher.waiting(pause)
                await trio.sleep(pause.after_s)
            case GiveUp(why):
                raise Unavailable(f"{follower.url}: {why}")


async def _one_connection(
    follower: Follower,
    watcher: Watcher,
    tls: ssl.SSLContext,
    headers: Sequence[tuple[str, str]],
    silence_s_max: float,
) -> Verdict | None:
    """Read one connection to its end; None when the watcher has enough."""
    own = headers if follower.at_home else ()
    async with open_response(
        follower.url,
        tls,
        headers=[*follower.request_headers(), *own],
        head_s=HEAD_S_MAX,
        silence_s=silence_s_max,
    ) as response:
        verdict = follower.answered(response.status, response.headers)
        if isinstance(verdict, GiveUp):
            return GiveUp(f"{verdict.why}{await _explanation(response)}")
        if not isinstance(verdict, Open):
            return verdict
        watcher.opened(follower.url, verdict.resumed_from)
        while True:
            try:
                data = await response.read_some()
            except trio.TooSlowError:
                return follower.ended(f"it was silent for {silence_s_max:g} s")
            if not data:
                return follower.ended("the stream ended")
            for event in follower.feed(data):
                if not watcher.event(event):
                    return None


async def _explanation(response: HttpResponse) -> str:
    """Return what the body of a rejection says, ready to be appended."""
    body = b""
    with trio.move_on_after(1):
        while len(body) < EXPLANATION_BYTES_MAX and (data := await response.read_some()):
            body += data
    text = " ".join(body[:EXPLANATION_BYTES_MAX].decode("utf-8", "replace").split())
    return f": {text}" if text and "<" not in text else ""


def _failed(follower: Follower, error: PeerUnavailable) -> Verdict:
    match error.__cause__:
        case ssl.SSLCertVerificationError():
            return GiveUp(f"it {error} (see --tls-ca)")
        case ssl.SSLError():
            return follower.ended(f"it {error}")
        case _:
            return follower.ended(str(error).lower())
