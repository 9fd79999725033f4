"""Follows one event stream over HTTP/1.1, with or without TLS, from connection to connection.

Enters: a URL, a TLS context. Leaves: events and news about the connection, to whoever watches.
Never: an event twice or a gap that the server did not tell of, as far as ids go; a decision of its
own (`reconnection` has them).
"""

import ssl
from collections.abc import Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit

import h11
import trio

from noti.certificates.rejections import handshake_refusal
from noti.client.event_stream import StreamEvent
from noti.client.reconnection import ComeBack, Follower, GiveUp, Move, Open, Stop, Verdict
from noti.errors import LocalError, MessageInvalid, Unavailable

CONNECT_S_MAX: Final = 10.0
HEAD_S_MAX: Final = 30.0
"""Until the answer's head is here; a node that catches up answers after 2 s at the latest."""
SILENCE_S_MAX: Final = 60.0
"""A connection without a byte for so long is taken for dead: servers send heartbeats."""
RECEIVE_BYTES: Final = 64 * 1024
EXPLANATION_BYTES_MAX: Final = 400
"""Of a refusal's body that are shown to a person."""


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

    Raises `LocalError` for a URL that cannot be followed, `Unavailable` when the server refuses for
    good. Cancellation: the connection is closed.
    """
    while True:
        verdict: Verdict | None
        try:
            verdict = await _one_connection(follower, watcher, tls, headers, silence_s_max)
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError, MessageInvalid) as e:
            verdict = _failed(follower, e)
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
    stream = await connect(follower.url, tls)
    async with stream:
        http = h11.Connection(h11.CLIENT)
        with trio.fail_after(HEAD_S_MAX):
            own = headers if follower.at_home else ()
            await stream.send_all(_request(http, follower, own))
            head = await _next(http, stream)
            while isinstance(head, h11.InformationalResponse):
                head = await _next(http, stream)
        if not isinstance(head, h11.Response):
            return follower.ended("it hangs up")
        fields = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        verdict = follower.answered(head.status_code, fields)
        if isinstance(verdict, GiveUp):
            explanation = await _explanation(http, stream)
            return GiveUp(f"{verdict.why}{explanation}")
        if not isinstance(verdict, Open):
            return verdict
        watcher.opened(follower.url, verdict.resumed_from)
        while True:
            with trio.move_on_after(silence_s_max) as silence:
                received = await _next(http, stream)
            if silence.cancelled_caught:
                return follower.ended(f"it was silent for {silence_s_max:g} s")
            if not isinstance(received, h11.Data):
                return follower.ended("the stream ended")
            for event in follower.feed(bytes(received.data)):
                if not watcher.event(event):
                    return None


def _request(http: h11.Connection, follower: Follower, headers: Sequence[tuple[str, str]]) -> bytes:
    host, target = target_of(follower.url)
    try:
        request = h11.Request(
            method="GET",
            target=target,
            headers=[("Host", host), *follower.request_headers(), *headers],
        )
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise LocalError(f"{follower.url!r} cannot be asked for: {error}") from None
    return (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b"")


def target_of(url: str) -> tuple[str, str]:
    """Return a URL's host, with its port, and the target of a request for it."""
    parts = urlsplit(url)
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    host = parts.netloc.rpartition("@")[2]
    return host, target if target.startswith("/") else f"/{target}"


async def connect(url: str, tls: ssl.SSLContext) -> trio.abc.Stream:
    """Connect to the server of a URL.

    Raises `LocalError` for a URL without one, `trio.TooSlowError`, `OSError`, and
    `trio.BrokenResourceError` from an `ssl.SSLError`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise LocalError(f"{url!r} cannot be followed; write http://HOST:PORT/PATH") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise LocalError(f"{url!r} cannot be followed; write http://HOST:PORT/PATH")
    secure = parts.scheme == "https"
    with trio.fail_after(CONNECT_S_MAX):
        stream = await trio.open_tcp_stream(parts.hostname, port or (443 if secure else 80))
        if not secure:
            return stream
        wrapped = trio.SSLStream(stream, tls, server_hostname=parts.hostname, https_compatible=True)
        try:
            await wrapped.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(wrapped)
            raise
        return wrapped


async def _next(http: h11.Connection, stream: trio.abc.Stream) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(bytes(await stream.receive_some(RECEIVE_BYTES)))
    return event


async def _explanation(http: h11.Connection, stream: trio.abc.Stream) -> str:
    """Return what the body of a refusal says, ready to be appended."""
    body = b""
    with trio.move_on_after(1):
        while len(body) < EXPLANATION_BYTES_MAX:
            event = await _next(http, stream)
            if not isinstance(event, h11.Data):
                break
            body += bytes(event.data)
    text = " ".join(body[:EXPLANATION_BYTES_MAX].decode("utf-8", "replace").split())
    return f": {text}" if text and "<" not in text else ""


def _failed(follower: Follower, error: Exception) -> Verdict:
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    match cause:
        case ssl.SSLCertVerificationError():
            return GiveUp(f"it {handshake_refusal(cause)} (see --tls-ca)")
        case ssl.SSLError():
            return follower.ended(f"it {handshake_refusal(cause)}")
        case OSError(strerror=str(words)):
            return follower.ended(words.lower())
        case _:
            return follower.ended(str(cause or error) or type(error).__name__)
