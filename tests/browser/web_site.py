"""The web site of an application: one page, on an origin of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

HOST = "127.0.0.1"


@asynccontextmanager
async def web_site(html: str = "<!doctype html><title>application</title>") -> AsyncIterator[str]:
    """Serve a page for every request; yield its origin."""
    body = html.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n"

    async def answer(stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            more = await stream.receive_some()
            if not more:
                return
            received += more
        await stream.send_all(f"{head}Connection: close\r\n\r\n".encode() + body)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answer, 0)
        host, port = HOST, listeners[0].socket.getsockname()[1]
        yield f"http://{host}:{port}"
        nursery.cancel_scope.cancel()
