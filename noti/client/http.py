"""Asks an HTTP/1.1 server for one document, with or without TLS.

Enters: a URL, a TLS context, limits. Leaves: a status and a body. Never: a redirection, a proxy;
more time or bytes than it was given, however slowly or endlessly the other side talks.
"""

import ssl
from typing import NamedTuple

import h11
import trio

from noti.client.event_source import RECEIVE_BYTES, connect, target_of
from noti.errors import MessageInvalid


class HttpResponse(NamedTuple):
    """What the server said."""

    status: int
    reason: str
    body: bytes


async def ask(
    url: str, tls: ssl.SSLContext, *, within_s: float, body_bytes_max: int
) -> HttpResponse:
    """Return what is at `url`.

    Raises `LocalError` for a URL that cannot be asked for, `trio.TooSlowError` after `within_s`
    seconds, `OSError` and `trio.BrokenResourceError` when there is no connection, and
    `MessageInvalid` for what is no HTTP, or longer than `body_bytes_max`.
    """
    with trio.fail_after(within_s):
        stream = await connect(url, tls)
        async with stream:
            http = h11.Connection(h11.CLIENT)
            host, target = target_of(url)
            headers = [("Host", host), ("Accept", "application/json"), ("Connection", "close")]
            request = h11.Request(method="GET", target=target, headers=headers)
            await stream.send_all(
                (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b"")
            )
            try:
                return await _read(http, stream, body_bytes_max)
            except h11.RemoteProtocolError as error:
                raise MessageInvalid(f"that is no HTTP: {error}") from None


async def _read(http: h11.Connection, stream: trio.abc.Stream, body_bytes_max: int) -> HttpResponse:
    status, reason = 0, ""
    body = bytearray()
    while True:
        match http.next_event():
            case h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(RECEIVE_BYTES)))
            case h11.Response() as head:
                status, reason = head.status_code, bytes(head.reason).decode("latin-1")
            case h11.Data() as data:
                body += data.data
                if len(body) > body_bytes_max:
                    raise MessageInvalid(f"an answer of more than {body_bytes_max} bytes")
            case h11.EndOfMessage() | h11.PAUSED:
                return HttpResponse(status, reason, bytes(body))
            case h11.ConnectionClosed():
                raise MessageInvalid("it hangs up without an answer")
            case _:
                pass
