"""Asks an HTTP/1.1 server, with or without TLS: one request, on a connection of its own.

Never a redirection, a proxy, or a decompression; and no more time or bytes than the caller grants,
however slowly or endlessly the other side talks.
"""

import math
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import h11
import trio

from noti.connection_errors import CLOSED, CUT_SHORT, reason_of
from noti.errors import LocalError, MessageInvalid, PeerUnavailable

CONNECT_S_MAX: Final = 10.0
"""With the handshake of TLS."""
RECEIVE_BYTES: Final = 64 * 1024
HTTP: Final = ("http", "https")


class HttpResponse:
    """What the server answers: the head, and a body that is read piece by piece."""

    def __init__(self, head: h11.Response, connection: "_Connection", silence_s: float) -> None:
        self.status = head.status_code
        self.reason = bytes(head.reason).decode("latin-1")
        self.headers: Mapping[str, str] = {
            name.decode(): value.decode("latin-1") for name, value in head.headers
        }
        """By lower-case name."""
        self._connection = connection
        self._silence_s = silence_s

    async def read_some(self) -> bytes:
        """Return the next bytes of the body; none at its end.

        Raises `trio.TooSlowError` after the silence that is granted, `PeerUnavailable` and
        `MessageInvalid` when the body is cut short.
        """
        with trio.fail_after(self._silence_s):
            event = await self._connection.receive()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def read(self, bytes_max: int) -> bytes:
        """Return the whole body; raises `MessageInvalid` too when it is longer than `bytes_max`."""
        body = bytearray()
        while data := await self.read_some():
            body += data
            if len(body) > bytes_max:
                raise MessageInvalid(f"an answer of more than {bytes_max} bytes")
        return bytes(body)


@asynccontextmanager
async def open_response(
    url: str,
    tls: ssl.SSLContext | None,
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    content: bytes = b"",
    head_s: float = math.inf,
    silence_s: float = math.inf,
) -> AsyncIterator[HttpResponse]:
    """Send a request; hang up at the end. `tls` is for an https URL, None if that is none.

    Connecting may take `CONNECT_S_MAX`, and neither that nor the head of the answer more than
    `head_s` seconds; between two pieces of the body there may be `silence_s`.

    Raises `LocalError` for a URL that cannot be asked for, `trio.TooSlowError`, `PeerUnavailable`
    without a connection, from the error that the system or OpenSSL met, and `MessageInvalid` for
    what is no HTTP.
    *Cancellation* closes the connection.
    """
    target = target_of(url)
    http = h11.Connection(h11.CLIENT)
    if content:
        headers = [*headers, ("Content-Length", str(len(content)))]
    try:
        request = h11.Request(
            method=method, target=target.path, headers=[("Host", target.netloc), *headers]
        )
        sent = http.send(request) or b""
    except (h11.LocalProtocolError, UnicodeEncodeError):
        # h11 would say which header, and with it a secret.
        problem = "it, or a header, has characters that HTTP does not allow"
        raise LocalError(f"{url!r} cannot be asked for: {problem}") from None
    if content:
        sent += http.send(h11.Data(data=content)) or b""
    sent += http.send(h11.EndOfMessage()) or b""
    with trio.fail_after(min(head_s, CONNECT_S_MAX)), our_errors(target.host):
        stream = await connect(target, tls)
    async with stream:
        connection = _Connection(http, stream)
        with trio.fail_after(head_s):
            await connection.send(sent)
            while isinstance(head := await connection.receive(), h11.InformationalResponse):
                pass
        assert isinstance(head, h11.Response), "h11 lets nothing else come first"
        yield HttpResponse(head, connection, silence_s)


class _Connection(NamedTuple):
    http: h11.Connection
    stream: trio.abc.Stream

    async def send(self, data: bytes) -> None:
        with our_errors():
            await self.stream.send_all(data)

    async def receive(self) -> object:
        """Return the next event of h11."""
        begun = self.http.their_state is not h11.SEND_RESPONSE
        with our_errors():
            try:
                while (event := self.http.next_event()) is h11.NEED_DATA:
                    self.http.receive_data(bytes(await self.stream.receive_some(RECEIVE_BYTES)))
            except h11.RemoteProtocolError as error:
                rest, at_end = self.http.trailing_data
                if at_end:
                    raise PeerUnavailable(CUT_SHORT if begun or rest else CLOSED) from None
                raise MessageInvalid(f"that is no HTTP: {error}") from None
        return event


class Target(NamedTuple):
    """What a URL names."""

    host: str
    port: int
    secure: bool
    netloc: str
    path: str
    """With the query."""


def target_of(url: str, schemes: tuple[str, str] = HTTP) -> Target:
    """Return what a URL names, of one of two schemes: without TLS, and with it.

    Raises `LocalError`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain, with_tls = schemes
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise LocalError(f"{url!r} cannot be asked for; write {plain}://HOST:PORT/PATH")
    secure = parts.scheme == with_tls
    path = parts._replace(scheme="", netloc="", fragment="").geturl()
    return Target(
        parts.hostname,
        port or (443 if secure else 80),
        secure,
        parts.netloc.rpartition("@")[2],
        path if path.startswith("/") else f"/{path}",
    )


async def connect(target: Target, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    """Connect, and shake hands where there is TLS; within `our_errors`."""
    stream = await trio.open_tcp_stream(target.host, target.port)
    if not target.secure:
        return stream
    assert tls is not None, "an https URL needs it"
    wrapped = trio.SSLStream(stream, tls, server_hostname=target.host, https_compatible=True)
    try:
        await wrapped.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(wrapped)
        raise
    return wrapped


@contextmanager
def our_errors(host: str | None = None) -> Iterator[None]:
    """Raise what happens to a connection as `PeerUnavailable`, see `open_response`.

    `host` is whom it was to reach.
    """
    try:
        yield
    except (OSError, trio.BrokenResourceError) as error:
        cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
        reason = "the connection was lost" if cause is None else reason_of(cause, host)
        raise PeerUnavailable(reason) from cause
